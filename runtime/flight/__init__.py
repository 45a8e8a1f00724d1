"""Inference where nobody is there: sealed bundles, slots that roll back by themselves, telemetry in
packets."""
