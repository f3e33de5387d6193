#!/usr/bin/env bash
# Runs lowered cases, the peer and attention alone on one GPU, within a time limit.
#
#     benchmarks/gpu/run_lowered.sh CASES OUT SECONDS [CASE...]
#
# CASES is a folder of lower.py's folders, in the order of CASE; OUT gets results.jsonl and logs.
# Measurements hold a lock, so that none runs beside another; the peer compiles meanwhile.
# PYTHON, TORCH_ARGS, ATTENTION_ARGS and STEPS change what runs, for a trial on a CPU; an
# empty TORCH_ARGS or ATTENTION_ARGS leaves that part out.
set -uo pipefail
cases=$1 out=$2 limit=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
lock=$(mktemp) texts=$(mktemp -d)
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TORCHINDUCTOR_COMPILE_THREADS=6
left() { echo $((limit - SECONDS)); }

nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.draw --format=csv,noheader \
    >"$out/machine.txt" 2>&1
torch=
if [ -n "${TORCH_ARGS=--batches 8x1024 32x1024 64x1024 4x4096 --modes compiled eager}" ]; then
    # shellcheck disable=SC2086
    timeout "$limit" "$python" "$here/peer_torch.py" --lock "$lock" $TORCH_ARGS \
        >"$out/torch.log" 2>&1 &
    torch=$!
fi
first=$1
for case in "$@"; do
    [ "$(left)" -gt 30 ] || { echo "no time for $case" | tee -a "$out/lowered.log"; continue; }
    echo "== $case at $SECONDS s" >>"$out/lowered.log"
    flock "$lock" timeout "$(left)" "$python" "$here/run_lowered.py" "$cases/$case" \
        --steps "${STEPS:-30}" --text "$texts" --profile >>"$out/lowered.log" 2>&1
    code=$?
    if [ "$code" != 0 ] && [ "$case" = "$first" ]; then
        # Device time is dear: what fails at once fails again.
        echo "$case failed with exit code $code; the rest was not run"
        [ -z "$torch" ] || kill "$torch"
        tail -n 25 "$out/lowered.log" | cut -c1-1000
        exit 1
    fi
done
if [ -n "${ATTENTION_ARGS=--steps 20}" ] && [ "$(left)" -gt 20 ]; then
    # shellcheck disable=SC2086
    flock "$lock" timeout "$(left)" "$python" "$here/attention.py" $ATTENTION_ARGS \
        >"$out/attention.log" 2>&1
fi
[ -z "$torch" ] || wait "$torch"
tar -cf "$out/optimized_hlo.tar" -C "$texts" .
sed -n 's/^RESULT //p' "$out"/*.log >"$out/results.jsonl"
echo "took $SECONDS s"
wc -l <"$out/results.jsonl"
for log in "$out"/*.log; do
    echo "== $log"
    grep -v "^RESULT" "$log" | tail -n 5 | cut -c1-600 || true
done
