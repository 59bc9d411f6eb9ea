"""The job script under a cluster that is made of two small scripts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alexlab.config import PROJECT_DIR
from support.commands import begin, descendants, finish, halted, is_sent, statuses, until
from support.records import SCALE, content


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "state"),
    [(signal.SIGUSR1, "RUNNING"), pytest.param(signal.SIGTERM, "COMPLETING", marks=pytest.mark.long)],
)
def test_a_job_out_of_time_or_preempted_is_queued_again_and_goes_on_and_a_cancelled_one_not(
    tmp_path: Path, cache: Path, number: signal.Signals, state: str
):
    cluster, runs = tmp_path / "bin", tmp_path / "runs"
    cluster.mkdir()
    (cluster / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (cluster / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/state\n")
    (tmp_path / "state").write_text(state)
    (cluster / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    for script in cluster.iterdir():
        script.chmod(0o755)
    environment = {
        **{"PATH": f"{cluster}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(PROJECT_DIR)},
        **{"PYTHON": sys.executable, "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "alexlab", "OMP_NUM_THREADS": "1"},
    }

    def submit() -> subprocess.Popen[str]:
        line = [*SCALE, "trainer.max_epochs=10", f"data.cache={cache}", f"paths.runs={runs}"]
        return begin(["bash", str(PROJECT_DIR / "docs" / "slurm.sh"), *line], environment)

    job = submit()
    with halted(job, runs) as [trainer]:
        # A signal of --signal=B: is for the batch script's shell alone; SLURM's own are for the command, too.
        for pid in [job.pid, *(descendants(job.pid)[:1] if number == signal.SIGTERM else [])]:
            os.kill(pid, number)
        until(lambda: is_sent(trainer, signal.SIGTERM), job)
    status, output = finish(job)
    assert status == 75, output
    queued = [path.read_text() for path in tmp_path.glob("requeued")]
    assert queued == (["requeue 77\n"] if state == "RUNNING" else [])
    [record] = [path.parent for path in runs.glob("*/status.json")]
    assert statuses(runs) == [("PREEMPTED", 1)]
    rows = (record / "metrics.csv").read_bytes()
    status, output = finish(submit())
    assert status == 0, output
    assert statuses(runs) == [("DONE", 2)]
    assert content(record)["metrics.csv"].startswith(rows)
    assert [path.read_text() for path in tmp_path.glob("requeued")] == queued
