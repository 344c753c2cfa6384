#!/usr/bin/env bash
# Train with one process per GPU, on one machine or several; after a crash of one process all start again and resume.
#
#   scripts/train_distributed.sh -opt options/train/DRSformer/Rain200H.yml
#   NODES=2 MASTER=gpu01 scripts/train_distributed.sh -opt ...        # the same on both machines, MASTER is one of them
#
# PROCESSES: per machine (all GPUs); NODES: machines (1); MASTER: host and port where they meet (localhost, 29500);
# RESTARTS: how often a crash is answered by starting again (3). All machines need the same files under the same paths.
# A mistake in the options (exit code 2) is not tried again.
# Ctrl-C and SIGTERM save and end with a code other than 0; the same command goes on.
set -euo pipefail
processes=${PROCESSES:-gpu}
nodes=${NODES:-1}
master=${MASTER:-localhost}
case $master in *:*) ;; *) master=$master:29500 ;; esac
meeting=(--rdzv_backend c10d --rdzv_endpoint "$master" --rdzv_id "${JOB:-drsformer}")
if [ "$nodes" = 1 ] && [ -z "${MASTER:-}" ]; then
    meeting=(--standalone) # a free port: several jobs on one machine do not meet
fi
DRSFORMER_GIVEN_UP=$(mktemp -u) # made by the command after a mistake: all further tries end at once
export DRSFORMER_GIVEN_UP
exec torchrun --nnodes "$nodes" --nproc_per_node "$processes" "${meeting[@]}" --max_restarts "${RESTARTS:-3}" \
    --no-python drsformer train "$@" --launcher pytorch --auto_resume
