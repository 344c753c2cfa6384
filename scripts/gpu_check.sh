#!/usr/bin/env bash
# Everything that only a GPU can show, in under ten minutes and offline: golden values of all networks, mixed precision,
# compilation, speed and memory, one training that is interrupted and resumed, one by Rain200H's option file.
# Uses the python that is there (3.10 or newer, torch 2.6 or newer); the training is left out where BasicSR is missing.
# DEVICE=cpu tries the script itself; a processor compiles for longer than LIMIT=480 seconds allow.
set -uo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda} out=${OUT:-results/gpu_check} failed=0
mkdir -p "$out"
python - <<'PYTHON'
import platform, torch
gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
print(f"Python {platform.python_version()}, torch {torch.__version__}, {', '.join(gpus) or 'no GPU'}")
PYTHON

train_and_resume() (
    set -e
    root=$PWD gpus=auto
    [ "$device" = cpu ] && gpus=0
    cd "$folder"
    python "$root/scripts/make_demo_data.py"
    export PYTHONPATH=$root
    train=(python -m drsformer_arch.cli train -opt "$root/options/quickstart.yml" --force_yml "num_gpu=$gpus"
        train:total_iter=60 "train:scheduler:periods=[10, 50]" train:amp=bf16 val:val_freq=60
        logger:save_checkpoint_freq=20)
    "${train[@]}" &
    process=$!
    until [ -e experiments/quickstart/training_states/20.state ]; do
        kill -0 "$process"
        sleep 0.2
    done
    kill -INT "$process"
    code=0
    wait "$process" || code=$?
    [ "$code" = 75 ]  # stopped on request, its state saved
    timeout 120 "${train[@]}" --auto_resume
    [ -e experiments/quickstart/models/net_g_60.pth ]
    echo "interrupted (exit code 75), resumed, finished"
)

echo "== training, interrupted and resumed"
if python -c 'import drsformer_arch.plugin' 2>/dev/null; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    train_and_resume > "$out/training.log" 2>&1 || failed=1
    resumed=$(tail -n 1 "$out/training.log")
else
    resumed="training, interrupted and resumed: left out, BasicSR is not installed here"
fi
echo "$resumed"

echo "== correctness, compilation, speed, memory"
code=0
timeout "${LIMIT:-480}" python scripts/check_device.py --device "$device" --out "$out" --note "$resumed" || code=$?
[ "$code" = 124 ] && echo "the time was over (LIMIT=${LIMIT:-480} seconds); checks that are not listed were not reached"
[ "$code" = 0 ] || failed=1

echo "$out/gpu_check.json, $out/gpu_check.md"
[ "$failed" = 0 ] && echo "all checks passed" || echo "SOME CHECKS FAILED"
exit "$failed"
