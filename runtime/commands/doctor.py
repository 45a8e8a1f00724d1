"""How does a person, or a script, learn what this machine can do? `sfiin doctor`."""

from __future__ import annotations

from typing import Any

from sfiin.runtime.commands.console import print_json, print_table
from sfiin.runtime.commands.options import Json, Quiet


def doctor(*, as_json: Json = False, quiet: Quiet = False) -> None:
    """Say what this machine can do, and how to get what it lacks."""
    from sfiin.runtime.backends.machine import survey

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
    if found := facts["jetpack"]:
        print_table("JetPack", found.items())
    print_table("Packages", [*facts["packages"].items(), *facts["tensorrt"].items()])
    backends = [
        (name, "yes" if backend["usable"] else "no", backend["why"] or "")
        for name, backend in facts["backends"].items()
    ]
    chosen = next((name for name in ("cuda", "native") if facts["backends"][name]["usable"]), "cpu")
    print_table(
        f"Backends of 'sfiin run' for models (.onnx); here it takes {chosen}",
        backends,
        ("provider", "usable", "why not"),
    )
    plans = [
        (name, "yes" if plan["usable"] else "no", plan["library"] or "", plan["why"] or "")
        for name, plan in facts["plans"].items()
    ]
    print_table("Backends of 'sfiin run' for plans", plans, ("flavour", "usable", "library", "why not"))
    print_table("Fourier transforms of a model", facts["fourier"].items())
    models = [
        (
            model["file"],
            model.get("why") or f"{model['sensor']}: {model['bands']} bands, ratio {model['ratio']}",
            "" if model.get("why") else model.get("not_native") or "known",
        )
        for model in facts["models"]
    ]
    print_table(
        "Shipped models",
        models or [("none", "give 'sfiin run' one with --model", "")],
        ("model", "sensor", "to the native kernels"),
    )
    extras = [
        (name, ", ".join(extra["missing"]) or "complete", extra["install"] or "")
        for name, extra in facts["extras"].items()
    ]
    print_table("Extras", extras, ("extra", "missing", "to install"))
