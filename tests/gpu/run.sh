#!/usr/bin/env bash
# All that only a GPU can tell, in one call, with whatever TensorRT is there:
#
#     tests/gpu/run.sh [--imagery DIR] [--plugin build/plugin/libsfiin_plugin.so] [--output benchmarks/gpu-NAME.json]
#
# Needs sfiin with the extra 'jetson' or 'gpu', TensorRT or TensorRT for RTX, and cuda-bindings or pycuda. Without the
# extra 'export', as on a bare Jetson, it takes the shipped models, in fp32. What is missing is said and left out; the
# exit code is 1 when a step failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" tests/gpu/measure.py "$@"
