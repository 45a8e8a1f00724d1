#!/usr/bin/env bash
# The plugin's kernels on a GPU, in one call: correct on fresh random inputs, clean under compute-sanitizer, and timed.
#
#     tests/gpu/plugin.sh [-o benchmarks/plugin-NAME.json]
#
# Needs a GPU, nvcc, PyTorch with CUDA and cuda-bindings; compute-sanitizer is left out, and said so, where it is not.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"
if command -v compute-sanitizer > /dev/null; then
    compute-sanitizer --error-exitcode 1 "$python" -c "
import sys
sys.path.insert(0, 'benchmarks')
import plugin
print({kind: plugin.error_of(kind) for kind in plugin.GATES})"
else
    echo "compute-sanitizer is not installed: left out"
fi
exec "$python" benchmarks/plugin.py "$@"
