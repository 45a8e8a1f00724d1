"""How does a dataclass become JSON, and JSON a dataclass again? One encoder and one strict reader for all
documents.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sfiin.runtime.errors import SfiinError

_T = TypeVar("_T")

LATER = {"later": True}
"""Metadata of a dataclass's field that documents of older versions lack; its default stands for it then."""

LEFT_OUT = {"left out": True}
"""Metadata of a dataclass's field that is None by default, and then does not appear in the document."""

_HUGE = 1 << 53


class Encoded:
    """A dataclass that is written as JSON."""

    def document(self) -> dict[str, Any]:
        """As the values that JSON knows."""
        found: dict[str, Any] = document(self)
        return found


def document(value: Any) -> Any:
    """A dataclass as the values that JSON knows: dict, list, str, int, float, bool and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        shown = [(field, found) for field, found in pairs if found is not None or field.metadata != LEFT_OUT]
        return {field.name: document(found) for field, found in shown}
    if isinstance(value, Mapping):
        return {key: document(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [document(found) for found in value]
    return value


def encode(value: Any) -> str:
    """A dataclass as JSON with sorted keys, the inverse of `decode`."""
    return json.dumps(document(value), sort_keys=True)


def parse(text: str, what: str, error: type[SfiinError], longest: int | None = None) -> Any:
    """JSON as it should be: no document without end or bottom, no NaN, no key twice. Raises `error`."""
    if longest is not None and len(text) > longest:
        raise error(f"{what}: no document of sfiin ({len(text)} characters)")
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_no_key_twice)
    except ValueError as reason:
        raise error(f"{what}: not JSON ({reason})") from None
    except RecursionError:
        raise error(f"{what}: no document of sfiin (nested too deep)") from None


def build(cls: type[_T], found: Any, what: str, error: type[SfiinError]) -> _T:
    """Read a dataclass from `document`'s values: every field must be there, known, and of its declared type.

    A field that is `LATER` or `LEFT_OUT` may be missing. Raises `error`, which names `what` and the field.
    """
    result: _T = _Reader(error).build(cls, found, what)
    return result


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


@dataclasses.dataclass(frozen=True)
class _Reader:
    error: type[SfiinError]

    def build(self, kind: Any, value: Any, field: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(kind, value, field)
        if origin is Literal:
            return self._expect(value in arguments, value, field, " or ".join(map(repr, arguments)))
        if origin in (Union, UnionType):
            return self._union(kind, value, field)
        if origin is tuple:
            self._expect(isinstance(value, list), value, field, "a list")
            return tuple(self.build(arguments[0], item, f"{field}[{i}]") for i, item in enumerate(value))
        if origin is not None and issubclass(origin, Mapping):
            self._expect(isinstance(value, dict), value, field, "an object")
            return {key: self.build(arguments[1], item, f"{field}.{key[:40]}") for key, item in value.items()}
        return (
            value
            if kind is Any
            else self._scalar((kind,), value, field, str(getattr(kind, "__name__", kind)))
        )

    def _union(self, kind: Any, value: Any, field: str) -> Any:
        members = [member for member in get_args(kind) if member is not NoneType]
        if value is None and NoneType in get_args(kind):
            return None
        if len(members) == 1:
            return self.build(members[0], value, field)
        if all(map(dataclasses.is_dataclass, members)):
            fitting = (
                member
                for member in members
                if isinstance(value, dict) and set(_required(member)) <= set(value)
            )
            return self.build(next(fitting, members[-1]), value, field)
        return self._scalar(members, value, field, str(kind))

    def _scalar(self, kinds: Collection[Any], value: Any, field: str, wanted: str) -> Any:
        """A value of one of these types; an integer is a float, too, but a bool is no number."""
        accepted = {*kinds, int} if float in kinds else {*kinds}
        fits = isinstance(value, tuple(accepted)) and (bool in accepted or not isinstance(value, bool))
        self._expect(fits, value, field, wanted)
        if isinstance(value, int) and abs(value) >= _HUGE:
            raise self.error(f"{field}: must lie in {-_HUGE:g}..{_HUGE:g}, not {value!s:.40}")
        return float(value) if set(kinds) == {float} else value

    def _dataclass(self, kind: Any, value: Any, field: str) -> Any:
        self._expect(isinstance(value, dict), value, field, "an object")
        hints = get_type_hints(kind)
        for key in value:
            if key not in hints:
                raise self.error(
                    f"{field}.{key[:40]}: unknown field; the file is of another version of sfiin"
                )
        for key in _required(kind):
            if key not in value:
                raise self.error(
                    f"{field}.{key}: missing field; the file is damaged or of another version of sfiin"
                )
        known = {key: hint for key, hint in hints.items() if key in value}
        return kind(**{key: self.build(hint, value[key], f"{field}.{key}") for key, hint in known.items()})

    def _expect(self, holds: bool, value: Any, field: str, wanted: str) -> Any:
        if not holds:
            raise self.error(f"{field}: expected {wanted}, found {value!r:.60}")
        return value


def _required(kind: Any) -> list[str]:
    """The fields of a dataclass that every document has."""
    return [field.name for field in dataclasses.fields(kind) if field.metadata not in (LATER, LEFT_OUT)]
