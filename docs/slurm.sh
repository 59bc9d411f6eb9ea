#!/usr/bin/env bash
# Run a sweep, or one run, as one SLURM job that resumes after the time limit and after preemption:
#
#   sbatch --gres=gpu:1 --time=12:00:00 docs/slurm.sh -m recipe=imagenet128 ablation=none,no_lrn seed=0,1,2
#
# Two minutes before the limit, and at preemption, the run under way is saved and the command ends with status 75; the
# job is then requeued and runs the same command again. scancel also saves the run, and ends the job.
# Submit it several times to share the work; hydra/launcher=slurm is one job for each run instead (docs/how-to/slurm.md).
#SBATCH --job-name=alexlab
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --ntasks=1
set -uo pipefail

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" || exit 1
srun --ntasks=1 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
    "${PYTHON:-.venv/bin/python}" src/train.py "$@" &
step=$!
trap 'kill -USR1 "$step"' USR1 # srun passes it on
trap : TERM                    # SLURM sends it to the command as well, and twice would end it without saving
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends the wait, not the command
    wait "$step"
    status=$?
done
case "$status" in
75 | 138 | 143) # 138 and 143: it was hit before Python could listen
    # Else SLURM has cancelled it, or queues it again itself.
    if [ "$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID")" = RUNNING ]; then scontrol requeue "$SLURM_JOB_ID"; fi
    ;;
esac
exit "$status"
