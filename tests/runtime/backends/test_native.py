"""Models in the native kernels: right, the same for any number of threads, and refused where they are not
known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from sfiin.data.sensors import SENSORS
from sfiin.export.exporter import export_model
from sfiin.export.graph import build_graph
from sfiin.model import spectrum
from sfiin.model.network import SFIIN, SLOPE, NetworkConfig
from sfiin.runtime import golden, models
from sfiin.runtime.backends import machine, native, native_branch, native_steps, onnx_graph, select
from sfiin.runtime.backends.native import NativeSession
from sfiin.runtime.backends.native_program import compile_graph
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.check import Gate, parity
from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import CheckFailedError, InputError, UnavailableError

built = pytest.mark.skipif(bool(native.why_not()), reason=native.why_not() or "built")


def run_graph(model: onnx.ModelProto, ms: Any, pan: Any, bands: int = 4) -> Any:
    code, constants = native_steps.encode(compile_graph(onnx_graph.parse(model.SerializeToString())))
    hrms = np.empty((1, bands, *pan.shape[2:]), np.float32)
    program = native.Program(code, constants, (ms.size, pan.size, hrms.size))
    try:
        return program.run(ms, pan, hrms)
    finally:
        program.close()


def noise(height: int, width: int, ratio: int = 4) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    ms = random.uniform(0, 2047, (1, 4, height // ratio, width // ratio)).astype(np.float32)
    return ms, random.uniform(0, 2047, (1, 1, height, width)).astype(np.float32)


@built
@pytest.mark.parametrize("lowering", ["matmul", "dft", "plugin"])
@pytest.mark.parametrize(
    ("branch", "channels", "height", "width"),
    [
        ("convolution", 8, 32, 32),
        ("convolution", 8, 64, 48),
        ("invertible", 8, 36, 20),
        ("invertible", 4, 28, 44),  # 7 and 11
        ("convolution", 12, 40, 4),
    ],
)
def test_a_graph_computes_what_pytorch_does(
    lowering: Any, branch: Any, channels: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(blocks=2, spatial=branch, channels=channels)
    network = SFIIN(config, SENSORS["vhr4"].profile).eval()
    opset = 20 if lowering == "dft" else 17
    model = build_graph(network, (height, width), lowering, opset)
    ms, pan = noise(height, width)
    with torch.inference_mode():
        single = network(torch.from_numpy(ms), torch.from_numpy(pan)).double().numpy()
        network.double()
        wanted = network(torch.from_numpy(ms).double(), torch.from_numpy(pan).double()).numpy()
    size = np.linalg.norm(wanted)
    ours, theirs = (float(np.linalg.norm(x - wanted) / size) for x in (run_graph(model, ms, pan), single))
    assert ours <= max(1e-6, 2 * theirs)


@built
def test_resampling_with_aligned_corners_is_known() -> None:
    torch.manual_seed(0)
    network = SFIIN(NetworkConfig(blocks=1, resample="align-corners"), SENSORS["vhr4"].profile).eval()
    model = build_graph(network, (48, 36), "matmul", 17)
    ms, pan = noise(48, 36)
    with torch.inference_mode():
        wanted = network.double()(torch.from_numpy(ms).double(), torch.from_numpy(pan).double()).numpy()
    assert np.linalg.norm(run_graph(model, ms, pan) - wanted) <= 1e-6 * np.linalg.norm(wanted)


@built
@pytest.mark.parametrize(("inject", "ratio"), [("mixed", 4), ("mixed", 2), ("regression", 4), ("none", 4)])
def test_proposals_are_as_near_to_float64_as_onnxruntimes(inject: Any, ratio: int) -> None:
    torch.manual_seed(0)
    profile = dataclasses.replace(SENSORS["vhr4"].profile, ratio=ratio)
    config = NetworkConfig(blocks=1, ratio=ratio, normalise="local", inject=inject)
    network = SFIIN(config, profile).eval()
    model = build_graph(network, (64, 48), "matmul", 17)
    ms, pan = noise(64, 48, ratio)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    single = np.asarray(session.run(None, {"ms": ms, "pan": pan})[0])
    with torch.inference_mode():
        wanted = network.double()(torch.from_numpy(ms).double(), torch.from_numpy(pan).double()).numpy()
    size = np.linalg.norm(wanted)
    ours, theirs = (float(np.linalg.norm(x - wanted) / size) for x in (run_graph(model, ms, pan), single))
    assert ours <= max(1e-6, 1.5 * theirs)


def graph_of(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """A graph from ms, (4, 8, 12), and pan, (1, 16, 24), to hrms."""
    sides = {"ms": (4, 8, 12), "pan": (1, 16, 24), "hrms": (None, None, None)}
    values = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("batch", *side))
        for name, side in sides.items()
    }
    held = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(list(nodes), "g", [values["ms"], values["pan"]], [values["hrms"]], held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def random_weights(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


NODE = onnx.helper.make_node
GRAPHS = {
    "strides down and across": graph_of(
        NODE("Conv", ["pan", "w", "b"], ["c"], strides=(2, 3), pads=(1, 2, 1, 2)),
        NODE("Relu", ["c"], ["hrms"]),
        w=random_weights(3, 1, 5, 4),
        b=random_weights(3),
    ),
    "groups, a stride across and a residual": graph_of(
        NODE("Conv", ["ms", "w"], ["c"], strides=(1, 4), group=2),
        NODE("Conv", ["ms", "v"], ["e"], strides=(1, 4), group=4),
        NODE("Add", ["c", "e"], ["hrms"]),
        w=random_weights(4, 2, 3, 3),
        v=random_weights(4, 1, 3, 3),
    ),
    "a kernel as long as the maps": graph_of(
        NODE("Conv", ["pan", "w"], ["hrms"], strides=(4, 1)), w=random_weights(1, 1, 16, 1)
    ),
    "one map in each group": graph_of(
        NODE("Pad", ["ms", "pads"], ["p"], mode="edge"),
        NODE("Conv", ["p", "w"], ["hrms"], group=4),
        pads=np.array([0, 0, 3, 1, 0, 0, 1, 3]),
        w=random_weights(4, 1, 5, 5),
    ),
    "matrices on both sides": graph_of(
        NODE("MatMul", ["rows", "ms"], ["tall"]),
        NODE("MatMul", ["tall", "columns"], ["hrms"]),
        rows=random_weights(19, 8),
        columns=random_weights(12, 21),
    ),
    "a slice of two axes": graph_of(
        NODE("Reshape", ["ms", "shape"], ["r"]),
        NODE("Slice", ["r", "starts", "ends", "axes"], ["s"]),
        NODE("Mul", ["s", "s"], ["t"]),
        NODE("Reshape", ["t", "back"], ["hrms"]),
        shape=np.array([0, 2, 2, 8, 12]),
        starts=np.array([1, -1]),
        ends=np.array([2, 9]),
        axes=np.array([1, 2]),
        back=np.array([0, 1, 8, 12]),
    ),
    "the mean of all": graph_of(
        NODE("ReduceMean", ["ms"], ["a"], axes=(3,)),
        NODE("ReduceMean", ["a"], ["b"], axes=(2,)),
        NODE("ReduceMean", ["b"], ["c"], axes=(1,)),
        NODE("Sub", ["pan", "c"], ["hrms"]),
    ),
    "channels as pixels, three by three": graph_of(
        NODE("Conv", ["ms", "w"], ["c"]),
        NODE("DepthToSpace", ["c"], ["hrms"], blocksize=3),
        w=random_weights(18, 4, 1, 1),
    ),
    "channels as pixels, two by two": graph_of(
        NODE("Concat", ["ms", "ms"], ["c"], axis=1),
        NODE("DepthToSpace", ["c"], ["hrms"], blocksize=2, mode="CRD"),
    ),
}


@built
@pytest.mark.parametrize("name", GRAPHS)
def test_operators_compute_what_onnxruntime_does(name: str) -> None:
    random = np.random.default_rng(0)
    ms = random.normal(size=(1, 4, 8, 12)).astype(np.float32)
    pan = random.normal(size=(1, 1, 16, 24)).astype(np.float32)
    data = GRAPHS[name].SerializeToString()
    wanted = np.asarray(ort.InferenceSession(data).run(None, {"ms": ms, "pan": pan})[0])
    code, constants = native_steps.encode(compile_graph(onnx_graph.parse(data)))
    found = np.full_like(wanted, np.nan)
    program = native.Program(code, constants, (ms.size, pan.size, found.size))
    try:
        for _ in range(2):  # what one run leaves behind may not matter to the next
            program.run(ms, pan, found)
    finally:
        program.close()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (graph_of(NODE("MatMul", ["ms", "w"], ["hrms"]), w=random_weights(8, 8)), "MatMul other than"),
        (graph_of(NODE("Slice", ["ms", "a", "b", "c"], ["hrms"]), a=[0], b=[2], c=[2]), "Slice of pixels"),
        (
            graph_of(NODE("Slice", ["ms", "a", "b", "c", "d"], ["hrms"]), a=[0], b=[4], c=[1], d=[2]),
            "with steps",
        ),
        (
            graph_of(NODE("Conv", ["pan", "w"], ["hrms"]), w=random_weights(1, 1, 17, 1)),
            "smaller than its kernel",
        ),
        (graph_of(NODE("ReduceMean", ["ms"], ["hrms"], axes=(1,))), "ReduceMean other than"),
    ],
)
def test_operators_of_other_kinds_are_refused(model: onnx.ModelProto, what: str) -> None:
    with pytest.raises(onnx_graph.UnknownGraphError, match=what):
        compile_graph(onnx_graph.parse(model.SerializeToString()))


@built
@pytest.mark.parametrize("path", [path for path, _ in models.shipped()], ids=lambda path: path.stem)
def test_shipped_models_reproduce_their_golden_tiles(path: Path) -> None:
    with NativeSession(path, 1) as session:
        tiles = golden.read(golden.beside(path), session.contract)
        found = parity(
            tiles.names, tiles.through(session.run), tiles.hrms, float(session.contract.sensor.peak)
        )
    assert found.within(Gate())


@pytest.mark.parametrize("kind", [pytest.param(NativeSession, marks=built), OnnxSession])
def test_the_number_of_threads_changes_no_byte(small_model: Path, kind: Any) -> None:
    random = np.random.default_rng(0)
    batches = [
        (
            random.uniform(0, 2047, (count, 4, 8, 8)).astype(np.float32),
            random.uniform(0, 2047, (count, 1, 32, 32)).astype(np.float32),
        )
        for count in (1, 3, 2, 1, 1, 5)
    ]
    results = []
    for threads in (1, 2, 4):
        with kind(small_model, threads=threads) as session:
            assert session.at_once == threads
            one_by_one = [session.run(*batch) for batch in batches]
            together = list(session.run_many(iter(batches)))
        assert all(np.array_equal(a, b) for a, b in zip(one_by_one, together, strict=True))
        results.append(np.concatenate(together).tobytes())
    assert len(set(results)) == 1


@built
def test_auto_takes_the_kernels_and_says_so(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": "no NVIDIA driver"})
    with select.open_session(small_model, threads=1) as session:  # type: ignore[attr-defined]
        assert isinstance(session, NativeSession)
        assert session.backend == f"native {native.instruction_set()}"
        assert len(session.sha256) == 64
        with pytest.raises(InputError, match="tiles of"):
            session.run(np.ones((1, 4, 9, 8), np.float32), np.ones((1, 1, 32, 32), np.float32))
    with select.open_session(small_model, "cpu", 1) as session:  # type: ignore[attr-defined]
        assert isinstance(session, OnnxSession)


def test_convolutions_arranged_for_onnxruntime_are_its_own() -> None:
    model = build_graph(SFIIN(NetworkConfig(blocks=1), SENSORS["vhr4"].profile), (32, 32), "plugin", 17, 16)
    with pytest.raises(onnx_graph.UnknownGraphError, match=r"Transpose|Reshape of pixels"):
        compile_graph(onnx_graph.parse(model.SerializeToString()))


def swap_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softplus"


def move_cut(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "scalar_0.2":
            tensor.CopyFrom(numpy_helper.from_array(np.array(0.3, np.float32), tensor.name))


def add_result(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Atan")
    end = next(node for node in model.graph.node if node.output[0] == "hrms")
    end.op_type = "Add"
    end.input.append(node.output[0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (swap_operator, "operator Softplus"),
        (move_cut, "another definition"),
        (add_result, "other results"),
    ],
)
def test_a_graph_that_is_not_known_is_refused(
    small_model: Path, change: Callable[[onnx.ModelProto], None], what: str
) -> None:
    model = onnx.load(small_model)
    change(model)
    with pytest.raises(onnx_graph.UnknownGraphError, match=what):
        compile_graph(onnx_graph.parse(model.SerializeToString()))


@built
def test_a_model_that_is_not_known_goes_to_onnxruntime(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": "no NVIDIA driver"})
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(small_model.read_bytes())
    with pytest.raises(UnavailableError, match="no golden tiles beside it"):
        NativeSession(alone, 1)
    with select.open_session(alone, threads=1) as session:  # type: ignore[attr-defined]
        assert isinstance(session, OnnxSession)
        assert any("longer than the native kernels" in note and "golden" in note for note in session.notes)


@built
def test_a_model_of_the_plugins_lowering_runs(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": "no NVIDIA driver"})
    path = tmp_path / "plugin.onnx"
    export_model(small_checkpoint, path, "plugin", Tile(32, 32, 8), opset=17)
    with select.open_session(path, threads=1) as session:  # type: ignore[attr-defined]
        assert isinstance(session, NativeSession)
        assert session.contract.lowering == "plugin"
    monkeypatch.setattr(native, "library", no_library)
    with pytest.raises(
        UnavailableError, match=r"nodes of a plugin.*nor can the native kernels run it: not compiled"
    ):
        select.open_session(path, threads=1)


def no_library() -> None:
    raise UnavailableError("not compiled")


@built
def test_a_golden_tile_that_is_not_reproduced_is_an_error(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = golden.read

    def other(path: Path, contract: Any) -> golden.GoldenTiles:
        tiles = true(path, contract)
        return dataclasses.replace(tiles, hrms=tiles.hrms + 1)

    monkeypatch.setattr(golden, "read", other)
    with pytest.raises(CheckFailedError, match="in the native kernels"):
        NativeSession(small_model, 1)


@built
def test_what_is_no_program_is_refused(small_model: Path) -> None:
    code, constants = native_steps.encode(compile_graph(onnx_graph.parse(small_model.read_bytes())))
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = code.copy()
        at = random.integers(0, len(code))
        broken[at] = random.choice([-1, 0, 1 << 30, -(1 << 31), 10_000])
        try:
            native.Program(broken[: random.integers(1, len(code))], constants, (1, 1, 1)).close()
        except onnx_graph.UnknownGraphError as error:
            assert str(error)
    with pytest.raises(onnx_graph.UnknownGraphError, match="another version"):
        native.Program(np.zeros(1, np.int32), constants, (1, 1, 1))


def test_without_the_library_it_is_said_how_to_get_it(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.library.cache_clear()
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": "no NVIDIA driver"})
    try:
        assert "apt install g++ libhwy-dev" in native.why_not()
        assert machine.survey()["backends"]["native"]["why"] == native.why_not()
        with pytest.raises(UnavailableError, match="libhwy-dev"):
            select.open_session(small_model, "native")
        with select.open_session(small_model, threads=1) as session:  # type: ignore[attr-defined]
            assert isinstance(session, OnnxSession)
            assert any("libhwy-dev" in note for note in session.notes)
    finally:
        native.library.cache_clear()


def test_the_definition_is_the_networks() -> None:
    ours = (native_branch.FLOOR, native_branch.CUT, native_branch.FADE, native_branch.SLOPE)
    assert ours == (spectrum.FLOOR, spectrum.CUT, spectrum.FADE, SLOPE)
