#!/bin/sh
# Measure the engine on this machine's GPU: sh infra/bench/gpu.sh FOLDER [option of tests.bench.engine ...]
#
# For a machine that has Python, PyTorch with CUDA, and no network. What else it lacks is installed from
# build/wheels, beside the system's packages and not among them. Results go to FOLDER. No level is begun that
# would end after nine minutes.
set -eu
out=$1
shift
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
if [ -n "$(find build/wheels -name '*.whl' 2>/dev/null)" ]; then
    site=$(mktemp -d)
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" build/wheels/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "$python" -m tests.bench.engine --checkpoint published --limit 540 --out "$out" "$@"
