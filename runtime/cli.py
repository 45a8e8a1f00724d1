"""What does the command `sfiin` offer? The commands of this package, and those that join it by an entry
point.

A command is a function with typer's annotations, named by an entry point of the group `sfiin.commands`:

    [project.entry-points."sfiin.commands"]
    train = "sfiin.commands.train:train"

Only the module of the command that runs is imported, and all of them for `sfiin --help`; so a command's
module imports what is heavy inside the function, after asking `requires` whether it is there. One that cannot
be imported is listed with the reason and breaks no other.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from types import TracebackType
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import sfiin
from sfiin.runtime.commands.signals import raise_on_term
from sfiin.runtime.errors import SfiinError, UnavailableError
from sfiin.runtime.extras import requires

__all__ = ["GROUP", "main", "require_platform", "requires"]

GROUP = "sfiin.commands"
MACHINES = ("x86_64", "aarch64")
"""What the tests run on, and what all backends have packages for."""


def main() -> None:
    """Run the command line and exit: a failure is one line on stderr, and its class gives the exit code.

    With SFIIN_DEBUG=1 in the environment the traceback comes first.
    """
    raise_on_term()
    _hush_messages_that_are_no_text()
    try:
        try:
            code = _run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as in `sfiin doctor | head -1`; Python must not complain when it flushes at
        # exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def require_platform(system: str = sys.platform, machine: str | None = None) -> None:
    """Raise UnavailableError anywhere but on Linux on x86_64 or aarch64, before something fails there in its
    way."""
    machine = machine or (os.uname().machine if hasattr(os, "uname") else "another machine")
    if system != "linux" or machine not in MACHINES:
        raise UnavailableError(
            f"sfiin runs on Linux, on {' or '.join(MACHINES)}; this is {system} on {machine}. The Dockerfile "
            "in the sources makes an image that runs elsewhere"
        )


def _hush_messages_that_are_no_text() -> None:
    """GDAL's messages quote files, which need not be UTF-8; rasterio then prints tracebacks of its own
    logging.

    It goes on, and what GDAL said is in the error where there is one. Everything else is shown as ever.
    """
    shown, ignored = sys.excepthook, sys.unraisablehook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (trace is None and isinstance(error, UnicodeDecodeError)):
            shown(kind, error, trace)

    def ignore(found: sys.UnraisableHookArgs) -> None:
        if "rasterio._env.log_error" not in str(found.object):
            ignored(found)

    sys.excepthook, sys.unraisablehook = show, ignore


def _run() -> int:
    """The exit code of a failure; typer itself raises SystemExit for success and for usage errors."""
    try:
        require_platform()
        _application()(prog_name="sfiin")
    except KeyboardInterrupt:
        return 130
    except SfiinError as error:
        if os.environ.get("SFIIN_DEBUG") == "1":
            traceback.print_exc()
        print(f"sfiin: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


class _Commands(Mapping[str, Any]):
    """Commands by name; asking for one imports it, listing the names imports none."""

    def __init__(self) -> None:
        self._points: dict[str, metadata.EntryPoint] = {}
        for point in metadata.entry_points(group=GROUP):
            # Nobody else's command replaces one of ours.
            if point.name not in self._points or _is_own(point):
                self._points[point.name] = point

    def __getitem__(self, name: str) -> Any:
        point = self._points[name]
        # A foreign module may raise anything when it is imported, and typer when it reads the annotations.
        try:
            return _command(name, point.load())
        except Exception as error:
            return _command(name, _broken(name, error), allow_extra_args=True, ignore_unknown_options=True)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._points))

    def __len__(self) -> int:
        return len(self._points)


class _Group(TyperGroup):
    """typer's group over lazily loaded commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = cast(Any, _Commands())

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, without loading any command."""
        return list(self.commands)


OPTIONAL = {"--coregister": ("shift", "local")}
"""Options whose value may be left out, with the values that they take; without one they take the first."""


class _Command(TyperCommand):
    """typer's command, whose options in `OPTIONAL` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write out the values that were left out."""
        following = [*args, ""][1:]
        return super().parse_args(
            ctx,
            [
                f"{word}={OPTIONAL[word][0]}" if word in OPTIONAL and after not in OPTIONAL[word] else word
                for word, after in zip(args, following, strict=True)
            ],
        )


def _application() -> Any:
    # Plain help: rich's boxes would cost as much time as all the rest, and its markup swallows
    # 'sfiin[train]'.
    app = typer.Typer(
        cls=_Group,
        add_completion=False,
        rich_markup_mode=None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_top)
    return get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sfiin {sfiin.__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Sharpen multispectral scenes with SFIIN: train a network, export it, and run it."""


def _command(name: str, function: Callable[..., None], **settings: Any) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=_Command, context_settings=settings)(function)
    return get_command(app)


def _broken(name: str, error: Exception) -> Callable[[], None]:
    reason = " ".join(f"cannot be loaded: {type(error).__name__}: {error}".split())

    def command() -> None:
        raise UnavailableError(f"the command '{name}' {reason}; reinstall the package that brings it")

    command.__doc__ = reason
    return command


def _is_own(point: metadata.EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "sfiin"
