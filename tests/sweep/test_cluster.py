"""A real SLURM: sweeps as job arrays, preemption, time limits, cancelling. `make test-all` runs these tests."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexlab.config import PROJECT_DIR
from support.commands import TRAIN, finish, living, run, start, statuses, under_way, until
from support.records import contents
from support.settings import TINY
from support.slurm import MISSING, said, slurm

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        MISSING != [], reason=f"no {', '.join(MISSING)}: apt install slurmctld slurmd slurm-client munge"
    ),
]
LONG = "trainer.max_epochs=200"


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with slurm() as environment:
        yield environment


@pytest.fixture(autouse=True)
def _empty_queue(cluster: dict[str, str]):
    yield
    until(lambda: not queue(cluster))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict:
    """What the runs leave that the tests below disturb."""
    runs = tmp_path_factory.mktemp("undisturbed")
    status, output = run(["-m", "seed=0,1,2", *TINY, LONG, f"data.cache={cache}", f"paths.runs={runs}"])
    assert status == 0, output
    return contents(runs)


def queue(cluster: dict[str, str], *options: str) -> list[str]:
    command = ["squeue", "--noheader", "--array", "--format=%i", *options]
    return sorted(
        subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **cluster}
        ).stdout.split()
    )


SWEEP = ["-m", "seed=0,1,2", "hydra/launcher=slurm"]


def test_a_sweep_is_one_array_and_is_reused(cluster: dict[str, str], tiny: list[str], tmp_path: Path):
    runs = tmp_path / "runs"
    status, output = run([*SWEEP, *tiny], cluster)
    assert status == 0, output
    assert re.search(r"^SLURM job \d+, runs: 3\. Their output: .*\.out$", output, re.MULTILINE)
    assert output.count("Error on the test split") == 1
    assert statuses(runs) == [("DONE", 1)] * 3
    [folder] = (runs / "sweeps").glob("*.*/slurm")
    assert len(list(folder.glob("*.out"))) == 3
    assert sorted(path.suffix for path in folder.parent.parent.iterdir()) == ["", ".json"]
    status, output = run([*SWEEP, *tiny], cluster)
    assert (status, "3 of 3 already done" in output, "SLURM" in output) == (0, True, False), output
    status, output = run(["-m", "seed=0,1,2,3", "optim.lr=0.01,1e9", "hydra/launcher=slurm", *tiny], cluster)
    assert status == 1, output
    assert "SLURM job" in output
    assert "runs: 5." in output
    assert len(re.findall(r"^run [2468] of 8: FAILED \(diverged\): .*\n  this is a result", output, re.MULTILINE)) == 4


def test_preempted_jobs_go_on_in_the_same_records(
    cluster: dict[str, str], tiny: list[str], tmp_path: Path, undisturbed: dict
):
    """Two of the three by submitit's signal, and by SLURM's own; the third has to wait until one of them is done."""
    runs = tmp_path / "runs"
    loaders = ["data.num_workers=1", "hydra.launcher.cpus_per_task=1"]  # which get the signals, too
    process = start([*SWEEP, *tiny, LONG, *loaders], cluster)
    until(lambda: under_way(runs, 2))
    first, second = queue(cluster, "--states=RUNNING")
    said(cluster, "scancel", "--signal=USR2", first)
    said(cluster, "scontrol", "requeue", second)  # as preemption by SLURM: TERM, and KILL 30 s later
    status, output = finish(process)
    assert status == 0, output
    assert sorted(statuses(runs)) == [("DONE", 1), ("DONE", 2), ("DONE", 2)]
    assert contents(runs) == undisturbed


def test_preempted_by_a_job_of_more_weight(cluster: dict[str, str], tiny: list[str], tmp_path: Path, undisturbed: dict):
    runs = tmp_path / "runs"
    process = start(["-m", "seed=0", "hydra/launcher=slurm", *tiny, LONG], cluster)
    until(lambda: under_way(runs, 1))
    said(cluster, "srun", "--partition=high", "--ntasks=2", "true")  # both cores
    assert statuses(runs) == [("PREEMPTED", 1)]
    status, output = finish(process)
    assert status == 0, output
    assert statuses(runs) == [("DONE", 2)]
    [(run_id, content)] = contents(runs).items()
    assert content == undisturbed[run_id]


def test_stopped_it_cancels_what_waits_and_saves_what_runs(
    cluster: dict[str, str], tiny: list[str], tmp_path: Path, undisturbed: dict
):
    runs = tmp_path / "runs"
    process = start([*SWEEP, *tiny, LONG], cluster)
    until(lambda: under_way(runs, 2))
    assert len(queue(cluster)) == 3
    os.kill(process.pid, signal.SIGINT)
    status, output = finish(process)
    assert status == 75, output
    assert "Stopped. Finished work is kept" in output
    assert statuses(runs) == [("PREEMPTED", 1)] * 2
    until(lambda: not queue(cluster))

    process = start([*SWEEP, *tiny, LONG], cluster)
    until(lambda: under_way(runs, 2))
    process.kill()  # as a lost connection: the jobs go on without the command
    process.communicate()
    status, output = run([*SWEEP, *tiny, LONG], cluster)
    assert status == 0, output
    assert contents(runs) == undisturbed
    assert sorted(statuses(runs)) == [("DONE", 1), ("DONE", 2), ("DONE", 2)]


def test_a_job_that_is_cancelled_is_told(cluster: dict[str, str], tiny: list[str], tmp_path: Path):
    runs = tmp_path / "runs"
    process = start(["-m", "seed=0,1", "hydra/launcher=slurm", *tiny, LONG], cluster)
    until(lambda: under_way(runs, 2))
    first, _ = queue(cluster)
    said(cluster, "scancel", first)
    status, output = finish(process)
    assert status == 75, output
    assert re.search(rf"^SLURM job {first} ended early; its output: /.*{first}_0_log.out$", output, re.MULTILINE)
    assert sorted(statuses(runs)) == [("DONE", 1), ("PREEMPTED", 1)]


def test_sbatch_refuses(cluster: dict[str, str], tiny: list[str]):
    status, output = run([*SWEEP, *tiny, "hydra.launcher.partition=gpu"], cluster)
    assert status == 1
    assert re.search(r"^error: hydra/launcher=slurm: .*invalid partition", output, re.MULTILINE), output
    assert "Traceback" not in output


def test_a_trial(cluster: dict[str, str], tiny: list[str], tmp_path: Path):
    status, output = run([*SWEEP, *tiny, "trainer.fast_dev_run=true"], cluster)
    assert status == 0, output
    assert "3 of 3 ran one batch of each split; nothing is kept" in output
    assert not list((tmp_path / "runs").rglob("*.*"))


def submit(cluster: dict[str, str], tmp_path: Path, *options: str, script: list[str]) -> str:
    environment = {**cluster, "PYTHON": sys.executable}
    output = f"--output={tmp_path / 'job.out'}"
    job = said(environment, "sbatch", "--parsable", f"--chdir={PROJECT_DIR}", output, *options, *script)
    assert job.isdecimal()
    return job


def test_the_job_script_at_its_time_limit(
    cluster: dict[str, str], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """First 15 to 45 s after it began, since SLURM looks at limits every 30 s; then it has the time that it needs."""
    monkeypatch.chdir(PROJECT_DIR)
    runs, longer = tmp_path / "runs", [*tiny, "seed=0", "trainer.max_epochs=600"]
    slowly = ["data.num_workers=1", "checkpoint.every_steps=1"]  # which change no bits
    script = [str(PROJECT_DIR / "docs" / "slurm.sh"), *longer, *slowly]
    job = submit(cluster, tmp_path, "--time=1", "--signal=B:USR1@45", script=script)

    def shown() -> str:
        return said(cluster, "scontrol", "show", "job", job)

    until(lambda: "Restarts=1 " in shown())
    said(cluster, "scontrol", "update", f"jobid={job}", "timelimit=10")
    assert until(lambda: re.search("JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT)", shown()))[1] == "COMPLETED"
    # On a slow machine the limit may come before the run has begun.
    assert statuses(runs) in ([("DONE", 1)], [("DONE", 2)]), (tmp_path / "job.out").read_text()
    status, output = run([*longer, f"paths.runs={tmp_path / 'undisturbed'}"])
    assert status == 0, output
    assert contents(runs) == contents(tmp_path / "undisturbed")


def test_the_job_script_cancelled(
    cluster: dict[str, str], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It saves its run, and does not come back."""
    monkeypatch.chdir(PROJECT_DIR)
    job = submit(cluster, tmp_path, script=[str(PROJECT_DIR / "docs" / "slurm.sh"), *tiny, LONG])
    until(lambda: under_way(tmp_path / "runs", 1))
    said(cluster, "scancel", job)
    until(lambda: not queue(cluster))
    shown = said(cluster, "scontrol", "show", "job", job)
    assert "JobState=CANCELLED" in shown
    assert "Restarts=0" in shown
    assert statuses(tmp_path / "runs") == [("PREEMPTED", 1)]


def test_a_command_in_a_job_of_two_tasks_is_one_command(cluster: dict[str, str], tiny: list[str], tmp_path: Path):
    """Lightning takes SLURM's variables for a run of several processes, unless it is told not to."""
    command = shlex.join([*TRAIN, *tiny])
    submit(cluster, tmp_path, "--ntasks=2", "--wait", script=["--wrap", command])
    until(lambda: not queue(cluster))
    assert statuses(tmp_path / "runs") == [("DONE", 1)], (tmp_path / "job.out").read_text()


def test_nothing_is_left():
    with slurm() as environment:
        said(environment, "sbatch", "--output=/dev/null", "--wrap", "sleep 1234.5")
        until(lambda: len(queue(environment, "--states=RUNNING")) == 1)
        folder = Path(environment["SLURM_CONF"]).parent
        pattern = f"^[a-z/]*(munged|slurm(ctl)?d) .*{folder}|sleep 1234.5"
        found = until(lambda: len(there := said(environment, "pgrep", "-f", pattern).split()) >= 4 and there)
        pids = [int(pid) for pid in found]
    assert living(pids) == []
    assert not folder.exists()
