"""A run's configuration, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from poise.report.formatting import MISSING
from poise.report.markup import element, escape


@dataclass(frozen=True)
class Settings:
    """A configuration: names and plain values, nested as deep as they are.

    Args:
        values: plain values at the top come first, as "general"; each mapping at the top becomes a group of its name,
            and mappings within it are written with dots ("adamw.lr").
    """

    values: Mapping[str, object]


def render_settings(settings: Settings) -> str:
    """Write a configuration as lists of names and values, in as many columns as fit.

    Args:
        settings: what to write.
    """
    loose = {key: value for key, value in settings.values.items() if not isinstance(value, Mapping)}
    groups = {key: dict(_flat(value)) for key, value in settings.values.items() if isinstance(value, Mapping)}
    parts = [_group("general", loose)] if loose else []
    parts += [_group(name, values) for name, values in groups.items()]
    return element("div", *parts, class_="settings")


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _group(name: str, values: Mapping[str, object]) -> str:
    rows = (
        element("div", element("dt", escape(key)), element("dd", escape(_written(value))))
        for key, value in values.items()
    )
    return element("section", element("h3", escape(name)), element("dl", *rows) if values else element("p", MISSING))


def _written(value: object) -> str:
    """Write a setting as it would be given, not rounded: the page must be enough to repeat the run."""
    if value is None or value == {}:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(_written(item) for item in value) or MISSING
    return str(value)
