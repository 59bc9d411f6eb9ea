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
from chaos import SCALE, content


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_runs_out_of_time_is_queued_again_and_goes_on(tmp_path: Path, cache: Path, number: signal.Signals):
    cluster, runs = tmp_path / "bin", tmp_path / "runs"
    cluster.mkdir()
    (cluster / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')
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

    job = submit(60)
    deadline = time.monotonic() + 100
    while not list(runs.glob("*/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(job.pid, number)  # the batch script's shell alone, as --signal=B: does
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 75, output
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    [record] = [path.parent for path in runs.glob("*/status.json")]
    assert json.loads((record / "status.json").read_text())["state"] == "PREEMPTED"
    rows = (record / "metrics.csv").read_bytes()
    job = submit(60)
    output, _ = job.communicate(timeout=100)
    assert job.returncode == 0, output
    assert [path.parent for path in runs.glob("*/status.json")] == [record]
    assert content(record)["metrics.csv"].startswith(rows)
    assert json.loads((record / "status.json").read_text())["attempt"] == 2
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"  # once
