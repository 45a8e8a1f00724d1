"""Serving by Triton: the configuration as Triton's own schema reads it, and sessions against a real server.

The server is NVIDIA's `tritonserver` with its Python backend, out of the package nvidia-pytriton, on
loopback.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from sfiin.runtime import golden, models
from sfiin.runtime.backends import triton_client, triton_repository
from sfiin.runtime.backends.select import open_session
from sfiin.runtime.backends.triton_client import TritonSession, is_address
from sfiin.runtime.backends.triton_repository import Serving, write
from sfiin.runtime.errors import (
    ContractError,
    InputError,
    MismatchError,
    OutputError,
    SfiinError,
    UnavailableError,
)

pytest.importorskip("tritonclient.grpc")

PACKAGE = "nvidia-pytriton==0.7.0"
OFFLINE = (
    "connection broken",
    "NewConnectionError",
    "No matching distribution",
    "name resolution",
    "ProxyError",
)


# --- the repository ---


def parsed(folder: Path) -> Any:
    """`config.pbtxt` as Triton's schema reads it."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("backend", [None, "python"])
def test_tritons_own_schema_reads_the_configuration(small_model: Path, tmp_path: Path, backend: Any) -> None:
    folder = write(small_model, tmp_path / "repository", "net", backend, Serving(6, 500, 2, 3))
    config = parsed(folder)
    contract = models.contract(small_model)
    assert (config.name, config.backend) == ("net", backend or "onnxruntime")
    assert (folder / "1" / config.default_model_filename).is_file()
    assert config.max_batch_size == 6
    found = {tensor.name: tuple(tensor.dims) for tensor in (*config.input, *config.output)}
    assert found == contract.shapes
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.instance_group[0].count == 2
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["sfiin.contract"] == contract.to_json()
    assert parameters["threads" if backend else "intra_op_thread_count"] == "3"
    tiles = golden.read(golden.beside(small_model), contract)
    for name, tile in (("ms", tiles.ms[0]), ("pan", tiles.pan[0])):
        warm = config.model_warmup[0].inputs[name]
        raw = np.frombuffer((folder / "warmup" / warm.input_data_file).read_bytes(), "<f4")
        assert np.array_equal(raw.reshape(warm.dims), tile)


def test_what_cannot_be_served_is_refused(small_model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with pytest.raises(MismatchError, match="tensorrt does not run it"):
        write(small_model, repository, "net", "tensorrt")
    with pytest.raises(InputError, match="is no name"):
        write(small_model, repository, "../net")
    alone = Path(shutil.copy(small_model, tmp_path / "alone.onnx"))
    with pytest.raises(InputError, match="golden tiles cannot be read"):
        write(alone, repository, "net")
    assert not repository.exists()
    write(small_model, repository, "net")
    with pytest.raises(OutputError, match="exists already"):
        write(small_model, repository, "net")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write(small_model, tmp_path / "file", "net")


def test_the_command(invoke: Any, small_model: Path, tmp_path: Path) -> None:
    code, out, err = invoke(
        "triton", small_model, "-o", tmp_path / "r", "--backend", "python", "--name", "net"
    )
    assert (code, err) == (0, "")
    assert "tritonserver --model-repository" in out
    assert parsed(tmp_path / "r" / "net").backend == "python"
    assert invoke("triton", small_model, "-o", tmp_path / "r", "--name", "net")[0] == 7


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("grpc://host:8001/net", True),
        ("grpc:/127.0.0.1:8001/net", True),
        ("grpc://host/net", False),
        ("grpc://host:8001/", False),
        ("net.onnx", False),
        ("http://host:8001/net", False),
    ],
)
def test_an_address_is_told_from_a_file(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one
    assert is_address(Path(text)) is is_one


def test_without_a_server_it_says_so_soon() -> None:
    with pytest.raises(UnavailableError, match=r"no server after 2 tries .*--model"):
        TritonSession(f"grpc://127.0.0.1:{free_port()}/net", tries=2, pause=0.01)
    with pytest.raises(MismatchError, match="is no address"):
        TritonSession("net.onnx")


# --- a real server ---


def free_port() -> int:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of a `tritonserver`, kept from run to run; and beside it NumPy 1, which its Python backend
    needs."""
    cache = Path(request.config.cache.mkdir("triton"))
    home = cache / "pytriton" / "tritonserver"
    with (cache / "lock").open("w") as lock:  # another worker of the same run wants it too
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "ready").is_file():
            fetch(cache, tmp_path_factory.mktemp("triton"))
            (cache / "ready").touch()
    for program in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        linked = subprocess.run(
            ["ldd", str(home / program)], capture_output=True, text=True, check=False
        ).stdout
        if missing := [line.split()[0] for line in linked.splitlines() if "not found" in line]:
            pytest.skip(f"tritonserver needs {missing[0]}, which is not here")
    return home


def fetch(cache: Path, scratch: Path) -> None:
    """Unpack the server, the libraries beside it, and NumPy 1."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = cache / "pytriton" / "tritonserver"
    pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
    with zipfile.ZipFile(next(scratch.glob("nvidia_pytriton*.whl"))) as wheel:
        wanted = ("pytriton/tritonserver/", "nvidia_pytriton.libs/")
        shutil.rmtree(home.parent, ignore_errors=True)  # what a run that was stopped has left
        wheel.extractall(cache, [name for name in wheel.namelist() if name.startswith(wanted)])
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"{PACKAGE} has no Python backend for Python {version}")
    for program in (home / "bin" / "tritonserver", Path(shutil.copy(stub, home / "backends" / "python"))):
        program.chmod(0o755)
    pip("install", "--no-deps", "--target", str(home / "numpy1"), "numpy==1.26.4")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode and (any(text in said for text in OFFLINE) or "No module named pip" in said):
        pytest.skip(f"pip cannot fetch {arguments[-1]} here")
    assert done.returncode == 0, said


class Server:
    """A tritonserver over one repository, on ports of its own."""

    def __init__(self, home: Path, repository: Path, log: Path) -> None:
        self.port, self._home, self._repository, self._log = free_port(), home, repository, log
        self._others = [str(free_port()), str(free_port())]
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, name: str) -> str:
        return f"grpc://127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        path = [str(self._home / "numpy1"), *filter(None, sys.path), str(Path(__file__).parents[3])]
        http, metrics = self._others
        command = [
            str(self._home / "bin" / "tritonserver"),
            *(
                "--model-repository",
                str(self._repository),
                "--backend-directory",
                str(self._home / "backends"),
            ),
            *("--grpc-address", "127.0.0.1", "--grpc-port", str(self.port)),
            *("--http-address", "127.0.0.1", "--http-port", http),
            *("--metrics-address", "127.0.0.1", "--metrics-port", metrics),
            *("--exit-on-error", "false", "--exit-timeout-secs", "3"),
            "--backend-config=python,shm-default-byte-size=4194304",
        ]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd="/", start_new_session=True
            )

    def kill(self) -> None:
        """As a power cut would; the stubs go with it."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        """Until the server takes calls; whether its models are ready is another matter."""
        from tritonclient import grpc

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with grpc.InferenceServerClient(f"127.0.0.1:{self.port}") as client:
                try:
                    if client.is_server_live(client_timeout=1.0):
                        return
                except grpc.InferenceServerException:
                    time.sleep(0.2)
        pytest.fail(f"no server: {self._log.read_text('utf-8', 'replace')[-2000:]}")


@contextmanager
def serving(home: Path, repository: Path) -> Iterator[Server]:
    server = Server(home, repository, repository.with_suffix(".log"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def server(triton: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It serves `net`, and others that have something wrong."""
    repository = tmp_path_factory.mktemp("served") / "repository"
    write(small_model, repository, "net", "python", Serving(batch=4))
    for name, old, new in (
        ("plain", 'key: "sfiin.contract"', 'key: "contract"'),
        ("odd", "dims: [1, 32, 32] }\n]", "dims: [1, 64, 64] }\n]"),
        ("stale", parsed(repository / "net").parameters["sfiin.sha256"].string_value, "0" * 64),
    ):
        folder = write(small_model, repository, name, "python")
        config = folder / "config.pbtxt"
        text = config.read_text("utf-8")
        assert old in text
        config.write_text(text.replace(old, new), "utf-8")
        if name == "odd":  # or the server would refuse it itself, for its warm-up
            config.write_text(config.read_text("utf-8").replace("model_warmup", "# model_warmup", 0), "utf-8")
            drop_warmup(config)
    with serving(triton, repository) as running:
        yield running


def drop_warmup(config: Path) -> None:
    text = config.read_text("utf-8")
    first = text.index("model_warmup")
    config.write_text(text[:first] + text[text.index("parameters", first) :], "utf-8")


def write_scene(folder: Path) -> None:
    generator = np.random.default_rng(3)
    ms = generator.integers(200, 1800, (4, 24, 24)).astype(np.uint16)
    pan = ms.mean(0)[None].repeat(4, 1).repeat(4, 2).astype(np.uint16)
    for name, image, pixel in (("pan", pan, 1.0), ("ms", ms, 4.0)):
        size = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(pixel, 0, 1000, 0, -pixel, 2000)}
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", dtype=image.dtype, **size, **place
        ) as file:
            file.write(image)


def batches(count: int, size: int = 2, seed: int = 0) -> list[tuple[Any, Any]]:
    generator = np.random.default_rng(seed)
    return [
        (
            generator.integers(0, 2000, (size, 4, 8, 8)).astype(np.float32),
            generator.integers(0, 2000, (size, 1, 32, 32)).astype(np.float32),
        )
        for _ in range(count)
    ]


class TestServed:
    def test_the_same_bytes_as_here(self, server: Server, small_model: Path) -> None:
        with (
            TritonSession(server.address("net")) as far,
            closing(open_session(small_model, threads=1)) as near,
        ):
            assert far.contract == near.contract
            for size in (1, 3, 4, 11):
                (batch,) = batches(1, size, seed=size)
                assert np.array_equal(far.run(*batch), near.run(*batch))
            many = batches(20)
            assert all(
                np.array_equal(one, near.run(*batch))
                for one, batch in zip(far.run_many(many), many, strict=True)
            )

    def test_a_scene_is_sharpened_by_the_server(
        self, server: Server, small_model: Path, invoke: Any, tmp_path: Path
    ) -> None:
        """By the command; the same bytes as by the file."""
        write_scene(tmp_path)
        scene = ("run", "--pan", tmp_path / "pan.tif", "--ms", tmp_path / "ms.tif", "--json")
        code, out, err = invoke(*scene, "--model", server.address("net"), "-o", tmp_path / "far.tif")
        assert code == 0, err
        far = json.loads(out)
        near = json.loads(invoke(*scene, "--model", small_model, "-o", tmp_path / "near.tif")[1])
        assert far["model_sha256"] == near["model_sha256"]
        with rasterio.open(tmp_path / "far.tif") as one, rasterio.open(tmp_path / "near.tif") as other:
            assert np.array_equal(one.read(), other.read())
        assert (
            invoke(*scene, "--model", server.address("net"), "--provider", "cuda", "-o", tmp_path / "x.tif")[
                0
            ]
            == 4
        )

    def test_few_batches_are_under_way(self, server: Server) -> None:
        taken = 0

        def told() -> Iterator[tuple[Any, Any]]:
            nonlocal taken
            for batch in batches(12):
                taken += 1
                yield batch

        with TritonSession(server.address("net")) as session:
            results = session.run_many(told())
            for done in range(1, 5):
                next(results)
                assert taken <= done + triton_client.IN_FLIGHT

    @pytest.mark.parametrize(
        ("name", "kind", "why"),
        [
            ("none", MismatchError, "the server refuses: .*none"),
            ("plain", ContractError, "carries no sfiin contract"),
            ("odd", MismatchError, "its contract says"),
            ("stale", SfiinError, "not ready|the server refuses"),
        ],
    )
    def test_a_model_that_does_not_fit_is_refused(
        self, server: Server, name: str, kind: type[SfiinError], why: str
    ) -> None:
        with pytest.raises(kind, match=why):
            TritonSession(server.address(name), tries=2, pause=0.01)

    def test_a_server_that_comes_back_is_gone_on_with(
        self, triton: Path, small_model: Path, tmp_path: Path
    ) -> None:
        """Killed when a few batches are done, started anew on its ports: all results, the same bytes, in
        order."""
        write(small_model, tmp_path / "repository", "net", "python")
        many = batches(40)
        with (
            serving(triton, tmp_path / "repository") as server,
            closing(open_session(small_model, threads=1)) as near,
        ):
            with TritonSession(server.address("net"), tries=12, pause=0.25, deadline=20) as far:
                results = far.run_many(many)
                found = [next(results) for _ in range(3)]
                server.kill()
                again = threading.Timer(1.0, server.start)
                again.start()
                found += list(results)
                again.join()
            assert len(found) == len(many)
            assert all(np.array_equal(one, near.run(*batch)) for one, batch in zip(found, many, strict=True))

    def test_a_server_that_stays_away_ends_the_session_in_words(
        self, triton: Path, small_model: Path, tmp_path: Path
    ) -> None:
        write(small_model, tmp_path / "repository", "net", "python")
        with serving(triton, tmp_path / "repository") as server:
            with TritonSession(server.address("net"), tries=2, pause=0.05) as session:
                session.run(*batches(1)[0])
                server.kill()
                with pytest.raises(UnavailableError, match="no server after 2 tries"):
                    session.run(*batches(1)[0])
            server.start()
            server.wait()


def test_the_configuration_needs_no_escapes_that_protobuf_lacks(small_model: Path) -> None:
    assert triton_repository._quoted('a "b" \\ \n ü') == '"a \\"b\\" \\\\ \\n \\u00fc"'
