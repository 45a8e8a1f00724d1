"""Plans, built by TensorRT for RTX, which needs no GPU; and what is refused before anything is built.

Without a GPU an engine cannot be opened, so that of a plan only header, size and the network's layers are
seen here.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sfiin.export import plan_builder, trt_worker
from sfiin.export.exporter import export_model
from sfiin.export.plan_builder import BuildSettings, build, default_flavour, require_possible, target_for
from sfiin.export.trt_process import compile_models, is_available
from sfiin.export.vouched import with_contract
from sfiin.runtime import golden, models
from sfiin.runtime.backends import machine, plan, plugin
from sfiin.runtime.backends.plan import Device
from sfiin.runtime.contract import Precision, Tile
from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, OutputError, UnavailableError
from sfiin.runtime.files import sha256

needs_rtx = pytest.mark.skipif(not is_available(), reason="tensorrt-rtx-cu13 is not installed (extra 'dev')")

RTX = BuildSettings("rtx")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A shipped checkpoint's model of some precision and tile, made once."""
    made: dict[tuple[object, ...], Path] = {}
    folder = Path(__file__).parents[2] / "sfiin" / "checkpoints"

    def export(name: str, precision: Precision = "fp32", side: int = 64, lowering: Any = "matmul") -> Path:
        key = (name, precision, side, lowering)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("exported") / "net.onnx"
            checkpoint = folder / f"sfiin-{name}.safetensors"
            export_model(checkpoint, made[key], lowering, Tile(side, side, 16), opset=17, precision=precision)
        return made[key]

    return export


@needs_rtx
@pytest.mark.parametrize(
    ("name", "precision", "cards"),
    [("vhr4", "fp32", ("12.0",)), ("vhr4", "mixed", ("8.6", "12.0")), ("wv8", "fp16", ("8.6",))],
)
def test_every_shipped_network_becomes_a_plan(
    exported: Any, tmp_path: Path, name: str, precision: Precision, cards: tuple[str, ...]
) -> None:
    model, out = exported(name, precision, 64), tmp_path / "net.plan"
    built = build(model, out, dataclasses.replace(RTX, compute_capabilities=cards))
    header, sidecar = plan.read_header(out), plan.read(out)
    assert header.flavour == "rtx"
    assert ".".join(map(str, header.version)) == sidecar.build.tensorrt
    assert built.layers > 500
    assert built.size == out.stat().st_size > 1_000_000
    assert sidecar == built.sidecar
    assert sidecar.contract == models.contract(model)
    assert sidecar.build.compute_capabilities == cards
    assert (sidecar.build.model, sidecar.build.device) == (sha256(model), "")
    assert built.parity is None
    assert not sidecar.build.checked
    golden.read(golden.beside(out), sidecar.contract)
    assert {file.name for file in tmp_path.iterdir()} == {"net.plan", "net.plan.json", "net.golden.npz"}


@needs_rtx
@pytest.mark.parametrize("bands", [4, 8])
def test_the_shipped_models_as_they_are_with_progress_and_a_log(tmp_path: Path, bands: int) -> None:
    steps: list[tuple[int, int]] = []
    settings = dataclasses.replace(RTX, log=tmp_path / "log.txt", batch=(1, 4, 8), level=1, workspace=1 << 28)
    built = build(
        models.choose(bands, 4), tmp_path / "net.plan", settings, lambda done, of: steps.append((done, of))
    )
    assert built.sidecar.build.batch == (1, 4, 8)
    assert built.sidecar.build.options == {"timing_cache": False, "level": 1, "workspace": 1 << 28}
    assert steps
    assert all(1 <= done <= of for done, of in steps)
    assert len((tmp_path / "log.txt").read_text().splitlines()) > 100


@needs_rtx
def test_a_dft_graph_is_refused_before_it_is_parsed(exported: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"TensorRT for RTX.* will not read this model: DFT"):
        build(exported("vhr4", lowering="dft"), tmp_path / "net.plan", RTX)
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_what_the_compiler_refuses_is_told_with_its_node(
    exported: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Types that do not fit, past a preflight that looks away."""
    model = onnx.load(exported("vhr4"))
    node = next(node for node in model.graph.node if node.op_type == "Add")
    half = onnx.helper.make_node("Cast", [node.input[0]], ["half"], "half", to=onnx.TensorProto.FLOAT16)
    model.graph.node.insert(list(model.graph.node).index(node), half)
    node.input[0] = "half"
    with_contract(model, models.contract(exported("vhr4")))
    onnx.save(model, tmp_path / "odd.onnx")
    shutil.copy(golden.beside(exported("vhr4")), golden.beside(tmp_path / "odd.onnx"))
    before = {file.name for file in tmp_path.iterdir()}
    monkeypatch.setattr(plan_builder, "require", lambda *_: None)
    with pytest.raises(
        CheckFailedError, match=rf"did not build it: Add '{node.name}': .*Half.*; its types do"
    ):
        build(tmp_path / "odd.onnx", tmp_path / "net.plan", RTX)
    assert {file.name for file in tmp_path.iterdir()} == before


@needs_rtx
def test_outputs_that_cannot_be_written_leave_nothing(exported: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        build(exported("vhr4"), tmp_path / "none" / "net.plan", RTX)
    (tmp_path / "net.plan.json").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        build(exported("vhr4"), tmp_path / "net.plan", RTX)
    assert [file.name for file in tmp_path.iterdir()] == ["net.plan.json"]


def test_a_model_without_its_golden_tiles_is_refused(exported: Any, tmp_path: Path) -> None:
    shutil.copy(exported("vhr4"), tmp_path / "net.onnx")
    with pytest.raises(InputError, match="golden tiles cannot be read"):
        build(tmp_path / "net.onnx", tmp_path / "net.plan", RTX)


@pytest.mark.parametrize(("bits", "kind"), [(8, np.float16), (11, np.float16), (12, np.float32)])
def test_inputs_are_half_where_that_is_exact(exported: Any, bits: int, kind: type) -> None:
    """The narrow model gives the same for every digital number there is, to the bit."""
    import onnxruntime as ort

    model, contract = onnx.load(exported("vhr4")), models.contract(exported("vhr4"))
    contract = dataclasses.replace(contract, sensor=dataclasses.replace(contract.sensor, bits=bits))
    narrow = plan_builder.with_exact_inputs(model, contract)
    random = np.random.default_rng(bits)
    shapes = contract.shapes
    feeds = {
        name: random.integers(0, 2**bits, (1, *shapes[name])).astype(np.float32) for name in ("ms", "pan")
    }
    wide, small = (
        ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        for proto in (model, narrow)
    )
    (expected,), (found,) = (
        wide.run(None, feeds),
        small.run(None, {k: v.astype(kind) for k, v in feeds.items()}),
    )
    np.testing.assert_array_equal(found, expected)
    assert [value.type for value in small.get_inputs()] == [
        f"tensor({'float16' if kind == np.float16 else 'float'})"
    ] * 2


@needs_rtx
@pytest.mark.parametrize("name", ["vhr4", "wv8"])
def test_an_int8_graph_becomes_a_plan(exported: Any, tmp_path: Path, name: str) -> None:
    """Symmetric Q/DQ pairs on convolutions, by channel for weights, as ONNX Runtime's quantizer sets them."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model, out = exported(name), tmp_path / "int8.onnx"
    tiles = golden.read(golden.beside(model), models.contract(model))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [
                {"ms": ms[None].astype(np.float32), "pan": pan[None].astype(np.float32)}
                for ms, pan in zip(tiles.ms, tiles.pan, strict=True)
            ]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    quantize_static(
        str(model),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    quantised = onnx.load(out)
    onnx.helper.set_model_props(quantised, {prop.key: prop.value for prop in onnx.load(model).metadata_props})
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node) > 30
    with_contract(quantised, models.contract(model))
    onnx.save(quantised, out)
    shutil.copy(golden.beside(model), golden.beside(out))
    built = build(out, tmp_path / "int8.plan", RTX)
    assert built.layers > 500
    assert built.size > 500_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"refit": True}, "--refit: TensorRT for RTX builds such plans on a GPU only"),
        ({"strip": True, "version_compatible": True}, "--version-compatible, --strip: "),
        ({"hardware_compatibility": "ampere_plus"}, "name the cards with --compute-capability"),
        ({"compute_capabilities": ("8.7",)}, "8.7: TensorRT for RTX builds for 7.5, 8.0"),
        (
            {"flavour": "tensorrt", "compute_capabilities": ("8.9",)},
            "--compute-capability is for --flavour rtx",
        ),
    ],
)
def test_settings_that_exclude_each_other(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MismatchError) as failure:
        require_possible(dataclasses.replace(RTX, **changes))
    assert said in str(failure.value)


@pytest.mark.parametrize(
    ("installed", "why", "flavour"),
    [
        ({"tensorrt", "tensorrt_rtx"}, None, "tensorrt"),
        ({"tensorrt", "tensorrt_rtx"}, "no driver", "rtx"),
        ({"tensorrt_rtx"}, None, "rtx"),
        ({"tensorrt"}, "no driver", "TensorRT is here, but no driver"),
        (set(), "no driver", "TensorRT is not installed"),
    ],
)
def test_the_flavour_is_what_can_build_here(
    monkeypatch: Any, installed: set[str], why: str | None, flavour: str
) -> None:
    monkeypatch.setattr(plan_builder, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": why})
    if flavour in ("tensorrt", "rtx"):
        assert default_flavour() == flavour
    else:
        with pytest.raises(UnavailableError, match=flavour):
            default_flavour()


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, []),
        ({"refit": True}, ["REFIT"]),
        ({"strip": True}, ["STRIP_PLAN", "REFIT"]),
        (
            {"strip": True, "refit": True, "version_compatible": True},
            ["VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT"],
        ),
    ],
)
def test_a_stripped_plan_takes_other_weights_than_its_own(
    settings: dict[str, bool], flags: list[str]
) -> None:
    """STRIP_PLAN alone implies REFIT_IDENTICAL, under which other weights are undefined."""
    assert BuildSettings("tensorrt", **settings).flags == flags  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("here", "asked", "built_for"),
    [
        ([], (), ("8.9",)),
        (["12.0"], (), ("12.0",)),
        (["12.0"], ("8.6",), ("8.6",)),
        (["8.7"], ("8.9",), ("8.9",)),
    ],
)
def test_tensorrt_for_rtx_builds_for_the_card_here(
    monkeypatch: Any, here: list[str], asked: tuple[str, ...], built_for: tuple[str, ...]
) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"compute_capabilities": here})
    settings = dataclasses.replace(RTX, compute_capabilities=asked)
    assert plan_builder._request(settings, Path("part"), None, "1.7")["compute_capabilities"] == list(
        built_for
    )


def test_tensorrt_for_rtx_does_not_build_for_another_kind_of_gpu_by_default(monkeypatch: Any) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"compute_capabilities": ["9.0"]})
    monkeypatch.setattr(plan_builder, "find_spec", lambda _name: True)
    with pytest.raises(MismatchError, match=r"has compute capability 9\.0, for which .* --flavour tensorrt"):
        require_possible(RTX)


def test_a_jetson_has_no_hardware_compatibility(monkeypatch: Any) -> None:
    monkeypatch.setattr(machine, "jetson", lambda: "Jetson AGX Orin")
    with pytest.raises(MismatchError, match="--hardware-compatibility: TensorRT has none on a Jetson"):
        require_possible(BuildSettings("tensorrt", hardware_compatibility="ampere_plus"))


def test_tensorrt_needs_itself_and_a_gpu(monkeypatch: Any) -> None:
    monkeypatch.setattr(plan_builder, "find_spec", lambda _name: None)
    for flavour, said in (("tensorrt", "comes with JetPack"), ("rtx", "pip install tensorrt-rtx-cu13")):
        with pytest.raises(UnavailableError, match=said):
            require_possible(BuildSettings(flavour))  # type: ignore[arg-type]
    monkeypatch.setattr(plan_builder, "find_spec", lambda _name: True)
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": "no NVIDIA driver"})
    with pytest.raises(UnavailableError, match="no NVIDIA driver; this needs an NVIDIA GPU"):
        require_possible(BuildSettings("tensorrt"))


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("8.4.0", "trt8.5"),
        ("8.5.3.1", "trt8.5"),
        ("8.6.1.6", "trt8.6"),
        ("10.3.0.26", "trt10.3"),
        ("10.13.3", "trt10.3"),
        ("11.4", "trt11.2"),
    ],
)
def test_the_table_of_a_version_is_the_latest_that_is_not_later(version: str, name: str) -> None:
    assert target_for("tensorrt", version).name == name
    assert target_for("rtx", version).name == "rtx"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("Plugin not found, are the plugin name right?", "--fourier matmul"),
        ("Error Code 10: Could not find any implementation for node X", "raise it"),
        ("Error Code 2: OutOfMemory", "a smaller --batch"),
        ("the compiler gave no answer: its process ended with code -11", "the library itself ended"),
        ("something else", "sfiin preflight"),
    ],
)
def test_errors_come_with_a_remedy(text: str, remedy: str) -> None:
    from sfiin.export.trt_process import CompilerError

    found = plan_builder._refusal(
        Path("m.onnx"), target_for("rtx", ""), (CompilerError("n", "Op", text),) * 2
    )
    assert "Op 'n': " in found
    assert "(and 1 more)" in found
    assert remedy in found


@pytest.mark.parametrize(
    ("lowering", "settings", "said"),
    [
        ("plugin", BuildSettings("tensorrt"), r"--plugin libsfiin_plugin\.so"),
        ("plugin", BuildSettings("rtx", plugin=Path("p.so")), "TensorRT for RTX has no plugins"),
        ("matmul", BuildSettings("tensorrt", plugin=Path("p.so")), "has no node of it"),
    ],
)
def test_the_plugin_is_given_where_it_is_needed_and_only_there(
    lowering: Any, settings: BuildSettings, said: str
) -> None:
    contract = dataclasses.replace(models.contract(models.shipped()[0][0]), lowering=lowering)
    with pytest.raises(MismatchError, match=said):
        plan_builder.require_plugin(Path("net.onnx"), contract, settings)


def test_the_plugins_library_appears_beside_the_plan_or_goes_into_it(tmp_path: Path) -> None:
    library = tmp_path / "p.so"
    library.write_bytes(b"code")
    for settings, beside in (
        (BuildSettings("tensorrt", plugin=library), True),
        (BuildSettings("tensorrt", plugin=library, version_compatible=True), False),
    ):
        with plan_builder._published(settings, tmp_path / "net.plan"):
            assert not plugin.beside(tmp_path / "net.plan").exists()
        assert plugin.beside(tmp_path / "net.plan").exists() == beside
        inside = plan_builder._request(settings, tmp_path / "part", None, "10.3")["plugin_inside"]
        assert inside == (None if beside else str(library))
        plugin.beside(tmp_path / "net.plan").unlink(missing_ok=True)


@needs_rtx
def test_a_library_that_is_no_plugin_is_refused_by_the_compilers_process(tmp_path: Path) -> None:
    import _ctypes

    model = models.shipped()[0][0]
    with pytest.raises(InputError, match="has no plugin sfiin::SpectralFusion"):
        compile_models("tensorrt_rtx", [model], None, 60, plugin_library=Path(_ctypes.__file__))


def test_timings_are_kept_by_device_and_version_in_the_users_cache(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = plan_builder._timing_cache(Device("NVIDIA Orin/NX", "8.7"), "10.3.0")
    assert path == tmp_path / "sfiin" / "timing-NVIDIA-Orin-NX-8-7-10.3.0.cache"
    assert path.parent.is_dir()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_plan_that_runs_is_checked_before_it_is_published(
    exported: Any, tmp_path: Path, monkeypatch: Any, precision: Precision
) -> None:
    """The session is ONNX Runtime's on the model itself, once exact and once with a band of its output off
    by 30 DN."""
    from sfiin.runtime.backends.session import OnnxSession

    model, out = exported("vhr4", precision), tmp_path / "net.plan"

    class Off(OnnxSession):
        def run(self, ms: np.ndarray, pan: np.ndarray) -> np.ndarray:
            return super().run(ms, pan) + np.array([30, 0, 0, 0], np.float32)[:, None, None]

    if not is_available():
        pytest.skip("tensorrt-rtx-cu13 is not installed (extra 'dev')")
    monkeypatch.setattr(plan_builder, "_opened", lambda *_: OnnxSession(model))
    built = build(model, out, RTX)
    assert built.parity is not None
    assert plan.read(out).build.checked == {
        "relative_l2": built.parity.relative_l2,
        "peak_share": built.parity.peak_share,
    }
    before = sha256(out)
    monkeypatch.setattr(plan_builder, "_opened", lambda *_: Off(model))
    with pytest.raises(CheckFailedError, match=r"the plan against the golden tiles: .*not published"):
        build(model, out, RTX)
    assert sha256(out) == before


@needs_rtx
def test_the_names_that_the_builder_is_told_by_are_the_librarys() -> None:
    """Flags, levels and calls, in the bindings of the RTX flavour, which are those of TensorRT 11."""
    import tensorrt_rtx as trt

    assert trt_worker.network_flags(trt) == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    for names in plan_builder._FLAGS.values():
        assert all(hasattr(trt.BuilderFlag, name) for name in names)
    for level in ("NONE", "SAME_COMPUTE_CAPABILITY", "AMPERE_PLUS"):
        assert hasattr(trt.HardwareCompatibilityLevel, level)
    for capability in plan_builder.RTX_CAPABILITIES:
        assert hasattr(trt.ComputeCapability, "SM" + capability.replace(".", ""))
    config = (
        "set_memory_pool_limit",
        "builder_optimization_level",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
        "progress_monitor",
        "hardware_compatibility_level",
    )
    assert all(hasattr(trt.IBuilderConfig, name) for name in config)
    for kind, names in (
        ("OnnxParserRefitter", ("refit_from_file", "get_error")),
        ("Refitter", ("refit_cuda_engine",)),
        ("ICudaEngine", ("create_serialization_config", "serialize_with_config")),
        ("IExecutionContext", ("set_input_shape", "set_tensor_address", "execute_async_v3")),
    ):
        assert all(hasattr(getattr(trt, kind), name) for name in names)
    assert hasattr(trt.SerializationFlag, "EXCLUDE_WEIGHTS")
