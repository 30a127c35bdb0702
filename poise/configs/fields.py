"""Frozen dataclasses to plain dictionaries and back, refusing what does not fit.

`from_dict` is strict: an unknown name is refused with the nearest valid one, a wrong value with what is expected.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from poise.configs.errors import ConfigError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as nested dictionaries of plain values, tuples as lists, so that safe YAML can hold it."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(config_type: type[T], values: Mapping[str, Any], base: T | None = None, where: str = "") -> T:
    """Return a config with these values; what they leave out comes from `base`, or from the defaults.

    Raises ConfigError in one sentence for an unknown name, a value of the wrong type or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the settings'} must be a table of names and values, got {values!r}.")
    hints = get_type_hints(config_type)
    start: Any = base if base is not None else config_type()
    known = [field.name for field in fields(config_type)]  # type: ignore[arg-type]
    merged = {name: getattr(start, name) for name in known}
    for name, value in values.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in known:
            raise ConfigError(f"unknown setting {path!r}{nearest(str(name), known, where)}")
        nested = is_dataclass(hints[name])
        merged[name] = (
            from_dict(hints[name], value, merged[name], path) if nested else convert(value, hints[name], path)
        )
    try:
        return config_type(**merged)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def leaves(config_type: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, annotation) of every setting, in order."""
    hints = get_type_hints(config_type)
    for field in fields(config_type):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hint


def nearest(name: str, known: list[str] | tuple[str, ...], where: str = "") -> str:
    """Return the end of a sentence on an unknown name: the nearest valid one, or all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {f'{where}.' if where else ''}{close[0]}?"
    return f"; known are {', '.join(sorted(known))}."


def convert(value: Any, hint: Any, path: str) -> Any:
    """Return the value as the annotation wants it, or raise a ConfigError that says what is expected."""
    for option in _alternatives(hint):
        found, converted = _match(value, option)
        if found:
            return converted
    message = f"{path} must be {expected(hint)}, got {value!r}"
    choices = [choice for option in _alternatives(hint) if get_origin(option) is Literal for choice in get_args(option)]
    close = get_close_matches(str(value), choices, n=1, cutoff=0.5) if choices else []
    raise ConfigError(f"{message}; did you mean {close[0]}?" if close else f"{message}.")


def expected(hint: Any) -> str:
    """Return what an annotation accepts, in words."""
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    parts = []
    for option in _alternatives(hint):
        if get_origin(option) is Literal:
            parts.append("one of " + ", ".join(map(str, get_args(option))))
        elif get_origin(option) is tuple:
            inner = get_args(option)
            parts.append("a list of numbers" if Ellipsis in inner else f"a list of {len(inner)} numbers")
        else:
            parts.append(names[option])
    return " or ".join(parts)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _match(value: Any, option: Any) -> tuple[bool, Any]:
    """Return whether a value fits one alternative of an annotation, and the value as that type."""
    if get_origin(option) is Literal:
        return value in get_args(option), value
    if get_origin(option) is tuple:
        inner = get_args(option)
        if not isinstance(value, list | tuple):
            return False, value
        if Ellipsis in inner:  # any number of one kind
            inner = inner[:1] * len(value)
        if len(value) != len(inner):
            return False, value
        pairs = [_match(one, kind) for one, kind in zip(value, inner, strict=True)]
        return all(found for found, _ in pairs), tuple(one for _, one in pairs)
    if option is type(None):
        return value is None, value
    if option is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-4 (no point) as a text.
        try:
            return isinstance(value, int | float | str), float(value)
        except (TypeError, ValueError):
            return False, value
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, option), value
