"""How does a person, or a script, learn what this machine can do? `sfiin doctor`."""

from __future__ import annotations

from typing import Any

from runtime.console import print_json, print_table
from runtime.options import Json, Quiet


def doctor(*, as_json: Json = False, quiet: Quiet = False) -> None:
    """Say what this machine can do, and how to get what it lacks."""
    from runtime.machine import survey

    facts = survey()
    if as_json:
        print_json(facts)
    elif not quiet:
        _print(facts)


def _print(facts: dict[str, Any]) -> None:
    python, system, cuda = facts["python"], facts["system"], facts["cuda"]
    print_table(
        "Machine",
        [
            ("Python", f"{python['version']} ({python['executable']})"),
            ("system", system["platform"]),
            ("CPUs", system["cpus"]),
            ("Jetson", system["jetson"] or "no"),
            ("CUDA", cuda["why"] or f"{cuda['version']}: {', '.join(cuda['devices'])}"),
        ],
    )
    print_table("Packages", [*facts["packages"].items(), *facts["tensorrt"].items()])
    backends = [(name, "yes" if it["usable"] else "no", it["why"] or "") for name, it in facts["backends"].items()]
    print_table("Backends of 'sfiin run'", backends, ("provider", "usable", "why not"))
    print_table("Fourier transforms of a model", facts["fourier"].items())
    models = [(it["file"], it.get("why") or f"{it['sensor']}: {it['bands']} bands, ratio {it['ratio']}")
              for it in facts["models"]]  # fmt: skip
    print_table("Shipped models", models or [("none", "give 'sfiin run' one with --model")])
    extras = [(name, ", ".join(it["missing"]) or "complete", it["install"] or "")
              for name, it in facts["extras"].items()]  # fmt: skip
    print_table("Extras", extras, ("extra", "missing", "to install"))
