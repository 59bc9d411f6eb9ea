#!/usr/bin/env bash
# A sweep, or one run, on a SLURM cluster, that goes on after preemption and after the time limit:
#
#   sbatch --gres=gpu:1 --time=12:00:00 docs/slurm.sh -m recipe=imagenet128 ablation=none,no_lrn seed=0,1,2
#
# Two minutes before the limit, and at preemption, the run under way is saved and the command ends with status 75; the
# job is then put back into the queue and types the same line again. Submit it several times to share the work.
#SBATCH --job-name=alexlab
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --ntasks=1
set -uo pipefail

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" || exit 1
srun --ntasks=1 "${PYTHON:-.venv/bin/python}" src/train.py "$@" &
step=$!
# srun passes a SIGUSR1 on to the command; a SIGTERM it would end it with, so the command is sent the other signal.
trap 'kill -USR1 "$step"' USR1 TERM
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends the wait, not the command
    wait "$step"
    status=$?
done
case "$status" in
75 | 138 | 143) scontrol requeue "$SLURM_JOB_ID" ;; # 138 and 143: it was hit before Python could listen
esac
exit "$status"
