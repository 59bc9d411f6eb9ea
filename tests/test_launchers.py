"""Sweeps by other launchers than Hydra's basic one: one table, one exit status, stopped and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import alexlab.compose
from alexlab.cli.train import main
from alexlab.config import Config
from alexlab.runs.process import Launch
from alexlab.sweep import launcher as launchers
from chaos import contents
from conftest import TINY, Typed
from launched import descendants, finish, halted, is_sent, living, owner, run, start, statuses, stop, under_way, until


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict:
    """What the two runs leave that the tests below disturb."""
    runs = tmp_path_factory.mktemp("undisturbed")
    status, output = run(
        ["-m", "seed=0,1", *TINY, "trainer.max_epochs=30", f"data.cache={cache}", f"paths.runs={runs}"]
    )
    assert status == 0, output
    return contents(runs)


class TestMistakes:
    @pytest.mark.parametrize("name", ["slurm", "submitit_local", "ray", "joblib"])
    def test_a_package_that_is_not_installed(
        self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(alexlab.compose, "find_spec", lambda module: None)
        assert main(["-m", f"hydra/launcher={name}", "seed=0,1"]) == 2
        extra = {"submitit_local": "slurm"}.get(name, name)
        told = f"error: hydra/launcher={name}: is not installed; pip install -e '.[{extra}]' brings it\n"
        assert capsys.readouterr() == ("", told)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["-m", "hydra/launcher=slrum"], "hydra/launcher=slrum: there is no such launcher; did you mean 'slurm'?"),
            (["hydra/launcher=ray"], "hydra/launcher=ray: launches sweeps, also of one run; write -m before the rest"),
            (["-m", "hydra/launcher=slurm", "hydra.launcher.partitoin=gpu"], "hydra.launcher.partitoin: "),
            (["-m", "hydra/launcher=slurm", "hydra.launcher.timeout_min=1d"], "hydra.launcher.timeout_min: "),
            (
                ["-m", "hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpu=1"],
                "hydra.launcher.ray.remote.num_gpu: ",
            ),
        ],
    )
    def test_one_line(self, words: list[str], told: str, capsys: pytest.CaptureFixture[str]):
        assert main(words) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(f"error: {told}")
        assert output.err.count("\n") == 1

    def test_no_slurm_here(self, tiny: list[str], tmp_path: Path):
        status, output = run(["-m", "seed=0,1", "hydra/launcher=slurm", *tiny], {"PATH": "/nowhere"})
        assert status == 1
        assert "error: hydra/launcher=slurm: Could not detect" in output
        assert "Traceback" not in output
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["sweeps"]


def test_a_job_that_slurm_queued_again_waits_until_its_dead_machine_is_given_up(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waited, ends = [], iter(["HELD", "HELD", "DONE"])
    monkeypatch.setattr(launchers, "execute", lambda *_: {"state": next(ends)})
    monkeypatch.setattr(time, "sleep", waited.append)
    given = tiny_config, {}, "run", Launch(tmp_path), None
    assert launchers._execute_elsewhere(*given) == {"state": "HELD"}  # another's: what the job has is needed
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert launchers._execute_elsewhere(*given) == {"state": "DONE"}
    assert waited == [5]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.processes
def test_submitit_with_a_run_that_fails(tiny: list[str], tmp_path: Path, typed: Typed):
    sweep = ["-m", "optim.lr=1e9,0.01", "hydra/launcher=submitit_local", *tiny]
    status, output = run(sweep)
    assert status == 1, output
    assert "FAILED: diverged" in output
    assert output.count("Error on the test split") == 1
    assert sorted(statuses(tmp_path / "runs")) == [("DONE", 1), ("FAILED", 1)]
    again = typed("-m", "optim.lr=0.01", "hydra/launcher=submitit_local", *tiny)
    assert (again.status, "1 of 1 already done" in again.output) == (0, True), again


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_submitit_is_stopped_goes_on_and_queues_a_preempted_job_again(
    tiny: list[str], tmp_path: Path, undisturbed: dict
):
    runs = tmp_path / "runs"
    sweep = ["-m", "seed=0,1", "hydra/launcher=submitit_local", *tiny, "trainer.max_epochs=30"]
    stop(start(sweep), runs, 2)
    assert statuses(runs) == [("PREEMPTED", 1)] * 2
    process = start(sweep)
    with halted(process, runs, 2):
        os.kill(owner(under_way(runs, 2)[0]), signal.SIGUSR2)  # as submitit has it sent before a time limit
    status, output = finish(process)
    assert status == 0, output
    assert statuses(runs) == [("DONE", 3), ("DONE", 2)]
    assert contents(runs) == undisturbed


@pytest.fixture
def rays() -> Iterator[dict[str, str]]:
    """The environment of a Ray that leaves nothing: its folder has a short name, since sockets are in it."""
    folder = tempfile.mkdtemp(prefix="ray")
    yield {"HOME": folder, "RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_ray_is_stopped_and_a_process_of_it_that_dies_is_replaced(
    tiny: list[str], tmp_path: Path, undisturbed: dict, rays: dict[str, str]
):
    """With two GPUs that are none, so that each run sees its own."""
    runs = tmp_path / "runs"
    gpus = ["hydra.launcher.ray.init.num_gpus=2", "hydra.launcher.ray.remote.num_gpus=1"]
    sweep = ["-m", "seed=0,1", "hydra/launcher=ray", *gpus, *tiny, "trainer.max_epochs=30"]
    process = start(sweep, rays)
    with halted(process, runs, 2) as trainers:
        seen = {Path(f"/proc/{pid}/environ").read_text().partition("CUDA_VISIBLE_DEVICES=")[2][0] for pid in trainers}
        assert seen == {"0", "1"}
        processes = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        until(lambda: all(is_sent(pid, signal.SIGTERM) for pid in trainers), process)
    status, output = finish(process)
    assert status == 75, output
    assert statuses(runs) == [("PREEMPTED", 1)] * 2
    until(lambda: not living(processes))

    process = start(sweep, rays)
    with halted(process, runs, 2):
        processes = descendants(process.pid)
        os.kill(owner(under_way(runs, 2)[0]), signal.SIGKILL)
    status, output = finish(process)
    assert status == 0, output
    assert "run 2 of 2 · epoch" in output
    assert statuses(runs) == [("DONE", 3), ("DONE", 2)]
    assert contents(runs) == undisturbed
    until(lambda: not living(processes))
