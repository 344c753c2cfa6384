#!/usr/bin/env bash
# Train with one process per GPU, on one machine or several; after a crash of one process all start again and resume.
#
#   scripts/train_distributed.sh -opt options/train/DRSformer/Rain200H.yml
#   NODES=2 MASTER=gpu01 scripts/train_distributed.sh -opt ...        # the same on both machines, MASTER is one of them
#
# PROCESSES: per machine (one per GPU; one without GPUs); NODES: machines (1); MASTER: host, or host and port, where they
# meet; JOB: a name, for several jobs that meet at one place; RESTARTS: how often a crash is answered by starting again
# (3); CHECK=no: start without checking first. All machines need the same files under the same paths.
#
# Ctrl-C and SIGTERM save, however long that takes; the same command goes on. Exit codes: 0 done, 75 stopped, 2 a mistake,
# which is not tried again, 1 anything else.
set -euo pipefail
exec drsformer train "$@" --processes "${PROCESSES:-auto}" --auto_resume
