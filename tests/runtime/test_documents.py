"""Dataclasses become JSON and come back the same; what is not theirs is refused by the field's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sfiin.runtime.documents import LATER, LEFT_OUT, build, document, encode, parse
from sfiin.runtime.errors import InputError


@dataclass(frozen=True)
class Leaf:
    name: str
    share: float | None


@dataclass(frozen=True)
class Twig(Leaf):
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Tree:
    kind: Literal["oak", "elm"]
    heights: Mapping[str, float]
    parts: tuple[Twig | Leaf, ...]
    note: str | int
    facts: Mapping[str, Any] = field(default_factory=dict)
    age: int | None = field(default=None, metadata=LATER)
    cut: bool | None = field(default=None, metadata=LEFT_OUT)


OAK = Tree("oak", {"a": 1.0}, (Leaf("l", None), Twig("t", 0.5, (Leaf("m", 2.0),))), 3, {"x": [1, None]}, 7)

numbers = some.floats(allow_nan=False, allow_infinity=False)
integers = some.integers(-(1 << 53) + 1, (1 << 53) - 1)
leaves = some.builds(Leaf, some.text(), some.none() | numbers)
twigs = some.builds(Twig, some.text(), some.none() | numbers, some.lists(leaves, max_size=3).map(tuple))
trees = some.builds(
    Tree,
    some.sampled_from(("oak", "elm")),
    some.dictionaries(some.text(), numbers, max_size=3),
    some.lists(twigs | leaves, max_size=3).map(tuple),
    some.text() | integers,
    some.just({}),
    some.none() | integers,
    some.none() | some.booleans(),
)


@given(trees)
def test_what_is_written_is_read(tree: Tree) -> None:
    assert build(Tree, parse(encode(tree), "tree", InputError), "tree", InputError) == tree


def test_a_field_left_out_appears_only_with_a_value() -> None:
    assert "cut" not in document(OAK)
    assert document(Tree("elm", {}, (), "", cut=False))["cut"] is False
    assert document(OAK)["parts"][1] == {"name": "t", "share": 0.5, "leaves": [{"name": "m", "share": 2.0}]}


def test_an_integer_is_read_where_a_float_is_declared() -> None:
    found = build(Leaf, {"name": "l", "share": 2}, "leaf", InputError)
    assert isinstance(found.share, float)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "ash"}, "tree.kind: expected 'oak' or 'elm', found 'ash'"),
        ({"heights": [1.0]}, "tree.heights: expected an object"),
        ({"heights": {"a": "high"}}, "tree.heights.a: expected float"),
        ({"heights": {"a": True}}, "tree.heights.a: expected float"),
        ({"parts": {}}, "tree.parts: expected a list"),
        ({"parts": [{"name": "l"}]}, r"tree.parts[0].share: missing field"),
        ({"parts": [7]}, "tree.parts[0]: expected an object"),
        ({"note": None}, "tree.note: expected str | int"),
        ({"age": "old"}, "tree.age: expected int"),
        ({"age": 1 << 60}, "tree.age: must lie in"),
        ({"roots": 1}, "tree.roots: unknown field"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        build(Tree, document(OAK) | change, "tree", InputError)
    assert said in str(caught.value)


def test_what_came_later_may_be_missing() -> None:
    found = document(OAK)
    del found["age"]
    assert build(Tree, found, "tree", InputError).age is None
    del found["facts"]
    with pytest.raises(InputError, match=r"tree\.facts: missing field"):
        build(Tree, found, "tree", InputError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "tree: not JSON"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": 1, "a": 2}', "a key stands there twice"),
        ("[" * 200_000, "nested too deep"),
        (" " * 101, "101 characters"),
    ],
)
def test_text_that_is_no_document(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(text, "tree", InputError, 1_000_000 if len(text) > 101 else 100)
