"""How does TensorRT come by the node that it lacks? From the plugin's library, loaded for one builder or
runtime.

A plan whose model has the lowering `plugin` needs the library at build time and again where it runs. `sfiin
build` puts it beside the plan (`net.plan.so`) with its digest in the sidecar, or, for a version-compatible
plan, into the plan itself. A library is code, and runs with the rights of who loads it; one that is not the
file it was built with is refused unopened.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from sfiin.runtime.backends.plan import Build
from sfiin.runtime.contract import PLUGIN
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import sha256

VERSION = "1"


def beside(plan: Path) -> Path:
    """Where a plan's library lies."""
    return plan.with_name(plan.name + ".so")


def provide(runtime: Any, build: Build, library: Path) -> None:
    """Give a `Runtime` of TensorRT what a plan needs of the plugin, before it reads the plan.

    Raises as `require` and `load`. A plan that brings the library itself is allowed to run code of its own.
    """
    if build.plugin_inside:
        runtime.engine_host_code_allowed = True
    elif build.plugin:
        require(library, build.plugin)
        load(runtime, library)


def require(library: Path, digest: str) -> None:
    """Raise InputError for a library that cannot be read, MismatchError for another one than was built
    with."""
    try:
        found = sha256(library)
    except OSError as error:
        raise InputError(
            f"{library}: the plugin's library cannot be read ({error.strerror}); put it beside the plan, or build anew"
        ) from None
    if found != digest:
        raise MismatchError(
            f"{library}: plugin (SHA-256): the library has {found[:12]}, the plan was built with {digest[:12]}; put "
            "that one back, or build again"
        )


def load(owner: Any, library: Path) -> None:
    """Make the library's plugin known to a builder or runtime of TensorRT, `owner`, for as long as that
    lives.

    TensorRT 8.5 has no registry of its own for each; there a library registers itself, once and for the whole
    process. Raises InputError for what is no library of this plugin, with the loader's reason where it gives
    one.
    """
    if not library.is_file():
        raise InputError(f"{library}: no such file; build the plugin as export/plugin/README.md says")
    registry = owner.get_plugin_registry() if hasattr(owner, "get_plugin_registry") else None
    try:
        if registry is None:
            ctypes.CDLL(str(library.resolve()), ctypes.RTLD_GLOBAL)
            return
        ctypes.CDLL(str(library.resolve()))  # TensorRT's registry says nothing of why it refuses a file
        registry.load_library(
            str(library.resolve())
        )  # None for a file that it refuses, as well as for one it has
    except OSError as error:
        raise InputError(
            f"{library}: cannot be loaded as a library: {' '.join(str(error).split())}"
        ) from None
    if not knows(registry):
        raise InputError(
            f"{library}: has no plugin {'::'.join(PLUGIN)} for this version of TensorRT; build it with its headers"
        )


def knows(registry: Any) -> bool:
    """Whether a registry has the plugin. TensorRT 10 asks by another name than 8."""
    domain, name = PLUGIN
    find = registry.get_creator if hasattr(registry, "get_creator") else registry.get_plugin_creator
    return find(name, VERSION, domain) is not None
