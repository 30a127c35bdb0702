"""The text that needs no download: the Python language's own documentation, part of every CPython."""

from __future__ import annotations

import unicodedata

from poise.data.errors import DataError

_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "...", "\t": "    "},  # noqa: RUF001
)


def embedded_text() -> str:
    """Return the topics of `pydoc_data` in sorted order as one text of some 370,000 ASCII characters.

    Paragraphs that several topics share appear once, so that a part split off by position is not quoted in the rest.
    Typographic marks become ASCII, any other character outside printable ASCII loses its accents or is dropped: a
    handful of rare symbols would cost rows of the vocabulary and teach nothing. The text depends on the version of
    Python and on nothing else.

    Raises DataError where Python was installed without `pydoc_data`.
    """
    try:
        from pydoc_data.topics import topics  # its 700 kB are loaded when asked for, not on import
    except ImportError as error:
        raise DataError(
            "this Python was installed without its documentation (no module pydoc_data), so there is no embedded "
            "text; pass a text file instead."
        ) from error
    seen: set[str] = set()
    paragraphs: list[str] = []
    for name in sorted(topics):
        for paragraph in _plain(topics[name]).split("\n\n"):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                paragraphs.append(paragraph.strip("\n"))
    return "\n\n".join(paragraphs) + "\n"


def _plain(text: str) -> str:
    """Return `text` in printable ASCII and line feeds, without blanks at the ends of lines."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_TYPOGRAPHY))
    ascii_only = "".join(c for c in decomposed if c == "\n" or " " <= c <= "~")
    return "\n".join(line.rstrip() for line in ascii_only.split("\n"))
