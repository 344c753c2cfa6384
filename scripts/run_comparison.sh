#!/usr/bin/env bash
# The comparison of docs/comparison.md: trains eight networks equally, one after the other, then compares them.
#
#   scripts/prepare_drsformer_s.sh Downloads/Rain100L/train Downloads/Rain800/train Downloads/Rain200H/train
#   scripts/run_comparison.sh
#
# Stopped, it goes on where it was when it is started again. NETWORKS="DRSformer IDT" trains and compares those alone.
# Arguments change options of all trainings, to try it: scripts/run_comparison.sh train:total_iter=4 val:val_freq=4
set -euo pipefail
cd "$(dirname "$0")/.."
data=datasets/DRSformer-S
out=results/comparison
[ -d "$data/rain200h/test.lmdb" ] || { echo "no data in $data; see scripts/prepare_drsformer_s.sh" >&2; exit 2; }
trained=()
experiments=()
for network in ${NETWORKS:-DRSformer Restormer IDT SPDNet DualGCN NeRDRain SFHformer FADformer}; do
    seeds=1
    case $network in DRSformer | Restormer) seeds="1 2" ;; esac
    for seed in $seeds; do
        name=comparison_${network}_seed$seed
        echo "== $name"
        drsformer train -opt "options/comparison/$network.yml" --auto_resume \
            --force_yml "name=$name" "manual_seed=$seed" "$@"
        trained+=("$network=experiments/$name/models/net_g_latest.pth")
        experiments+=("experiments/$name")
    done
done
drsformer plot "${experiments[@]}" -o "$out/training.png"
drsformer compare "${trained[@]}" --protocol rain200 --data "Rain100L=$data/rain100l/test.lmdb" \
    "Rain800=$data/rain800/test.lmdb" "Rain200H=$data/rain200h/test.lmdb" -o "$out" --report "$out/comparison.html"
