#!/usr/bin/env bash
# Builds pycuda, and fetches cuda-bindings of CUDA 12, for test_driver.py: minutes, once.
#
#     tests/runtime/backends/driver/prepare.sh [FOLDER]     # default: ~/.cache/sfiin-tests
#
# Needs g++, nvcc and cuda.h (a CUDA toolkit), and the package index. $PYTHON is what the tests will run in.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/sfiin-tests}
python=${PYTHON:-python3}
tag=$("$python" -c 'import sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}")')
cuda=${CUDA_HOME:-/usr/local/cuda}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip install -q --no-deps --target "$work/bindings" 'cuda-bindings==12.8.*'

# pycuda links libcuda; the stand-in will do, as later when it runs.
mkdir "$work/driver"
g++ -std=c++17 -shared -fPIC -I"$cuda/include" "$here/driver.cpp" -o "$work/driver/libcuda.so" -Wl,-soname,libcuda.so.1 -ldl
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -q setuptools wheel "numpy==$("$python" -c 'import numpy; print(numpy.__version__)')"
"$work/venv/bin/pip" download -q --no-deps --no-binary :all: --no-build-isolation pycuda==2026.1 -d "$work"
tar -xf "$work"/pycuda-*.tar.gz -C "$work"
cd "$work"/pycuda-*/
export PATH="$cuda/bin:$PATH" CFLAGS="-O0 -g0" CXXFLAGS="-O0 -g0"
"$work/venv/bin/python" configure.py --cuda-root="$cuda" --no-cuda-enable-curand --cudadrv-lib-dir="$work/driver"
"$work/venv/bin/pip" install -q --no-deps --no-build-isolation --target "$work/pycuda" .
"$work/venv/bin/pip" install -q --target "$work/pycuda" pytools platformdirs mako

mkdir -p "$folder"
for what in bindings pycuda; do
    rm -rf "${folder:?}/$what-$tag"
    mv "$work/$what" "$folder/$what-$tag"
done
echo "$folder: bindings-$tag and pycuda-$tag"
