"""How does TensorRT come by the node that it lacks? From the plugin's library, loaded for one builder or
runtime.

A plan whose model has the lowering `plugin` needs the library at build time and again where it runs. `sfiin
build` puts it beside the plan (`net.plan.so`) with its digest in the sidecar, or, for a version-compatible
plan, into the plan itself. A library is code, and runs with the rights of who loads it; one that is not the
file it was built with, or that others may write, is not loaded.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from sfiin.runtime import trust
from sfiin.runtime.backends.plan import Build
from sfiin.runtime.contract import PLUGIN
from sfiin.runtime.errors import InputError, MismatchError

VERSION = "1"


def beside(plan: Path) -> Path:
    """Where a plan's library lies."""
    return plan.with_name(plan.name + ".so")


def provide(runtime: Any, build: Build, library: Path, plan: Path | None = None) -> None:
    """Give a `Runtime` of TensorRT what a plan needs of the plugin, before it reads the plan.

    Raises as `load`. A version-compatible plan brings code of its own, TensorRT's lean runtime and perhaps
    the plugin's library; it is allowed to run that where nobody else may write the plan.
    """
    if build.version_compatible or build.plugin_inside:
        inside = plan or library.with_suffix("")
        with trust.opened_code(inside, "a plan that brings its own code"):
            runtime.engine_host_code_allowed = True
    if build.plugin and not build.plugin_inside:
        load(runtime, library, build.plugin)


def require(library: Path, digest: str) -> None:
    """Raise InputError for a library that cannot be read, MismatchError for another one than was built
    with, or one that others may write."""
    with trust.opened_code(library, "the plugin's library") as found:
        _require_digest(library, found.digest, digest)


def _require_digest(library: Path, found: str, digest: str) -> None:
    if found != digest:
        raise MismatchError(
            f"{library}: plugin (SHA-256): the library has {found[:12]}, the plan was built with "
            f"{digest[:12]}; put that one back, or build again"
        )


def load(owner: Any, library: Path, digest: str = "") -> None:
    """Make the library's plugin known to a builder or runtime of TensorRT, `owner`, for as long as that
    lives.

    TensorRT 8.5 has no registry of its own for each; there a library registers itself, once and for the whole
    process. With a `digest`, no other library is loaded; what was digested is what is loaded. Raises
    InputError for what is no library of this plugin, with the loader's reason where it gives one,
    MismatchError for one of another digest, or one that others may write (`sfiin.runtime.trust`).
    """
    if not library.is_file():
        raise InputError(
            f"{library}: the plugin's library cannot be read (no such file); build the plugin as "
            "export/plugin/README.md says"
        )
    registry = owner.get_plugin_registry() if hasattr(owner, "get_plugin_registry") else None
    with trust.opened_code(library, "the plugin's library") as found:
        name = str(found.name)
        if digest:
            _require_digest(library, found.digest, digest)
        try:
            if registry is None:
                ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
                found.loaded = True
                return
            ctypes.CDLL(name)  # TensorRT's registry says nothing of why it refuses a file
            found.loaded = True
            registry.load_library(name)  # None for a file that it refuses, as well as for one it has
        except OSError as error:
            raise InputError(
                f"{library}: cannot be loaded as a library: {' '.join(str(error).split())}"
            ) from None
    if not knows(registry):
        raise InputError(
            f"{library}: has no plugin {'::'.join(PLUGIN)} for this version of TensorRT; build it with its "
            "headers"
        )


def knows(registry: Any) -> bool:
    """Whether a registry has the plugin. TensorRT 10 asks by another name than 8."""
    domain, name = PLUGIN
    find = registry.get_creator if hasattr(registry, "get_creator") else registry.get_plugin_creator
    return find(name, VERSION, domain) is not None
