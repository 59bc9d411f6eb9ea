"""Sweeps with launchers other than basic: one table, one exit status, stopped and resumed; what their jobs train."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import alexlab.compose
from alexlab.cli.train import main
from alexlab.config import Config, ConfigError
from alexlab.console import Console
from alexlab.hydra_compat import PlannedJobs
from alexlab.runs.failure import HINTS
from alexlab.runs.identity import run_id
from alexlab.runs.process import Launch
from alexlab.sweep import launcher as launchers
from alexlab.sweep.plan import make_plan
from hydra_plugins import alexlab as plugin
from hydra_plugins.alexlab import JoblibLauncher, LocalLauncher
from support.commands import (
    descendants,
    finish,
    halted,
    is_sent,
    living,
    owner,
    run,
    start,
    statuses,
    stop,
    under_way,
    until,
)
from support.records import contents
from support.settings import TINY, Typed, composer


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
        message = f"error: hydra/launcher={name}: not installed; run pip install '.[{extra}]'\n"
        assert capsys.readouterr() == ("", message)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["-m", "hydra/launcher=slrum"], "hydra/launcher=slrum: no such launcher; did you mean 'slurm'?"),
            (["hydra/launcher=ray"], "hydra/launcher=ray: needs -m, even for a single run"),
            (["-m", "hydra/launcher=slurm", "hydra.launcher.partitoin=gpu"], "hydra.launcher.partitoin: "),
            (["-m", "hydra/launcher=slurm", "hydra.launcher.timeout_min=1d"], "hydra.launcher.timeout_min: "),
            (
                ["-m", "hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpu=1"],
                "hydra.launcher.ray.remote.num_gpu: ",
            ),
        ],
    )
    def test_one_line(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
        assert main(words) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith(f"error: {message}")
        assert output.err.count("\n") == 1

    def test_no_slurm_here(self, tiny: list[str], tmp_path: Path):
        status, output = run(["-m", "seed=0,1", "hydra/launcher=slurm", *tiny], {"PATH": "/nowhere"})
        assert status == 1
        assert "error: hydra/launcher=slurm: Could not detect" in output
        assert "Traceback" not in output
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["sweeps"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of a user's `--config-dir`, the option `ablation=mine`."""
    path = tmp_path / "conf" / "ablation" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nmodel:\n  dropout: 0.125\n")
    return path


def sweep_with(mine: Path, tiny: list[str]) -> list[str]:
    return ["-m", "seed=0,1", "ablation=mine", f"--config-dir={mine.parents[1]}", *tiny]


class TestJobs:
    """What a job gets from the plan, without training."""

    @pytest.fixture
    def executed(self, monkeypatch: pytest.MonkeyPatch, mine: Path) -> list[tuple[Config, dict[str, str], str]]:
        """The configuration, labels and title of each job so far; each job leaves the user's file broken."""
        found = []

        def execute(config: Config, labels: dict[str, str], title: str, launch: Launch) -> dict:
            found.append((config, labels, title))
            mine.write_text("no: [configuration")
            return {"state": "DONE"}

        monkeypatch.setattr(launchers, "execute", execute)
        monkeypatch.setattr(launchers, "check", lambda configs, is_here: None)
        return found

    @pytest.mark.parametrize("line", [["-m", "seed=3,4"], ["seed=3"], ["study=lrn", "study.seeds=1"]], ids=" ".join)
    def test_it_is_what_was_planned_whatever_becomes_of_the_files(
        self, line: list[str], tiny: list[str], mine: Path, executed: list, typed: Typed
    ):
        option = "model.init_bias=0.5" if line[0].startswith("study") else "ablation=mine"
        line = [*line, option, "data.root=null", "weights=null", "trainer.limit_train_batches=1.0", *tiny]
        overrides = [word for word in line if word != "-m"]
        plan = make_plan(overrides, line[0] == "-m", str(mine.parents[1]))
        assert typed(*line, "--config-dir", str(mine.parents[1])).status == 1  # since nothing was trained
        number = len(plan.runs)
        titles = [f"run {i} of {number}" for i in range(1, number + 1)] if number > 1 else ["run"]
        assert executed == [(run.config, run.labels, title) for run, title in zip(plan.runs, titles, strict=True)]
        assert [run_id(config) for config, _, _ in executed] == [run.run_id for run in plan.runs]
        assert mine.read_text() == "no: [configuration"

    def test_hydra_shows_the_same(self, tiny: list[str], tmp_path: Path, mine: Path, executed: list, typed: Typed):
        """In the folders that a user may ask Hydra for."""
        folders = ["hydra.output_subdir=.hydra", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
        exclude = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(one.split('=')[0] for one in tiny)}]"
        typed(*sweep_with(mine, tiny), *folders, exclude)
        [shared] = (tmp_path / "runs" / "sweeps").glob("*/")
        for config, _, _ in executed:
            job = shared / f"ablation=mine,seed={config.seed}" / ".hydra"
            plain = yaml.safe_load((job / "config.yaml").read_text())
            assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain)) == config
            assert f"seed={config.seed}" in yaml.safe_load((job / "overrides.yaml").read_text())
            assert yaml.safe_load((job / "hydra.yaml").read_text())["hydra"]["runtime"]["choices"]["ablation"] == "mine"
        assert len(executed) == 2

    @pytest.mark.parametrize(
        ("line", "status", "number"),
        [
            ("seed=3,4,5", ("configuration", "trainer.accelerator=gpu: there is none"), 1),
            ("seed=3,4,5", ("configuration", "ModuleNotFoundError: No module named 'x'"), 1),
            ("optim.lr=0.1,0.2,0.3", ("configuration", "weights=x.pt: no such file"), 1),
            ("weights=null,a.pt,b.pt", ("configuration", "weights=a.pt: has no conv1.weight"), 3),
            ("seed=3,4,5", ("diverged", "the loss is not finite"), 3),
            ("seed=3,4,5", ("killed", "its process ended (SIGKILL)"), 3),
            ("seed=3,4,5", ("bad data", "train.jpegs: image 5"), 3),
            ("seed=3,4,5", ("out of memory", "x"), 3),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
    )
    def test_a_sweep_ends_with_a_failure_that_all_its_runs_share(
        self,
        line: str,
        status: tuple[str, str],
        number: int,
        tiny: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        typed: Typed,
    ):
        started = []

        def execute(config: Config, *_: object) -> dict:
            started.append(config)
            (path := Path(config.paths.runs) / run_id(config)).mkdir(parents=True)
            failed = {"state": "FAILED", "failure": status[0], "message": status[1], "hint": HINTS[status[0]]}
            whole = {**failed, "version": 2, "attempt": 1, "run_id": path.name}
            (path / "status.json").write_text(json.dumps(whole))
            return failed

        monkeypatch.setattr(launchers, "execute", execute)
        monkeypatch.setattr(launchers, "check", lambda configs, is_here: None)
        monkeypatch.chdir(tmp_path)
        for name in ("a.pt", "b.pt"):
            (tmp_path / name).write_bytes(name.encode())
        done = typed("-m", line, *tiny)
        assert (done.status, len(started)) == (1, number)
        said = "2 of 3 runs were not started, since they would fail in the same way: " + status[1]
        assert (said in " ".join(done.output.split())) == (number == 1)

    @pytest.mark.parametrize(("seeds", "spared"), [("3", ""), ("3,4,5", "2 of 3 runs were not started")])
    def test_a_run_that_cannot_start_is_not_among_those_that_are_spared(
        self, seeds: str, spared: str, tiny: list[str], monkeypatch: pytest.MonkeyPatch, typed: Typed
    ):
        def execute(*_: object) -> dict:
            raise ConfigError("model.build=net.Net: cannot be imported")

        monkeypatch.setattr(launchers, "execute", execute)
        monkeypatch.setattr(launchers, "check", lambda configs, is_here: None)
        output = typed("-m", f"seed={seeds}", *tiny).output
        assert "run: model.build=" in output or "run 1 of 3: model.build=" in output
        assert spared in output
        assert output.count("were not started") == (spared != "")

    def test_only_runs_that_need_work_are_launched(self, tiny: list[str], executed: list, typed: Typed):
        [failed, _] = make_plan(["seed=3,4", *tiny], multirun=True).runs
        status = {"version": 2, "state": "FAILED", "failure": "diverged", "message": "", "hint": "", "attempt": 1}
        status["run_id"] = failed.run_id
        failed.record.path.mkdir(parents=True)
        failed.record.file("status.json").write_text(json.dumps(status))
        typed("-m", "seed=3,4", *tiny)
        assert [(config.seed, title) for config, _, title in executed] == [(4, "run 2 of 2")]


def test_a_run_that_another_command_held_only_for_a_moment_is_launched_again(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
):
    """It was free when the runs were listed, and is free again when the launch ends."""
    plan, started = make_plan(["seed=3", *tiny]), []

    def execute(config: Config, *_: object) -> dict:
        started.append(config.seed)
        [run] = plan.runs
        status = {"version": 2, "run_id": run.run_id, "attempt": 1, "state": "PREEMPTED", "message": "stopped"}
        if len(started) == 2:
            status["state"] = "DONE"
        run.record.path.mkdir(parents=True, exist_ok=True)
        run.record.file("status.json").write_text(json.dumps(status))
        return {**status, "state": "HELD", "message": "another process works on it"} if len(started) == 1 else status

    monkeypatch.setattr(launchers, "execute", execute)
    with launchers.launching(plan, Console()) as (launch, _):
        launchers.do_all(plan, Console(), launch)
    assert started == [3, 3]


class TestTasksThatRaise:
    """Hydra keeps the error of a task in the job's return value, and its launchers ignore that."""

    @pytest.fixture
    def context(self, tmp_path: Path) -> HydraContext:
        """That of a launch of three jobs."""
        jobs = PlannedJobs(tmp_path / "launch")
        jobs.folder.mkdir()
        for number in range(3):
            jobs.write(number, {"title": f"run {number + 1} of 3"})
        return HydraContext(cast(ConfigLoader, jobs), Callbacks())

    @staticmethod
    def returned(value: object) -> JobReturn:
        job = JobReturn(status=JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED)
        job.return_value = value
        return job

    @pytest.fixture
    def pools(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The pools of the joblib launcher so far; they run nothing, and the task of their job 1 raises."""
        found = []

        class Pool:
            def __init__(self, count: int) -> None:
                self.numbers, self.is_closed = list[int](), False
                found.append(self)

            def submit(self, execute_job: object, number: int, *_: object) -> Future[JobReturn]:
                self.numbers.append(number)
                future = Future[JobReturn]()
                future.set_result(TestTasksThatRaise.returned(RuntimeError("no\nthread") if number == 1 else None))
                return future

            def shutdown(self, kill_workers: bool) -> None:
                self.is_closed = kill_workers

        monkeypatch.setattr("loky.ProcessPoolExecutor", Pool)
        return found

    def test_in_this_process(self, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Typed):
        def execute(*_: object) -> dict:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(launchers, "execute", execute)
        monkeypatch.setattr(launchers, "check", lambda configs, is_here: None)
        done = typed("-m", "seed=3,4", *tiny)
        assert done.status == 1
        failures = [line for line in done.output.splitlines() if "FAILED" in line]
        message = "FAILED (error): RuntimeError: can't start new thread"
        assert failures == [f"run 1 of 2: {message}", f"run 2 of 2: {message}"]
        assert "in execute" in done.errors  # the traceback

    def test_joblib(self, context: HydraContext, pools: list[Any], capsys: pytest.CaptureFixture[str]):
        launcher = JoblibLauncher(n_jobs=2)
        launcher.hydra_context = context
        launcher.launch([["0"], ["1"], ["2"]], 0)
        assert capsys.readouterr().out == "run 2 of 3: its job failed: no thread\n"
        assert sorted(number for pool in pools for number in pool.numbers) == [0, 1, 2]
        assert [pool.is_closed for pool in pools] == [True, True]

    def test_joblibs_pool_is_free_again_after_any_error(self, context: HydraContext, pools: list[Any], tmp_path: Path):
        launcher = JoblibLauncher(n_jobs=1)
        launcher.hydra_context = context
        (tmp_path / "launch" / "job_0.json").unlink()
        with pytest.raises(FileNotFoundError, match="job_0"):
            launcher.launch([["0"], ["1"], ["2"]], 0)
        assert [(pool.numbers, pool.is_closed) for pool in pools] == [([1, 2], True)]

    def test_submitit_local(
        self,
        context: HydraContext,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ):
        def killed() -> None:
            raise RuntimeError("killed")

        class Executor:
            def __init__(self, folder: str, kind: str) -> None: ...

            def update_parameters(self, **_: object) -> None: ...

            def map_array(self, *_: object) -> list[SimpleNamespace]:
                results = [
                    killed,
                    lambda: TestTasksThatRaise.returned(RuntimeError("no\nthread")),
                    lambda: TestTasksThatRaise.returned("run 3 of 3: FAILED (bad data): x"),
                ]
                paths = SimpleNamespace(stderr="1.err")
                return [SimpleNamespace(result=one, results=lambda one=one: [one()], paths=paths) for one in results]

        monkeypatch.setattr("submitit.AutoExecutor", Executor)
        launcher = LocalLauncher(submitit_folder=str(tmp_path))
        launcher.hydra_context = context
        launcher.launch([["0"], ["1"], ["2"]], 0)
        assert capsys.readouterr().out.splitlines() == [
            "run 1 of 3: its process ended early; its output: 1.err",
            "run 2 of 3: its job failed: no thread",
            "run 3 of 3: FAILED (bad data): x",
        ]

    def test_slurm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        (pickled := tmp_path / "result.pkl").touch()
        values = {"7_0": RuntimeError("no\nthread"), "7_1": None, "7_2": "run 3 of 3: FAILED (bad data): x"}
        jobs = {
            name: SimpleNamespace(
                paths=SimpleNamespace(result_pickle=pickled),
                exception=lambda: None,
                result=lambda value=value: self.returned(value),
            )
            for name, value in values.items()
        }
        plugin._wait("7", cast(Any, jobs), Launch(tmp_path))
        said = ["SLURM job 7_0: its job failed: no thread", "run 3 of 3: FAILED (bad data): x"]
        assert capsys.readouterr().out.splitlines() == said
        assert jobs == {}


@pytest.mark.parametrize("state", ["FAILED", "HELD"])
def test_a_message_of_a_run_has_no_control_characters(state: str):
    """It may name an image of a stranger's archive, whose name sets the terminal's title."""
    status = {"state": state, "failure": "data", "message": "a\x1b]0;t\x07.JPEG cannot be read", "hint": "\x9bh"}
    message = launchers._ending("run", status)
    assert message is not None
    assert "a]0;t.JPEG cannot be read" in message
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", message)


class TestPickles:
    """Launchers pickle jobs, and a pickle runs code."""

    @pytest.fixture
    def folders(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """The folder for pickles of each launch so far, in which a launcher that does nothing leaves a file."""
        found = []

        class Launcher:
            def __init__(self, config: DictConfig) -> None:
                self._folder = Path(config.hydra.launcher.submitit_folder.removesuffix("/%j"))

            def launch(self, job_overrides: object, initial_job_idx: int) -> list:
                found.append(self._folder)
                assert (self._folder.stat().st_mode & 0o777, list(self._folder.iterdir())) == (0o700, [])
                (self._folder / "job.pkl").touch()
                return []

        plugins = Plugins.instance()
        monkeypatch.setattr(plugins, "instantiate_launcher", lambda context, task, config: Launcher(config))
        return found

    @pytest.mark.parametrize("launcher", ["slurm", "submitit_local"])
    def test_are_in_a_folder_that_nobody_else_can_write_or_foresee(
        self, launcher: str, tiny: list[str], tmp_path: Path, folders: list[Path], typed: Typed
    ):
        """The folder was named by the sweep alone, so another user of `runs/` could make it first."""
        for _ in range(2):
            typed("-m", "seed=0,1", f"hydra/launcher={launcher}", *tiny)
        assert len(set(folders)) == 2
        assert all(folder.is_relative_to(tmp_path / "runs" / "sweeps") for folder in folders)
        sweep_id = make_plan(["seed=0,1", *tiny], multirun=True).sweep_id
        assert not (tmp_path / "runs" / "sweeps" / sweep_id).exists()

    @pytest.mark.parametrize("launcher", ["slurm", "submitit_local"])
    def test_are_not_written_where_others_may_write(
        self, launcher: str, tiny: list[str], tmp_path: Path, folders: list[Path], capsys: pytest.CaptureFixture[str]
    ):
        sweeps = tmp_path / "runs" / "sweeps"
        sweeps.mkdir(parents=True)
        sweeps.chmod(0o777)
        assert main(["-m", "seed=0,1", f"hydra/launcher={launcher}", *tiny]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {sweeps}: other users may write there")
        assert error.count("\n") == 1
        mine = tmp_path / "mine"
        main(["-m", "seed=0,1", f"hydra/launcher={launcher}", f"hydra.launcher.submitit_folder={mine}", *tiny])
        assert folders == [mine]


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.long)])
def test_a_job_in_another_process_trains_what_was_planned(launcher: str, tiny: list[str], tmp_path: Path, mine: Path):
    """Although its file changes while an earlier job trains."""
    runs, line = tmp_path / "runs", sweep_with(mine, tiny)
    planned = [run.run_id for run in make_plan(["seed=0,1", "ablation=mine", *tiny], True, str(mine.parents[1])).runs]
    at_once = ["hydra.launcher.n_jobs=1"] if launcher == "joblib" else []
    process = start([*line, f"hydra/launcher={launcher}", *at_once])
    with halted(process, runs):
        mine.write_text(mine.read_text().replace("0.125", "0.25"))
    status, output = finish(process)
    assert status == 0, output
    records = sorted(runs.glob("*/config.yaml"))
    assert [path.parent.name for path in records] == sorted(planned)
    assert [yaml.safe_load(path.read_text())["model"]["dropout"] for path in records] == [0.125] * 2


def test_a_job_that_slurm_requeued_waits_until_the_lease_of_its_dead_machine_expires(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waited, ends = [], iter(["HELD", "HELD", "DONE"])
    monkeypatch.setattr(launchers, "execute", lambda *_: {"state": next(ends)})
    monkeypatch.setattr(time, "sleep", waited.append)
    given = tiny_config, {}, "run", Launch(tmp_path), None
    assert launchers._execute_elsewhere(*given) == {"state": "HELD"}  # another process works on it
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
def test_submitit_is_stopped_resumes_and_requeues_a_preempted_job(tiny: list[str], tmp_path: Path, undisturbed: dict):
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


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.long)])
def test_a_killed_process_of_a_launcher_ends_one_run_alone(launcher: str, tiny: list[str], tmp_path: Path):
    """Each launches two at once; joblib's third is still to come then."""
    runs, line = tmp_path / "runs", ["-m", "seed=0,1,2", f"hydra/launcher={launcher}", *tiny, "trainer.max_epochs=3"]
    at_once = 2 if launcher == "joblib" else 3
    process = start([*line, *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])])
    with halted(process, runs, at_once):
        victim = under_way(runs, at_once)[0]
        os.kill(owner(victim), signal.SIGKILL)
    status, output = finish(process)
    assert status == 1, output
    assert "Traceback" not in output
    assert output.count(f"{victim.name} FAILED: killed") == output.count("FAILED: killed") - 1 == 1  # its row, its note
    assert "Error on the test split" in output
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in runs.glob("*/status.json")}
    assert states.pop(victim.name) != "DONE"
    assert list(states.values()) == ["DONE"] * 2


@pytest.fixture
def rays() -> Iterator[dict[str, str]]:
    """The environment of a Ray that leaves nothing: its folder has a short name, since sockets are in it."""
    folder = tempfile.mkdtemp(prefix="ray")
    yield {"HOME": folder, "RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


def test_ray_restarts_a_run_whose_process_died_but_none_that_it_killed_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ray counts the two apart: https://docs.ray.io/en/latest/ray-core/scheduling/ray-oom-prevention.html."""
    ray = pytest.importorskip("ray")
    name = "RAY_task_oom_retries"
    assert name.encode() in Path(ray._raylet.__file__).read_bytes()  # a name that this Ray knows
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    found: dict[str, str | None] = {}

    def init(**options: object) -> None:
        found[name] = os.environ.get(name)
        raise ConnectionError("nothing is started here")

    monkeypatch.setattr(ray, "init", init)
    config = composer().for_launcher(["hydra/launcher=ray"]).hydra.launcher
    launcher = instantiate(config)
    context = SimpleNamespace(config_loader=SimpleNamespace(folder=tmp_path))
    launcher.setup(hydra_context=context, task_function=print, config=OmegaConf.create())
    with pytest.raises(SystemExit, match="hydra/launcher=ray: nothing is started here"):
        launcher.launch([["seed=0"]], 0)
    assert found == {name: "0"}
    assert config.ray.remote.max_retries == 3
    monkeypatch.setenv(name, "5")  # the user's own word counts
    with pytest.raises(SystemExit):
        launcher.launch([["seed=0"]], 0)
    assert found == {name: "5"}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_ray_is_stopped_and_a_process_of_it_that_dies_is_replaced(
    tiny: list[str], tmp_path: Path, undisturbed: dict, rays: dict[str, str]
):
    """With two made-up GPUs, so that each run sees its own."""
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


@pytest.mark.processes
def test_no_worker_of_joblib_outlives_its_launch(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    """It would have the environment of a folder that is gone, as in the next round of a search for rates."""

    def do_job(folder: str, planned: DictConfig) -> None:
        job = PlannedJobs(Path(folder)).read(HydraConfig.get().job.num)
        Path(folder, f"{job['run_id']}.pid").write_text(str(os.getpid()))

    monkeypatch.setattr(launchers, "do_job", do_job)
    for seeds in ("0,1", "2,3"):
        line = [f"seed={seeds}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *tiny]
        plan = make_plan(line, multirun=True, composer=composer())
        with launchers.launching(plan, Console()) as (launch, _):
            launchers.launch_jobs(plan, launch, [0, 1])
            workers = {path.stem: int(path.read_text()) for path in launch.folder.glob("*.pid")}
        assert workers.keys() == {run.run_id for run in plan.runs}
        assert os.getpid() not in workers.values()
        assert not living([*workers.values()])


def test_a_command_that_waits_names_the_processes_that_it_waits_for():
    owners = ["gpu1, process 7", "gpu2, process 9", "gpu1, process 7"]
    waits = launchers._waiting(owners, 8)
    assert waits == "Waiting for 3 of 8 runs that other processes work on (gpu1, process 7; gpu2, process 9) ..."
    many = launchers._waiting([f"gpu{i}, process 1" for i in range(5)], 9)
    assert many.endswith("(gpu0, process 1; gpu1, process 1; gpu2, process 1 and 2 more) ...")
