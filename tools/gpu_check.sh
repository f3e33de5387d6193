#!/bin/sh
# Checks the Trainer on one NVIDIA GPU in under nine minutes and prints one JSON.
#
#     tools/gpu_check.sh [--chip NAME] [--torch-python PYTHON] [--seconds N] > gpu.json
#     tools/gpu_check.sh --dry-run          two narrow layers on a CPU: tries the script itself
#
# NAME is the GPU's in data/catalog (h200, a100-sxm4-80gb ...): forecasts and MFU are of that chip.
# PYTHON has PyTorch, for the comparison; it cannot be TensorFlow's environment.
# The environment is .venv (or TOKENMILL_PYTHON) with the CUDA libraries of its stack's lock:
#
#     .venv/bin/pip install --no-deps --require-hashes -r requirements-gpu.lock
#
# (requirements-py310-gpu.lock on the py310 stack). Where there is no network, bring the wheels and
# add --no-index --find-links FOLDER.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${TOKENMILL_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$python" ]; then
    echo "gpu_check: $python is not there: expected the project's Python; run make setup." >&2
    exit 2
fi
# TensorFlow 2.16 does not look for CUDA's libraries among the installed packages.
libraries=$("$python" -c 'import glob, sysconfig
print(":".join(sorted(glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/lib"))))')
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PYTHONPATH="$root:$root/benchmarks/gpu" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
exec "$python" "$root/benchmarks/gpu/check.py" "$@"
