#!/usr/bin/env bash
# The data of DRSformer-S: three training sets and photographs of installed packages, split by scene, as raw stores.
#
#   scripts/prepare_drsformer_s.sh Downloads/Rain100L/train Downloads/Rain800/train Downloads/Rain200H/train
#
# Everything goes to datasets/DRSformer-S; stopped, it goes on where it was. Scenes that our pictures have stay in the
# part in which they were (options/DRSformer-S/scenes.json); of others about one in ten is for validation.
set -euo pipefail
[ $# = 3 ] || { echo "usage: $0 RAIN100L RAIN800 RAIN200H (folders or archives of the training pairs)" >&2; exit 2; }
cd "$(dirname "$0")/.."
out=datasets/DRSformer-S
sets=()
for named in rain100l="$1" rain800="$2" rain200h="$3"; do
    set=${named%%=*}
    drsformer prepare "$set" "${named#*=}" -o "$out/whole/$set" --split train
    sets+=("$set=$out/whole/$set/train")
done
python scripts/package_photographs.py "$out/whole/photographs"
drsformer split-scenes "${sets[@]}" --clean "photographs=$out/whole/photographs" \
    --keep options/DRSformer-S/scenes.json --save "$out/scenes.json" -o "$out/split"
for set in rain100l rain800 rain200h; do
    drsformer prepare pairs "$out/split/$set/train" -o "$out/$set" --split train --lmdb raw
    drsformer prepare pairs "$out/split/$set/val" -o "$out/$set" --lmdb raw
done
