"""Text made safe for HTML, and the one way in which this package writes an element."""

from __future__ import annotations

import html
import re

# What must not stand in a page: control characters, of which the text of an untrained model is full; the marks that
# reverse the direction of writing, which would reorder what stands around them; halves of surrogate pairs, which UTF-8
# cannot hold. Tab and line feed are text.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def escape(text: object) -> str:
    """Make any text safe inside an element or a quoted attribute.

    Args:
        text: anything; its `str` is taken. What must not stand in a page becomes its Python escape, a backslash and a
            code; a line end becomes a line feed.
    """
    return html.escape(_FORBIDDEN.sub(_escape_code, str(text).replace("\r\n", "\n")), quote=True)


def _escape_code(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def element(name: str, *children: str, **attributes: str | None) -> str:
    """Write one element; the children are markup already, the attributes' values are escaped here.

    Args:
        name: the element's name.
        children: markup, joined without space; none gives an empty element with its end tag.
        attributes: by name, a trailing underscore dropped and others turned to hyphens; None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(children)}</{name}>"


def inline(text: str) -> str:
    """Escape a line of prose and set what stands between backticks as code.

    Args:
        text: plain text; an unpaired backtick stays as it is.
    """
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = [f"{parts[-2]}`{parts[-1]}"]
    return "".join(element("code", part) if place % 2 else part for place, part in enumerate(parts))
