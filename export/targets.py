"""What can each target's ONNX parser and runtime read? The tables of `targets.toml`, as objects.

A target's table holds versions (`opset`, `ir`; `newer_model`: how bad a model of later ones is, since
TensorRT's parsers print them and go on; `newer_form`: how bad an operator is that changed after that opset
and may be misread), the data `types` of its tensors, those it reads as others (`converted`), those of inputs
and outputs only (`io_only`), its `operators` with the types that the source promises for each, or instead
those `missing` of all that ONNX defines, the other `domains` that it knows, whether it reads local
`functions`, what a `custom` operator needs ("plugin", "library", or "none" when there is no way), whether a
dynamic extent needs an optimisation `profile`, and limits: the largest `rank`, and how bad a `large_tensor`
is. `block` is how many output channels its convolutions compute at once, where graphs are to be arranged for
that. A rule is a restriction of single operators: it speaks where all its conditions hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from sfiin.runtime.errors import InputError
from sfiin.runtime.toml import parse

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Condition:
    """What a rule looks at in a node: one attribute, one input, or the number of its outputs.

    `attribute` with `one_of`, `none_of` or `matches` (a regular expression); `input` with `state` ("given",
    "absent", "computed": not known beforehand, "nonzero", "several" elements), `types` or `rank` (allowed,
    first and last); `outputs`: more of them than this.
    """

    attribute: str | None = None
    default: Any = None
    one_of: tuple[Any, ...] | None = None
    none_of: tuple[Any, ...] | None = None
    matches: str | None = None
    input: int = -1
    state: str | None = None
    types: tuple[str, ...] = ()
    rank: tuple[int, int] | None = None
    outputs: int | None = None


@dataclass(frozen=True)
class Rule:
    """A restriction: on `operators`, where all `conditions` hold, `problem` and `remedy`, with the
    `source`."""

    operators: frozenset[str]
    severity: Severity
    conditions: tuple[Condition, ...]
    problem: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Target:
    """One target's tables; `sources` names the document behind each group of entries.

    `operators` maps a name to the data types that its source promises, and is None where `missing` is what
    counts.
    """

    name: str
    title: str
    opset: int
    ir: int | None
    newer_model: Severity
    newer_form: Severity
    types: frozenset[str]
    converted: Mapping[str, str]
    io_only: frozenset[str]
    operators: Mapping[str, frozenset[str]] | None
    missing: frozenset[str]
    domains: frozenset[str]
    functions: bool
    custom: Literal["plugin", "library", "none"]
    profile: bool
    rank: int | None
    large_tensor: Severity | None
    block: int
    sources: Mapping[str, str]
    rules: tuple[Rule, ...]

    def knows_type(self, name: str) -> bool:
        """Whether a tensor of this ONNX type can be read, be it as another type."""
        return name in self.types or name in self.converted or "*" in self.types


@cache
def targets() -> dict[str, Target]:
    """All targets by name, in the table's order."""
    document = parse(files("sfiin.export").joinpath("targets.toml").read_text("utf-8"))
    return {name: _target(name, document) for name in document["targets"]}


def target(name: str) -> Target:
    """The target of a name. Raises InputError, naming those there are."""
    known = targets()
    if name not in known:
        raise InputError(f"'{name}' is no target; known are {', '.join(known)}")
    return known[name]


def _target(name: str, document: Mapping[str, Any]) -> Target:
    entry = document["targets"][name]
    base = entry.get("same", name)
    table = {**document["targets"][base], **entry}
    sources: Mapping[str, str] = document["sources"]
    rows = table.get("operators")
    return Target(
        name=name,
        title=table["title"],
        opset=table["opset"],
        ir=table.get("ir"),
        newer_model=table["newer_model"],
        newer_form=table["newer_form"],
        types=frozenset(table["types"]),
        converted=table.get("converted", {}),
        io_only=frozenset(table.get("io_only", ())),
        operators=None if rows is None else _by_operator(rows),
        missing=frozenset(table.get("missing", ())),
        domains=frozenset(table.get("domains", ())),
        functions=table["functions"],
        custom=table["custom"],
        profile=table["profile"],
        rank=table.get("rank"),
        large_tensor=table.get("large_tensor"),
        block=table.get("block", 1),
        sources={group: sources[key] for group, key in table["sources"].items()},
        rules=tuple(_rule(rule, sources) for rule in document["rules"] if base in rule["targets"]),
    )


def _by_operator(rows: Mapping[str, list[str]]) -> dict[str, frozenset[str]]:
    return {operator: frozenset(types.split()) for types, operators in rows.items() for operator in operators}


def _rule(table: Mapping[str, Any], sources: Mapping[str, str]) -> Rule:
    return Rule(
        frozenset(table["operators"]),
        table.get("severity", "error"),
        tuple(_condition(condition) for condition in table.get("if", ())),
        table["problem"],
        table["remedy"],
        sources[table["source"]],
    )


def _condition(table: Mapping[str, Any]) -> Condition:
    allowed = {"attribute", "default", "is", "not", "matches", "input", "types", "rank", "outputs"}
    if unknown := set(table) - allowed:
        raise ValueError(f"targets.toml: a condition has no field {', '.join(sorted(unknown))}")
    value = table.get("is")
    return Condition(
        attribute=table.get("attribute"),
        default=table.get("default"),
        one_of=tuple(value) if isinstance(value, list) else None,
        none_of=tuple(table["not"]) if "not" in table else None,
        matches=table.get("matches"),
        input=table.get("input", -1),
        state=value if isinstance(value, str) else None,
        types=tuple(table.get("types", ())),
        rank=tuple(table["rank"]) if "rank" in table else None,
        outputs=table.get("outputs"),
    )
