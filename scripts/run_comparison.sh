#!/usr/bin/env bash
# The comparison of docs/comparison.md: trains eight networks equally, one after the other, then compares them.
#
#   scripts/prepare_drsformer_s.sh Downloads/Rain100L/train Downloads/Rain800/train Downloads/Rain200H/train
#   scripts/run_comparison.sh
#
# Stopped, it goes on where it was when it is started again. NETWORKS="DRSformer IDT" trains those alone, SEEDS=2 with
# that seed; tables and figures are of all that are done.
# Arguments change options of all trainings, to try it: scripts/run_comparison.sh train:total_iter=4 val:val_freq=4
set -euo pipefail
cd "$(dirname "$0")/.."
data=datasets/DRSformer-S
out=results/comparison  # NAME/: what a training came to, which may come from other machines
[ -d "$data/rain200h/test.lmdb" ] || { echo "no data in $data; see scripts/prepare_drsformer_s.sh" >&2; exit 2; }
for network in ${NETWORKS:-DRSformer Restormer IDT SPDNet DualGCN NeRDRain SFHformer FADformer}; do
    seeds=1
    case $network in DRSformer | Restormer) seeds="1 2" ;; esac
    for seed in ${SEEDS:-$seeds}; do
        name=comparison_${network}_seed$seed
        [ -e "$out/$name/regions.png" ] && continue
        echo "== $name"
        drsformer train -opt "options/comparison/$network.yml" --auto_resume \
            --force_yml "name=$name" "manual_seed=$seed" "$@"
        python scripts/comparison_results.py keep "$name" --data "$data" -o "$out"
    done
done
python scripts/comparison_results.py join "$out" -o "$out"
