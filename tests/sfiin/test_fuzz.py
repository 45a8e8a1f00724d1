"""Five hundred damaged artefacts: each is refused in one line, or means the same, or something is said of it.

Seeded, so that a failure comes again. What is damaged: bytes changed, cut, doubled or exchanged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sfiin.model import authors, checkpoint
from sfiin.runtime import golden, models, vouching
from sfiin.runtime.backends import plan
from sfiin.runtime.backends.plan import Build, Sidecar
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.contract import METADATA_KEY, Contract
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.files import sha256

Random = np.random.Generator


def damaged(data: bytes, random: Random) -> bytes:
    """Some bytes changed, or a piece cut out, doubled, or the end missing."""
    found, at = bytearray(data), int(random.integers(len(data)))
    kind = random.integers(5)
    piece = int(random.integers(1, 64))
    if kind == 0:
        found[at] ^= 1 << int(random.integers(8))
    elif kind == 1:
        found[at : at + piece] = random.bytes(piece)
    elif kind == 2:
        del found[at : at + piece]
    elif kind == 3:
        found[at:at] = found[at : at + piece]
    else:
        del found[at:]
    return bytes(found)


def refused_or(call: Callable[[], object]) -> object:
    """What the call returns, or None where it refuses in one line; anything else that it raises is a
    failure."""
    try:
        return call()
    except SfiinError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


def tile() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    ms = random.integers(0, 2047, (1, 4, 8, 8)).astype(np.float32)
    return ms, random.integers(0, 2047, (1, 1, 32, 32)).astype(np.float32)


@pytest.mark.slow
def test_models(small_model: Path, tmp_path: Path) -> None:
    """Fifty: each that nobody vouches for takes a process of its own."""
    random, path = np.random.default_rng(1), tmp_path / "m.onnx"
    shutil.copy(golden.beside(small_model), golden.beside(path))
    with OnnxSession(small_model, threads=1) as session:
        wanted = session.run(*tile())
    data = small_model.read_bytes()

    def product() -> tuple[np.ndarray, object]:
        with OnnxSession(path, threads=1) as session:
            said: object = session.notes
            return session.run(*tile()), said

    for _ in range(50):
        path.write_bytes(damaged(data, random))
        found = refused_or(product)
        if found is not None:
            assert isinstance(found, tuple)
            assert found[1] or np.array_equal(found[0], wanted)


def mutated(value: object, random: Random) -> object:
    """A JSON value with one of its parts replaced by something odd."""
    odd: list[object] = [
        None,
        True,
        -1,
        0,
        1e308,
        -1e308,
        10**400,
        "",
        "x" * 5000,
        "\u0000",
        [],
        {},
        [[[]]],
        {"a": {}},
        "NaN",
        2.5,
    ]
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = sorted(value)[int(random.integers(len(value)))]
        if random.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: mutated(value[key], random)}
    return odd[int(random.integers(len(odd)))]


def test_contracts(small_model: Path) -> None:
    random, contract = np.random.default_rng(2), models.contract(small_model)
    document = json.loads(contract.to_json())
    for sealed in (True, False):
        for _ in range(60):
            changed = mutated(document, random)
            if not sealed and isinstance(changed, dict):
                changed.pop("digest", None)
            text = json.dumps(changed)
            found = refused_or(lambda text=text: Contract.from_json(text))  # type: ignore[misc]
            assert found is None or not sealed or found == contract or "digest" not in text
    for text in ("[" * 100_000, "{" * 100_000, '{"a":' * 50_000, "1" * 100_000, '{"format": NaN}'):
        assert refused_or(lambda text=text: Contract.from_json(text)) is None  # type: ignore[misc]


def test_contracts_as_bytes_in_the_model(small_model: Path, tmp_path: Path) -> None:
    random, contract = np.random.default_rng(3), models.contract(small_model)
    model, path = onnx.load(small_model), tmp_path / "m.onnx"
    for _ in range(40):
        text = damaged(contract.to_json().encode(), random).decode("utf-8", "replace")
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        path.write_bytes(model.SerializeToString())
        found = refused_or(lambda: vouching.read(path).contract)
        assert found in (None, contract)


def test_golden_tiles(small_model: Path, tmp_path: Path) -> None:
    """With the digest that the contract names, and as if the contract named theirs."""
    import dataclasses

    random, contract, path = np.random.default_rng(4), models.contract(small_model), tmp_path / "g.npz"
    data = golden.beside(small_model).read_bytes()
    for _ in range(80):
        path.write_bytes(damaged(data, random))
        found = refused_or(lambda: golden.read(path, contract))
        assert found is None or path.read_bytes() == data
        refused_or(lambda: golden.read(path, dataclasses.replace(contract, golden=sha256(path))))


def test_sidecars(small_model: Path, tmp_path: Path, plan_of_orin: Callable[..., Build]) -> None:
    random, path = np.random.default_rng(5), tmp_path / "net.plan"
    build = plan_of_orin(path, model=sha256(small_model))
    sidecar = Sidecar(models.contract(small_model), build)
    plan.update(path, sidecar)
    text = plan.beside(path).read_bytes()
    document = json.loads(text)
    for i in range(100):
        changed = damaged(text, random) if i % 2 else json.dumps(mutated(document, random)).encode()
        plan.beside(path).write_bytes(changed)
        found = refused_or(lambda: plan.read(path))
        assert found is None or found == sidecar or "digest" not in json.loads(changed)


def test_checkpoints(small_checkpoint: Path, tmp_path: Path) -> None:
    random, path = np.random.default_rng(6), tmp_path / "c.safetensors"
    data = small_checkpoint.read_bytes()
    wanted = checkpoint.load(small_checkpoint).network.state_dict()
    header = 8 + int.from_bytes(data[:8], "little")
    for i in range(80):
        path.write_bytes(damaged(data[:header], random) + data[header:] if i % 2 else damaged(data, random))
        found = refused_or(lambda: checkpoint.load(path))
        if found is not None:
            state = found.network.state_dict()  # type: ignore[attr-defined]
            assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


def test_weights_of_others(tmp_path: Path) -> None:
    random, path = np.random.default_rng(7), tmp_path / "w.pth"
    torch.save({"net": {"process.conv_p.weight": torch.ones(8, 4, 3, 3)}, "psnr": [np.float64(40.1)]}, path)
    data = path.read_bytes()
    for _ in range(90):
        path.write_bytes(damaged(data, random))
        refused_or(lambda: authors.read(path))
