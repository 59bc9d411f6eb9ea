"""The job script under a cluster that is made of two small scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexlab.config import PROJECT_DIR
from chaos import SCALE, content, descendants


@pytest.mark.slow
@pytest.mark.parametrize(("number", "state"), [(signal.SIGUSR1, "RUNNING"), (signal.SIGTERM, "COMPLETING")])
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
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "ALEXLAB"))}
    environment = {
        **kept,
        **{"PATH": f"{cluster}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(PROJECT_DIR)},
        **{"PYTHON": sys.executable, "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "alexlab", "OMP_NUM_THREADS": "1"},
    }

    def submit(epochs: int) -> subprocess.Popen[str]:
        line = [*SCALE, f"trainer.max_epochs={epochs}", f"data.cache={cache}", f"paths.runs={runs}"]
        return subprocess.Popen(
            ["bash", str(PROJECT_DIR / "docs" / "slurm.sh"), *line],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    job = submit(30)
    deadline = time.monotonic() + 100
    while not list(runs.glob("*/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # A signal of --signal=B: is for the batch script's shell alone; SLURM's own are for the command, too.
    for pid in [job.pid, *(descendants(job.pid)[:1] if number == signal.SIGTERM else [])]:
        os.kill(pid, number)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 75, output
    queued = [path.read_text() for path in tmp_path.glob("requeued")]
    assert queued == (["requeue 77\n"] if state == "RUNNING" else [])
    [record] = [path.parent for path in runs.glob("*/status.json")]
    assert json.loads((record / "status.json").read_text())["state"] == "PREEMPTED"
    rows = (record / "metrics.csv").read_bytes()
    job = submit(30)
    output, _ = job.communicate(timeout=100)
    assert job.returncode == 0, output
    assert [path.parent for path in runs.glob("*/status.json")] == [record]
    assert content(record)["metrics.csv"].startswith(rows)
    assert json.loads((record / "status.json").read_text())["attempt"] == 2
    assert [path.read_text() for path in tmp_path.glob("requeued")] == queued
