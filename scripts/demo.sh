#!/usr/bin/env bash
# Everything once, on a CPU in minutes: draws rain on photographs, builds LMDB, derains with the weights that come with
# the package, trains a small DRSformer through BasicSR, interrupts and resumes it, tests it, prints a table and writes a
# picture rainy | DRSformer-S | the small one | clean.
# --short: a few iterations only, to see that everything runs; the result is not judged.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
--short) short=yes ;;
"") short= ;;
*) echo "usage: $0 [--short]" >&2; exit 2 ;;
esac
source scripts/setup_env.sh
setup_env

options=()
stop_at=300
if [ -n "$short" ]; then
    options=(--force_yml train:total_iter=40 "train:scheduler:periods=[10, 30]" val:val_freq=40
        logger:print_freq=10 logger:save_checkpoint_freq=10)
    stop_at=20
fi

echo "== 1/6 data: rain on photographs, LMDB"
python scripts/make_demo_data.py

echo "== 2/6 derain with DRSformer-S, the weights that come with the package"
drsformer derain datasets/quickstart/test/input -o results/quickstart_DRSformer-S --overwrite
drsformer evaluate results/quickstart_DRSformer-S datasets/quickstart/test/target \
    --input datasets/quickstart/test/input --protocol rain200

echo "== 3/6 training, interrupted after iteration $stop_at"
states=experiments/quickstart/training_states
if [ -e experiments/quickstart ]; then
    mv experiments/quickstart "experiments/quickstart_archived_$(date +%Y%m%d_%H%M%S)"
fi
drsformer train -opt options/quickstart.yml "${options[@]}" &
training=$!
trap 'kill $training 2>/dev/null || true' EXIT
until [ -e "$states/$stop_at.state" ]; do
    kill -0 "$training" 2>/dev/null || { wait "$training" || true; echo "error: the training ended early" >&2; exit 1; }
    sleep 0.2
done
kill -INT "$training"
code=0
wait "$training" || code=$?
trap - EXIT
if [ "$code" != 75 ]; then
    echo "error: the interrupted training ended with exit code $code instead of 75" >&2
    exit 1
fi

echo "== 4/6 training, resumed"
drsformer train -opt options/quickstart.yml --auto_resume "${options[@]}"

echo "== 5/6 test"
drsformer test -opt options/quickstart_test.yml --report results/quickstart.html

echo "== 6/6 result"
python scripts/show_demo_results.py ${short:+--do-not-judge}
