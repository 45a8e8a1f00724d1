"""How does a model get the contract that vouches for it, and how is it held to it where it is loaded?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx

from sfiin.runtime import onnx_file, vouching
from sfiin.runtime.contract import METADATA_KEY, Contract


def with_contract(model: onnx.ModelProto, contract: Contract) -> Contract:
    """Put a contract into a model that is complete, and return it with the digest of the model's graph.

    The model's other metadata are kept; its weights must lie inside it.
    """
    properties = {entry.key: entry.value for entry in model.metadata_props}
    sealed = dataclasses.replace(contract, graph=graph_digest(model))
    onnx.helper.set_model_props(model, properties | {METADATA_KEY: sealed.to_json()})
    return sealed


def load(path: Path) -> tuple[onnx.ModelProto, Contract, str]:
    """An exported model as a graph, its contract, and what is to be said of it; what was judged is what is
    loaded.

    Raises as `sfiin.runtime.vouching.read` and `vouch`.
    """
    found = vouching.read(path)
    note = vouching.vouch(found)
    return graph_of(found), found.contract, note


def graph_of(found: vouching.VouchedModel) -> onnx.ModelProto:
    """A model's graph, weights included, from the bytes that were judged."""
    return onnx.load(found.path) if found.external else onnx.load_model_from_string(found.data)


def graph_digest(model: onnx.ModelProto) -> str:
    """The digest of a model whose weights lie inside it, as `sfiin.runtime.onnx_file.digest` finds it in its
    file."""
    return onnx_file.digest(model.SerializeToString(deterministic=True), Path())
