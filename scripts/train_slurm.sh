#!/usr/bin/env bash
# Train under Slurm, on one node or several, and go on by itself after preemption or the time limit.
#
#   sbatch --nodes=2 --gpus-per-node=4 scripts/train_slurm.sh -opt options/train/DRSformer/Rain200H.yml
#
# Submit it from the folder that holds experiments/ and datasets/, with the environment active. Slurm sends SIGTERM two
# minutes before the end; the training saves, and the job is queued again. One torchrun per node starts its processes.
#SBATCH --job-name=drsformer
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -uo pipefail
export NODES=$SLURM_NNODES
export PROCESSES=${SLURM_GPUS_ON_NODE:-gpu}
export JOB=$SLURM_JOB_ID
MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER
srun bash "$SLURM_SUBMIT_DIR/scripts/train_distributed.sh" "$@" &
training=$!
stopped=
# The signal reaches this script only; the processes save and end when they get it.
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM
code=0
wait "$training" || code=$?
if [ -n "$stopped" ]; then
    wait "$training" # ends when everything is saved
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
