#!/usr/bin/env bash
# Train under Slurm, on one node or several, and go on by itself after preemption or the time limit.
#
#   sbatch --nodes=2 --gpus-per-node=4 --time=24:00:00 scripts/train_slurm.sh -opt options/train/DRSformer/Rain200H.yml
#   PROCESSES=4 sbatch --nodes=2 --cpus-per-task=32 scripts/train_slurm.sh -opt ...   # four processes on each CPU node
#
# Submit it from the folder that holds experiments/ and datasets/, with the environment active. PROCESSES: per node (one
# per GPU; one without GPUs); RESTARTS: how often a crash is answered by starting again in the same job (3).
#
# Slurm sends SIGTERM two minutes before the time limit; the training saves, and the job is queued again, as it is where
# Slurm preempts it or a node fails. What is cancelled (scancel), wrong (exit code 2) or crashes in all tries (1) is not.
#SBATCH --job-name=drsformer
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -uo pipefail
# A task of an array by both numbers: the plain number of the last one means all of them.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
export NODES=$SLURM_JOB_NUM_NODES
export JOB=$SLURM_JOB_ID
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # which srun does not take over since 22.05
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-auto}}
# A port of this job, so that jobs which share a node do not meet.
MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((20000 + SLURM_JOB_ID % 10000))
export MASTER

stopped=
training=
# The signal reaches this script only; the processes save and end when they get it.
trap 'stopped=yes; [ -z "$training" ] || scancel --signal=TERM "$job.0"' TERM
# --wait: where one node's task is lost, the others end a minute later.
srun --wait=60 drsformer train "$@" --processes "$processes" --auto_resume &
training=$!
while kill -0 "$training" 2>/dev/null; do # a signal ends a wait, not the training
    wait "$training"
done
code=0
wait "$training" || code=$?
state=$(squeue --noheader --format=%T --jobs="$job" 2>/dev/null)
# A job that is being cancelled is not RUNNING any more; one that Slurm preempts is queued again by Slurm itself.
if [ -n "$stopped" ] && [ "$code" != 0 ] && [ "$code" != 2 ] && [ "$state" = RUNNING ]; then
    scontrol requeue "$job" && exit 0
fi
[ "$code" -lt 128 ] || code=1 # killed
exit "$code"
