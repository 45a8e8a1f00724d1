"""Plans before they are loaded: header, sidecar, and where they may run."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path

import pytest

from sfiin.runtime import models
from sfiin.runtime.backends import plan
from sfiin.runtime.backends.plan import Build, Device, Sidecar
from sfiin.runtime.errors import ContractError, InputError, MismatchError, SfiinError
from sfiin.runtime.files import sha256

ORIN, ADA = Device("Orin", "8.7"), Device("L4", "8.9")


def write_plan(folder: Path, magic: bytes = b"ftrt", version: tuple[int, ...] = (10, 3, 0, 26)) -> Path:
    """Bytes with a plan's header; only TensorRT can make, or read, the rest."""
    path = folder / "net.plan"
    path.write_bytes(magic + bytes(20) + bytes(version) + b"the rest")
    return path


def build_of(path: Path, **changes: object) -> Build:
    build = Build(
        "tensorrt",
        "10.3.0.26",
        "Orin",
        ("8.7",),
        (1, 1, 16),
        "0" * 64,
        sha256(path),
        False,
        False,
        False,
        "none",
        "",
        False,
        {"workspace": 1 << 30, "level": 3},
        4.5,
    )
    return dataclasses.replace(build, **changes)  # type: ignore[arg-type]


def with_sidecar(path: Path, **changes: object) -> Sidecar:
    _, contract = models.shipped()[0]
    sidecar = Sidecar(contract, build_of(path, **changes))
    plan.update(path, sidecar)
    return sidecar


def test_a_sidecar_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    written = with_sidecar(path, checked={"relative_l2": 1e-6, "peak_share": 2e-6}, refittable=True)
    assert plan.read(path) == written
    assert plan.is_plan(path)
    assert {file.name for file in tmp_path.iterdir()} == {"net.plan", "net.plan.json"}


@pytest.mark.parametrize(("magic", "flavour"), [(b"ftrt", "tensorrt"), (b"vtrt", "rtx")])
def test_a_header_names_library_and_version(tmp_path: Path, magic: bytes, flavour: str) -> None:
    header = plan.read_header(write_plan(tmp_path, magic, (1, 7, 1, 116)))
    assert (header.flavour, header.version) == (flavour, (1, 7, 1, 116))


@pytest.mark.parametrize("content", [b"", b"ftrt", b"ONNX" + bytes(40)])
def test_what_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no plan"):
        plan.read_header(path)


def test_a_missing_plan_and_a_missing_sidecar_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        plan.read(tmp_path / "net.plan")
    with pytest.raises(InputError, match=r"sidecar cannot be read .* keep it beside"):
        plan.read(write_plan(tmp_path))


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"flavour": "rtx"}, "flavour"), ({"tensorrt": "10.7.0.23"}, "tensorrt"), ({"plan": "1" * 64}, "plan")],
)
def test_a_sidecar_of_another_plan_is_refused_by_field(
    tmp_path: Path, changes: dict[str, str], field: str
) -> None:
    path = write_plan(tmp_path)
    with_sidecar(path, **changes)
    with pytest.raises(MismatchError, match=rf"{field}.*do not belong together"):
        plan.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document["build"].pop("batch"), r"build\.batch: missing"),
        (lambda document: document["build"].update(batch=[1, 2]), r"build\.batch: must be three"),
        (lambda document: document["build"].update(batch=[4, 2, 8]), r"build\.batch: must be three"),
        (lambda document: document["build"].update(refittable="yes"), r"build\.refittable: expected bool"),
        (
            lambda document: document["build"].update(compute_capabilities=[]),
            r"compute_capabilities: must name",
        ),
        (lambda document: document["build"].update(options={"a": None}), r"build\.options\.a"),
        (lambda document: document.update(format="sfiin-plan/9"), "format: this version reads"),
        (lambda document: document["contract"].update(lowering="fft"), r"contract\.lowering"),
    ],
)
def test_a_damaged_sidecar_is_refused_by_field(tmp_path: Path, change: object, said: str) -> None:
    path = write_plan(tmp_path)
    with_sidecar(path)
    document = json.loads(plan.beside(path).read_text())
    change(document)  # type: ignore[operator]
    plan.beside(path).write_text(json.dumps(document))
    with pytest.raises(ContractError, match=said):
        plan.read(path)


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_a_sidecar_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = write_plan(tmp_path)
    plan.beside(path).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ContractError, match="not JSON"):
        plan.read(path)


@pytest.mark.parametrize(
    ("changes", "version", "device", "field"),
    [
        ({}, "10.3.0.26", ORIN, None),
        ({}, "10.3.0.30", ORIN, None),
        ({}, "10.7.0.1", ORIN, "tensorrt"),
        ({"version_compatible": True}, "10.7.0.1", ORIN, None),
        ({"version_compatible": True}, "10.1.0.1", ORIN, "tensorrt"),
        ({"version_compatible": True}, "11.0.0.1", ORIN, "tensorrt"),
        ({}, "10.3.0.26", ADA, "compute_capabilities"),
        (
            {"hardware_compatibility": "ampere_plus", "compute_capabilities": ("8.6",)},
            "10.3.0.26",
            ADA,
            None,
        ),
        ({"hardware_compatibility": "ampere_plus"}, "10.3.0.26", ADA, "compute_capabilities"),
        (
            {"hardware_compatibility": "ampere_plus"},
            "10.3.0.26",
            Device("Xavier", "7.2"),
            "compute_capabilities",
        ),
        ({"hardware_compatibility": "same_compute_capability"}, "10.3.0.26", ADA, "compute_capabilities"),
        ({"compute_capabilities": ("8.6", "8.9")}, "10.3.0.26", ADA, None),
        (
            {"hardware_compatibility": "ampere_plus", "compute_capabilities": ("8.6",)},
            "10.3.0.26",
            ORIN,
            "compute_capabilities",
        ),
        (
            {"hardware_compatibility": "ampere_plus", "compute_capabilities": ("8.6",)},
            "10.3.0.26",
            Device("Thor", "11.0"),
            "compute_capabilities",
        ),
        ({"machine": "aarch64"}, "10.3.0.26", ORIN, "machine"),
        ({"machine": "x86_64"}, "10.3.0.26", ORIN, None),
    ],
)
def test_where_a_plan_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    version: str,
    device: Device,
    field: str | None,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    path = write_plan(tmp_path)
    build = build_of(path, **changes)
    if field is None:
        plan.require_runs(path, build, "tensorrt", version, device)
    else:
        with pytest.raises(MismatchError, match=rf"{field}: .*sfiin build"):
            plan.require_runs(path, build, "tensorrt", version, device)


def test_a_plan_of_the_other_flavour_is_refused(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    with pytest.raises(SfiinError, match="flavour: built by tensorrt, but the library here is rtx"):
        plan.require_runs(path, build_of(path), "rtx", "1.7.1.116", ADA)
