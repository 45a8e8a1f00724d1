"""What runs inside Triton's Python backend? sfiin's own session, held against its golden tiles first.

Triton imports the class by `model.py` of the repository and calls it in a process of its own, with sfiin on
its path.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sfiin.runtime import golden
from sfiin.runtime.backends.select import open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.backends.triton_repository import DIGEST, SERVED
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.errors import MismatchError
from sfiin.runtime.files import sha256


class Model:
    """A Triton Python model (`TritonPythonModel`) of one artefact."""

    _session: Session

    def initialize(self, args: dict[str, str]) -> None:
        """Open the artefact beside `model.py`. Whatever is raised keeps the model from being ready, and says
        why."""
        parameters = {
            key: value["string_value"]
            for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        artefact = Path(args["model_repository"]) / args["model_version"] / parameters[SERVED]
        if sha256(artefact) != parameters[DIGEST]:
            raise MismatchError(
                f"{artefact}: is not the artefact that config.pbtxt was written for; write it again"
            )
        self._session = open_session(artefact, threads=int(parameters.get("threads", "1")))
        contract = self._session.contract
        tiles = golden.read(golden.beside(artefact), contract)
        made = tiles.through(self._session.run)
        distance = parity(tiles.names, made, tiles.hrms, float(contract.sensor.peak))
        distance.require(GATES[contract.precision], str(artefact), "the model is not served")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, each a batch of tiles; those that wait together go through the session at once."""
        pb_utils = import_module("triton_python_backend_utils")
        batches = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("ms", "pan")]
            for request in requests
        ]
        ms, pan = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        hrms = self._session.run(ms, pan)
        ends = np.cumsum([len(batch[0]) for batch in batches])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("hrms", part)]) for part in np.split(hrms, ends)]

    def finalize(self) -> None:
        """Close the session, when the server unloads the model."""
        self._session.close()
