"""Typed values out of JSON, strictly: an unknown or missing key or a wrong type names its path."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = [
    "CodecError",
    "Reader",
    "boolean",
    "integer",
    "number",
    "optional_number",
    "optional_string",
    "string",
    "string_map",
    "strings",
]

T = TypeVar("T")


class CodecError(ValueError):
    """The JSON is not what it should be; the message has the path, not the content."""


class Reader:
    """Takes typed values out of a JSON object and notices what is left over."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise CodecError(f"{path or 'document'}: expected an object")
        self._values = dict(value)
        self._path = path

    @classmethod
    def parse(cls, text: str) -> Reader:
        """Read a document; CodecError if it is no JSON object."""
        try:
            return cls(json.loads(text), "")
        except json.JSONDecodeError as error:
            raise CodecError(f"not JSON: {error.msg} at {error.pos}") from None

    def get(self, key: str, convert: Callable[[object], T]) -> T:
        """Take a value that must be there; ``convert`` raises ValueError for a wrong one."""
        if key not in self._values:
            raise CodecError(f"{self._path}{key}: missing")
        try:
            return convert(self._values.pop(key))
        except ValueError as error:
            raise CodecError(f"{self._path}{key}: {error}") from None

    def optional_child(self, key: str) -> Reader | None:
        """Take an object that may be missing; None if it is."""
        return self.child(key) if key in self._values else None

    def child(self, key: str) -> Reader:
        """Take an object that must be there."""
        return Reader(self.get(key, _anything), f"{self._path}{key}.")

    def children(self, key: str) -> list[Reader]:
        """Take a list of objects that must be there."""
        return [
            Reader(value, f"{self._path}{key}[{index}].")
            for index, value in enumerate(self.get(key, _list))
        ]

    def finish(self) -> None:
        """Refuse what nobody has taken."""
        if self._values:
            unknown = ", ".join(sorted(self._values))
            raise CodecError(f"{self._path or 'document: '}unknown keys: {unknown}")


def _anything(value: object) -> object:
    return value


def string(value: object) -> str:
    """Return a text; ValueError for anything else, as in all of these."""
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - becomes a CodecError
    return value


def optional_string(value: object) -> str | None:
    """Return a text or None."""
    return None if value is None else string(value)


def boolean(value: object) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - becomes a CodecError
    return value


def integer(value: object) -> int:
    """Return a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("expected a whole number")  # noqa: TRY004 - becomes a CodecError
    return value


def number(value: object) -> float:
    """Return a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("expected a number")  # noqa: TRY004 - becomes a CodecError
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def optional_number(value: object) -> float | None:
    """Return a finite number or None."""
    return None if value is None else number(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("expected a list")  # noqa: TRY004 - becomes a CodecError
    return value


def strings(value: object) -> tuple[str, ...]:
    """Return a list of texts."""
    return tuple(string(element) for element in _list(value))


def string_map(value: object) -> Mapping[str, str]:
    """Return texts by name."""
    if not isinstance(value, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - becomes a CodecError
    return {string(key): string(element) for key, element in value.items()}
