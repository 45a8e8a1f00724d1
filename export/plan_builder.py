"""How does a model become a plan? Preflight, parse and build in a process of its own, check if it can run,
publish.

One recipe with two flavours. `tensorrt` is TensorRT 8.5 to 11, on the machine and device that will run the
plan; `rtx` is TensorRT for RTX, for desktop cards, which builds for compute capabilities that need not be
here. What differs between versions is `sfiin.export.trt_worker`'s and `sfiin.export.weak_typing`'s business.
The plan is the library's own file; what sfiin knows of it goes into the sidecar
(`sfiin.runtime.backends.plan`).
"""

from __future__ import annotations

import platform as processor
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from sfiin.export import vouched
from sfiin.export.preflight import require
from sfiin.export.targets import Target, targets
from sfiin.export.trt_process import LIBRARIES, Compiled, CompilerError, Watch, compile_models
from sfiin.runtime import golden
from sfiin.runtime.backends import machine, plan, plugin
from sfiin.runtime.backends.plan import Build, Compatibility, Device, Flavour, Sidecar
from sfiin.runtime.backends.session import Session
from sfiin.runtime.check import GATES, Parity, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import CheckFailedError, MismatchError, UnavailableError
from sfiin.runtime.extras import install
from sfiin.runtime.files import cache_folder, check_target, publish, sha256

TIMEOUT = 4 * 3600.0
"""Seconds until a build counts as stuck; on a Jetson the highest level takes an hour."""

EXACT_BITS = 11
"""FP16's bits: the digital numbers of a sensor with no more are whole numbers in it."""

RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

_FLAGS = {
    "version_compatible": ("VERSION_COMPATIBLE",),
    # Without REFIT a stripped plan takes its own weights only (REFIT_IDENTICAL); others would be undefined.
    "strip": ("STRIP_PLAN", "REFIT"),
    "refit": ("REFIT",),
}
"""Settings, and the builder's flags that each stands for."""


@dataclass(frozen=True)
class BuildSettings:
    """What a user decides about a build.

    `batch`: smallest, usual and largest number of tiles; `workspace`: bytes that a layer may use for scratch;
    `level`: the builder's optimisation level, 0 to 5, None for its default; `strip` leaves the weights out,
    for a refit on the device; `plugin` is the plugin's library, for models of that lowering; `log` gets all
    that the library says.
    """

    flavour: Flavour
    compute_capabilities: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 16)
    workspace: int | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware_compatibility: Compatibility = "none"
    strip: bool = False
    refit: bool = False
    timing_cache: bool = True
    plugin: Path | None = None
    log: Path | None = None

    @property
    def flags(self) -> list[str]:
        """The builder's flags by their names in the API."""
        wanted = [flag for name in self.options for flag in _FLAGS[name]]
        return list(dict.fromkeys(wanted))

    @property
    def options(self) -> list[str]:
        """The settings among `_FLAGS` that are on."""
        return [name for name in _FLAGS if getattr(self, name)]

    @property
    def plugin_inside(self) -> bool:
        """Whether the plugin's library goes into the plan, as only version-compatible ones can have it."""
        return self.plugin is not None and self.version_compatible


@dataclass(frozen=True)
class Built:
    """A published plan: its sidecar, the network's layers, bytes, and its distance from the golden tiles,
    if it ran."""

    plan: Path
    sidecar: Sidecar
    layers: int
    size: int
    parity: Parity | None


def default_flavour() -> Flavour:
    """TensorRT where it can build, else TensorRT for RTX. Raises UnavailableError that explains both."""
    why = machine.cuda_driver()["why"]
    if find_spec(LIBRARIES["tensorrt"]) and not why:
        return "tensorrt"
    if find_spec(LIBRARIES["rtx"]):
        return "rtx"
    missing = (
        f"TensorRT is here, but {why}" if find_spec(LIBRARIES["tensorrt"]) else "TensorRT is not installed"
    )
    raise UnavailableError(
        f"{missing}, and neither is TensorRT for RTX, which builds for desktop cards without a GPU: pip "
        "install tensorrt-rtx-cu13. TensorRT itself comes with JetPack, or by pip install tensorrt, and "
        "builds on its device"
    )


def build(model: Path, out: Path, settings: BuildSettings, watch: Watch = lambda _done, _of: None) -> Built:
    """Build a plan from an exported model and publish it with its sidecar and golden tiles, or nothing.

    `watch` is told the builder's steps done, of how many, where the version reports them. Raises InputError
    or ContractError for what is no exported model, MismatchError for settings that exclude each other,
    UnavailableError for a library or a GPU that is missing, CheckFailedError when the library refuses the
    model or the plan is too far from the golden tiles, OutputError.
    """
    check_target(out)
    loaded, contract, _ = vouched.load(model)
    golden.read(golden.beside(model), contract)
    device = require_possible(settings)
    require_plugin(model, contract, settings)
    library = LIBRARIES[settings.flavour]
    version, _ = compile_models(library, [], None, TIMEOUT)
    target = target_for(settings.flavour, version)
    require(loaded, target)
    with (
        TemporaryDirectory() as folder,
        publish(out) as plan_part,
        publish(golden.beside(out)) as golden_part,
        publish(plan.beside(out)) as sidecar_part,
        _published(settings, out),
    ):
        narrow = Path(folder) / "model.onnx"
        onnx.save(with_exact_inputs(loaded, contract), narrow)
        request = _request(settings, plan_part, device, version)
        _, (found,) = compile_models(
            library, [narrow], request, TIMEOUT, plugin_library=settings.plugin, log=settings.log, watch=watch
        )
        if not found.ok:
            raise CheckFailedError(_refusal(model, target, found.errors))
        shutil.copyfile(golden.beside(model), golden_part)
        sidecar = Sidecar(contract, _provenance(settings, found, version, device, (model, plan_part)))
        distance = checked(plan_part, sidecar, golden.beside(model), settings.plugin)
        sidecar = sidecar if distance is None else sidecar.checked(distance)
        sidecar.write(sidecar_part)
    return Built(out, sidecar, found.layers, found.plan_bytes, distance)


def with_exact_inputs(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """The model with FP16 inputs, cast to FP32 at once, where FP16 holds every digital number: up to 11 bits.

    Half of the bytes cross the bus, and nothing is lost: FP16 has all whole numbers up to 2048. With more
    bits the model as it is; TensorRT has no 16-bit integers.
    """
    if contract.sensor.bits > EXACT_BITS:
        return model
    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    casts = []
    for info in narrow.graph.input:
        wide = f"{info.name}/single"
        for node in narrow.graph.node:
            node.input[:] = [wide if name == info.name else name for name in node.input]
        casts.append(onnx.helper.make_node("Cast", [info.name], [wide], wide, to=onnx.TensorProto.FLOAT))
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    nodes = [*casts, *narrow.graph.node]
    del narrow.graph.node[:]
    narrow.graph.node.extend(nodes)
    return narrow


def require_possible(settings: BuildSettings) -> Device | None:
    """The device to build on, None where none is needed. Raises MismatchError or UnavailableError with the
    reason."""
    if settings.flavour == "rtx":
        _require_rtx(settings)
        if not find_spec(LIBRARIES["rtx"]):
            raise UnavailableError("TensorRT for RTX is not installed: pip install tensorrt-rtx-cu13")
        _capabilities(settings)
        return None
    if settings.hardware_compatibility != "none" and machine.jetson():
        raise MismatchError(
            "--hardware-compatibility: TensorRT has none on a Jetson; leave it out, and build on each kind "
            "of board"
        )
    if settings.compute_capabilities:
        raise MismatchError(
            "--compute-capability is for --flavour rtx; TensorRT builds for the device that it runs on (or, "
            "with --hardware-compatibility ampere_plus, for later ones too)"
        )
    if not find_spec(LIBRARIES["tensorrt"]):
        raise UnavailableError(
            "TensorRT is not installed; it comes with JetPack on a Jetson (use its Python, or a virtual "
            f"environment with --system-site-packages), elsewhere by {install('gpu')}"
        )
    return machine.gpu()


def require_plugin(model: Path, contract: Contract, settings: BuildSettings) -> None:
    """Raise MismatchError unless the plugin's library is given where the model needs it, and only there."""
    needed = contract.lowering == "plugin"
    if needed and settings.flavour == "rtx":
        raise MismatchError(
            f"{model}: lowering: TensorRT for RTX has no plugins; export it with --fourier matmul"
        )
    if needed and settings.plugin is None:
        raise MismatchError(
            f"{model}: lowering: its frequency branches are nodes of sfiin's plugin; give its library by "
            "--plugin libsfiin_plugin.so (export/plugin/README.md says how it is built), or export with "
            "--fourier matmul"
        )
    if settings.plugin and not needed:
        raise MismatchError(
            f"--plugin: {model} has no node of it (lowering '{contract.lowering}'); leave it out"
        )


@contextmanager
def _published(settings: BuildSettings, out: Path) -> Iterator[None]:
    """The plugin's library beside the plan, where the plan needs it and does not bring it along."""
    if settings.plugin is None or settings.plugin_inside:
        yield
        return
    with publish(plugin.beside(out)) as part:
        shutil.copyfile(settings.plugin, part)
        yield


def _require_rtx(settings: BuildSettings) -> None:
    """What TensorRT for RTX refuses by itself only after minutes, or without saying why."""
    if settings.options:
        names = ", ".join("--" + name.replace("_", "-") for name in settings.options)
        raise MismatchError(
            f"{names}: TensorRT for RTX builds such plans on a GPU only; leave it out, or use TensorRT"
        )
    if settings.hardware_compatibility != "none":
        raise MismatchError(
            "--hardware-compatibility is TensorRT's; name the cards with --compute-capability instead"
        )
    for capability in settings.compute_capabilities:
        if capability not in RTX_CAPABILITIES:
            raise MismatchError(
                f"--compute-capability {capability}: TensorRT for RTX builds for "
                f"{', '.join(RTX_CAPABILITIES)}; for a Jetson or a data-centre GPU build there, with "
                "--flavour tensorrt"
            )


def target_for(flavour: Flavour, version: str) -> Target:
    """The table of `sfiin.export.targets` that speaks of a library's version: the latest that is not
    later."""
    known = targets()
    if flavour == "rtx":
        return known["rtx"]
    numbered = {tuple(map(int, name[3:].split("."))): name for name in known if name.startswith("trt")}
    here = tuple(int(part) for part in version.split(".")[:2])
    return known[numbered[max((release for release in numbered if release <= here), default=min(numbered))]]


def checked(part: Path, sidecar: Sidecar, tiles: Path, plugin_library: Path | None = None) -> Parity | None:
    """A plan's distance from the golden tiles, None where it cannot run. Raises CheckFailedError beyond
    the gate."""
    session = _opened(part, sidecar, plugin_library)
    if session is None:
        return None
    contract = sidecar.contract
    expected = golden.read(tiles, contract)
    try:
        output = expected.through(session.run)
    finally:
        session.close()
    distance = parity(expected.names, output, expected.hrms, float(contract.sensor.peak))
    remedy = "not published; try another --level, or report it with the --log"
    distance.require(GATES[contract.precision], "the plan against the golden tiles", remedy)
    return distance


def _opened(part: Path, sidecar: Sidecar, plugin_library: Path | None) -> Session | None:
    from sfiin.runtime.backends.tensorrt_session import TensorRTSession, require_here

    try:
        require_here(part, sidecar)
    except (UnavailableError, MismatchError):
        return None
    return None if sidecar.build.stripped else TensorRTSession(part, sidecar, plugin_library=plugin_library)


def _request(settings: BuildSettings, part: Path, device: Device | None, version: str) -> dict[str, Any]:
    return {
        "plan": str(part),
        "batch": settings.batch,
        "flags": settings.flags,
        "workspace": settings.workspace,
        "level": settings.level,
        "hardware_compatibility": settings.hardware_compatibility,
        "plugin_inside": str(settings.plugin) if settings.plugin_inside else None,
        "compute_capabilities": list(_capabilities(settings)) if settings.flavour == "rtx" else [],
        "timing_cache": str(_timing_cache(device, version)) if settings.timing_cache and device else None,
    }


def _capabilities(settings: BuildSettings) -> tuple[str, ...]:
    """Those asked for, else the local card's, else 8.9's. Raises MismatchError for a local card of another
    kind."""
    if settings.compute_capabilities:
        return settings.compute_capabilities
    here: list[str] = machine.cuda_driver()["compute_capabilities"]
    if here and here[0] not in RTX_CAPABILITIES:
        raise MismatchError(
            f"the GPU here has compute capability {here[0]}, for which TensorRT for RTX does not build; use "
            "--flavour tensorrt here, or name the cards by --compute-capability"
        )
    return ((here or ["8.9"])[0],)


def _timing_cache(device: Device, version: str) -> Path:
    """Timings belong to one device and one version of the library; they lie in the user's cache folder."""
    home = cache_folder()
    home.mkdir(parents=True, exist_ok=True)
    name = "".join(
        letter if letter.isalnum() else "-" for letter in f"{device.name} {device.compute_capability}"
    )
    return home / f"timing {name} {version}.cache".replace(" ", "-")


def _provenance(
    settings: BuildSettings, found: Compiled, version: str, device: Device | None, files: tuple[Path, Path]
) -> Build:
    """`files`: the model and the plan."""
    options: dict[str, str | int | bool] = {"timing_cache": settings.timing_cache and device is not None}
    options |= {
        name: value for name in ("workspace", "level") if (value := getattr(settings, name)) is not None
    }
    return Build(
        flavour=settings.flavour,
        tensorrt=version,
        device=device.name if device else "",
        compute_capabilities=(device.compute_capability,) if device else _capabilities(settings),
        batch=settings.batch,
        model=sha256(files[0]),
        plan=sha256(files[1]),
        refittable=settings.refit or settings.strip,
        stripped=settings.strip,
        version_compatible=settings.version_compatible,
        hardware_compatibility=settings.hardware_compatibility,
        plugin=sha256(settings.plugin) if settings.plugin else "",
        plugin_inside=settings.plugin_inside,
        options=options,
        seconds=found.seconds,
        machine=processor.machine(),
    )


def _refusal(model: Path, target: Target, errors: tuple[CompilerError, ...]) -> str:
    first = errors[0]
    where = f"{first.operator} '{first.node}': " if first.node else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    text = " ".join(first.text.split())
    return f"{model}: {target.title} did not build it: {where}{text}{more}; {_remedy(text)}"


def _remedy(text: str) -> str:
    lower = text.lower()
    if "plugin not found" in lower or "no importer registered" in lower:
        return "'sfiin preflight' says which node it is; --fourier matmul needs no plugin"
    if "must have same input types" in lower:
        return "its types do not fit one another, and TensorRT converts none by itself; export it anew"
    if "out of memory" in lower or "outofmemory" in lower or "insufficient memory" in lower:
        return (
            "give it less to do at once: a smaller --batch or --workspace, or a smaller --tile at the export"
        )
    if "could not find any implementation" in lower or "no implementation" in lower:
        return (
            "a layer has no kernel of its type in this --workspace; raise it, lower --level, or export fp32"
        )
    if "gave no answer" in lower:
        return "the library itself ended; --log FILE keeps what it said last"
    return "'sfiin preflight' may say more, and --log FILE keeps all that the library said"
