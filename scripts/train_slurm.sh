#!/usr/bin/env bash
# Train under Slurm, on one node or several, and go on by itself after preemption or the time limit.
#
#   sbatch --nodes=2 --gpus-per-node=4 --time=24:00:00 scripts/train_slurm.sh -opt options/train/DRSformer/Rain200H.yml
#   PROCESSES=4 sbatch --nodes=2 --cpus-per-task=32 scripts/train_slurm.sh -opt ...   # four processes on each CPU node
#   sbatch --array=0-1 --gpus-per-node=4 scripts/train_slurm.sh -opt first.yml second.yml    # task 0 trains the first
#
# Submit it from the folder that holds experiments/ and datasets/, with the environment active. PROCESSES: per node (one
# per GPU; one without GPUs); RESTARTS: how often a crash is answered by starting again in the same job (3).
#
# The first node checks the training, then all start it. Slurm sends SIGTERM two minutes before the time limit; the
# training saves, and the job is queued again, as it is where Slurm preempts it or a node fails. What is cancelled
# (scancel), a mistake (exit code 2) or crashes in all tries (1) is not.
#SBATCH --job-name=drsformer
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -uo pipefail
# A task of an array by both numbers: the plain number of its last one means all of them.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
arguments=()
while [ $# -gt 0 ]; do
    arguments+=("$1")
    shift
    [ "${arguments[-1]}" = -opt ] || continue
    files=()
    while [ $# -gt 0 ] && [[ $1 != -* ]]; do
        files+=("$1")
        shift
    done
    if [ ${#files[@]} -gt 1 ]; then
        if [ -z "${files[${SLURM_ARRAY_TASK_ID:-${#files[@]}}]-}" ]; then
            echo "error: ${#files[@]} option files: give sbatch --array=0-$((${#files[@]} - 1)), one task for each" >&2
            exit 2
        fi
        files=("${files[SLURM_ARRAY_TASK_ID]}")
    fi
    [ ${#files[@]} = 0 ] || arguments+=("${files[0]}")
done
set -- "${arguments[@]}"
export NODES=$SLURM_JOB_NUM_NODES
export JOB=$SLURM_JOB_ID
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # which srun does not take over since 22.05
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-auto}}
# A port of this job, so that jobs which share a node do not meet.
MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((20000 + SLURM_JOB_ID % 10000))
export MASTER

stopped=
training=
# A job that is being cancelled is not RUNNING any more; one that Slurm preempts is queued again by Slurm itself.
state() { squeue --noheader --format=%T --jobs="$job" 2>/dev/null; }
stop() { # the signal reaches this script only; the processes save and end when they get it
    stopped=yes
    [ -z "$training" ] && return
    for _ in 1 2 3 4 5; do # the step may only just begin
        [ "$(state)" = RUNNING ] || return # Slurm ends the job, and has told the step itself
        scancel --signal=TERM "$job.0" && return
        sleep 1
    done
}
trap stop TERM
await() { # a signal ends a wait, not what is waited for
    while kill -0 "$1" 2>/dev/null; do
        wait "$1"
    done
    code=0
    wait "$1" || code=$?
}

drsformer train "$@" --processes "$processes" --auto_resume --check &
await $!
if [ "$code" = 0 ] && [ -z "$stopped" ]; then
    # --wait: where one node's task is lost, the others end a minute later.
    CHECK=no srun --wait=60 drsformer train "$@" --processes "$processes" --auto_resume &
    training=$!
    await $training
elif [ "$code" = 0 ]; then
    code=75
fi
if [ -n "$stopped" ] && [ "$code" != 0 ] && [ "$code" != 2 ] && [ "$(state)" = RUNNING ]; then
    scontrol requeue "$job" && exit 0
fi
[ "$code" -lt 128 ] || code=1 # killed
exit "$code"
