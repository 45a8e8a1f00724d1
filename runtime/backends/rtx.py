"""How does TensorRT for RTX run a plan without compiling it anew in each process?

Its plans hold kernels half done, which are finished for the card when they are first wanted. Told so by a
runtime configuration it does that for each shape before the first run rather than behind it (until then it
would run fallback kernels), keeps what it made in a cache, and captures CUDA graphs by itself, once the right
kernels are there. So there is no capture of ours. The cache is a file in the user's cache folder, one for
each plan, card and version.
"""

from __future__ import annotations

from typing import Any

from sfiin.runtime import trust
from sfiin.runtime.errors import InputError, MismatchError, OutputError
from sfiin.runtime.files import cache_folder, publish


class Kernels:
    """An engine's execution context, and the cache of the kernels that were compiled for it.

    `trt` is the library's module, `key` names plan, card and version; `graphs`: whether the library may
    capture CUDA graphs. `context` is None where the library makes none. `notes` gets what the user should
    know.
    """

    def __init__(self, trt: Any, engine: Any, key: str, notes: list[str], *, graphs: bool) -> None:
        self._file = cache_folder() / f"kernels-{key}.cache"
        self._notes = notes
        config = engine.create_runtime_config()
        strategy = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self._cache = config.create_runtime_cache()
        self._saved = self._read()
        config.set_runtime_cache(self._cache)
        self.context = engine.create_execution_context(config)

    def save(self) -> None:
        """Write the cache if there is something new in it; what cannot be written is noted, once."""
        serialized = self._cache.serialize()
        data = bytes(memoryview(serialized)) if serialized is not None else b""
        if data in (self._saved, b""):
            return
        self._saved = data
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with publish(self._file) as part:
                part.write_bytes(data)
        except (OSError, OutputError) as error:
            note = f"compiled kernels cannot be kept for the next process: {error}"
            self._notes.extend([note] if note not in self._notes else [])

    def _read(self) -> bytes:
        """What was kept, given to the cache; nothing where there is none, or it is not to be trusted or of
        use."""
        if not self._file.is_file():
            return b""
        try:
            with trust.opened_code(self._file, "the cache of compiled kernels") as found:
                data = found.name.read_bytes()
        except (InputError, MismatchError) as error:
            self._notes.append(f"compiled anew: {error}")
            return b""
        return data if self._cache.deserialize(data) else b""
