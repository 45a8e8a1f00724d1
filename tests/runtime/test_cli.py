from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sfiin
from sfiin.runtime import cli, errors

OWN = ("ablate", "demo", "doctor", "evaluate", "export", "import", "inspect", "preflight", "run", "train")

Invoke = Callable[..., int]
Plugin = Callable[[str, str], None]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["sfiin", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return call


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """Installs a distribution whose module holds `source` and whose command NAME is its function
    `command`."""

    def install(name: str, source: str) -> None:
        root = tmp_path / name
        info = root / f"foreign_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (root / f"foreign_{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: foreign-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[sfiin.commands]\n{name} = foreign_{name}:command\n")
        monkeypatch.syspath_prepend(root)

    yield install
    for name in [name for name in sys.modules if name.startswith("foreign_")]:
        del sys.modules[name]


def test_help_lists_every_command(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--help") == 0
    listed = [
        line.split()[0]
        for line in capsys.readouterr().out.split("Commands:\n")[1].splitlines()
        if line.strip()
    ]
    assert set(OWN) <= set(listed)


def test_version(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--version") == 0
    assert capsys.readouterr().out == f"sfiin {sfiin.__version__}\n"


def test_a_plugin_joins_and_takes_options(
    invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin(
        "greet",
        "def command(name: str, loud: bool = False) -> None:\n    print(name.upper() if loud else name)\n",
    )
    assert invoke("greet", "--loud", "world") == 0
    assert capsys.readouterr().out == "WORLD\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("other = 1", "AttributeError"),
        ("def command(", "SyntaxError"),
    ],
)
def test_a_broken_plugin_breaks_only_itself(
    invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str], source: str, reason: str
) -> None:
    plugin("broken", source)
    assert invoke("--help") == 0
    listing = capsys.readouterr().out
    assert all(name in listing for name in OWN)
    assert "broken cannot be loaded:" in " ".join(listing.split())
    assert invoke("inspect", "--help") == 0
    capsys.readouterr()
    assert invoke("broken", "--any", "thing") == errors.UnavailableError.exit_code
    assert f"cannot be loaded: {reason}" in capsys.readouterr().err


def test_no_plugin_replaces_an_own_command(
    invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("inspect", "raise RuntimeError")
    assert invoke("inspect", "--help") == 0
    assert "checkpoint" in capsys.readouterr().out


def test_only_the_invoked_command_is_imported(invoke: Invoke, plugin: Plugin) -> None:
    plugin("other", "")
    assert invoke("run", "--help") == 0
    assert "foreign_other" not in sys.modules


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SfiinError)
    ],
)
def test_a_failure_is_one_line_and_its_code(
    invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str], kind: type[errors.SfiinError]
) -> None:
    name = f"fail{kind.__name__.lower()}"
    plugin(
        name,
        f"from sfiin.runtime import errors\ndef command():\n    raise errors.{kind.__name__}('what and "
        "why')\n",
    )
    assert invoke(name) == kind.exit_code
    assert capsys.readouterr() == ("", "sfiin: error: what and why\n")


def test_debug_adds_the_traceback(
    invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFIIN_DEBUG", "1")
    plugin(
        "debugged", "from sfiin.runtime import errors\ndef command():\n    raise errors.InputError('why')\n"
    )
    assert invoke("debugged") == errors.InputError.exit_code
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("sfiin: error: why\n")


def test_an_interrupt_ends_with_130(
    invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("interrupted", "def command():\n    raise KeyboardInterrupt\n")
    assert invoke("interrupted") == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("run",), ("run", "--batch", "0"), ("doctor", "--nonsense")]
)
def test_usage_errors_end_with_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments) == 2


def test_a_mistyped_command_gets_a_suggestion(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("inspct") == 2
    assert "Did you mean 'inspect'?" in capsys.readouterr().err


def test_a_missing_extra_is_named(invoke: Invoke, plugin: Plugin, capsys: pytest.CaptureFixture[str]) -> None:
    plugin(
        "needy",
        "from sfiin.runtime.cli import requires\ndef command():\n    requires('train', 'json', 'no_such')\n",
    )
    assert invoke("needy") == errors.UnavailableError.exit_code
    error = capsys.readouterr().err
    assert "no_such is not installed" in error
    assert "needs the extra 'train': pip install '" in error


@pytest.mark.parametrize(
    ("system", "machine"),
    [("linux", "riscv64"), ("linux", "armv7l"), ("darwin", "arm64"), ("win32", "AMD64"), ("linux", "i686")],
)
def test_elsewhere_it_says_so_at_once(system: str, machine: str) -> None:
    with pytest.raises(errors.UnavailableError) as failure:
        cli.require_platform(system, machine)
    assert f"on x86_64 or aarch64; this is {system} on {machine}" in str(failure.value)


def test_elsewhere_no_command_is_begun(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "MACHINES", ("none",))
    assert invoke("--version") == errors.UnavailableError.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("sfiin: error: sfiin runs on Linux, on none; this is ")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_where_it_runs_nothing_is_said(machine: str) -> None:
    cli.require_platform("linux", machine)


def test_requires_is_content_with_what_is_there() -> None:
    cli.requires("train", "json", "csv")


@pytest.mark.skipif(os.name != "posix", reason="pipes that break so are POSIX's")
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["doctor"]])
def test_a_broken_pipe_is_quiet(tmp_path: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "from sfiin.runtime.cli import main; main()", *arguments]
    # Elsewhere than in the checkout, where old metadata may lie about.
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
