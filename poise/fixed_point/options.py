"""Options that mean nothing, refused in one sentence where they are given."""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from typing import Any

# What an annotation admits, and how that is said.
KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "float | None": ((Real, type(None)), "a number or None"),
    "bool": (bool, "True or False"),
    "bool | None": ((bool, type(None)), "True, False or None"),
}


def check_options(options: Any) -> None:
    """Refuse numbers and switches of the wrong kind, and tolerances and budgets that mean nothing.

    `options`: a dataclass; its annotations say what each of its fields admits. Raises TypeError or ValueError.
    """
    name = type(options).__name__
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    for field in fields(options):
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        if kind in KINDS:
            check_kind(name, field.name, given[field.name], kind)
    for tolerance in ("rtol", "atol"):
        value = given.get(tolerance)
        if value is not None and not value >= 0:
            raise ValueError(f"{name}({tolerance}={value!r}) is no tolerance; pass a number of at least 0.")
    if given.get("max_steps", 1) < 1:
        raise ValueError(f"{name}(max_steps={given['max_steps']}) is no budget; pass at least 1.")


def check_kind(name: str, option: str, value: Any, kind: str) -> None:
    """Refuse a value that the annotation `kind`, one of `KINDS`, does not admit; a bool is no number."""
    admitted, wanted = KINDS[kind]
    if not isinstance(value, admitted) or (isinstance(value, bool) and not kind.startswith("bool")):
        raise TypeError(f"{name}({option}={value!r}) is of type {type(value).__name__}; pass {wanted}.")


def require(name: str, value: Any, kind: Any, example: str) -> None:
    """Refuse an option that is no value of its class, such as a name or the class itself."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}={value!r} is no {kind.__name__}; pass a value such as {example}.")
