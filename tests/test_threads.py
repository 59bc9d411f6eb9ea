"""How many threads processes compute with, and how those wait; nothing here is timed."""

from __future__ import annotations

import builtins
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import loky.backend.context
import pytest
import torch

from alexlab import threads
from alexlab.data.parallel import in_order
from alexlab.runs import process
from alexlab.sweep import launcher as launchers

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
SET_HERE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "OPENBLAS_NUM_THREADS": "1"}


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, without what this one has been told of threads."""
    names = (*WAITING, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, check=True
    )


class TestWaiting:
    SHOW = f"import alexlab, json, os; print(json.dumps({{n: os.environ.get(n) for n in {(*WAITING, *SET_HERE)}}}))"

    def test_threads_sleep_by_default(self):
        told = json.loads(python(self.SHOW).stdout)
        assert {name: value for name, value in told.items() if value is not None} == SET_HERE

    @pytest.mark.parametrize("name", WAITING)
    def test_the_users_setting_stays(self, name: str):
        told = json.loads(python(self.SHOW, **{name: "30", "OPENBLAS_NUM_THREADS": "2"}).stdout)
        assert {key: value for key, value in told.items() if value is not None} == {
            name: "30",
            "OPENBLAS_NUM_THREADS": "2",
        }


def _noted(path: str) -> None:
    """What a child process finds."""
    names = (*SET_HERE, "OMP_NUM_THREADS")
    found = {**{name: os.environ.get(name) for name in names}, "torch": torch.get_num_threads()}
    Path(path).write_text(json.dumps(found))


class TestProcesses:
    @pytest.mark.parametrize(("number", "processes", "each"), [(4, 1, 4), (4, 2, 2), (3, 2, 1), (1, 2, 1)])
    def test_a_runs_processes_share_its_threads(self, number: int, processes: int, each: int, tmp_path: Path):
        calls = [(str(tmp_path / str(rank)),) for rank in range(processes)]
        launched = process.Launch(tmp_path, threads=number)
        assert process.in_children(_noted, calls, launched) == [0] * processes
        for (path,) in calls:
            assert json.loads(Path(path).read_text())["torch"] == each

    def test_what_the_user_has_set_holds_for_each(self, tmp_path: Path):
        assert os.environ["OMP_NUM_THREADS"] == "1"  # tests are such a user
        process.in_children(_noted, [(str(tmp_path / "it"),)], process.Launch(tmp_path))
        assert json.loads((tmp_path / "it").read_text()) == {**SET_HERE, "OMP_NUM_THREADS": "1", "torch": 1}

    def test_those_that_prepare_images(self):
        found = in_order(os.getenv, [(name,) for name in SET_HERE], processes=2)
        assert list(found) == list(SET_HERE.values())


def machine(
    monkeypatch: pytest.MonkeyPatch, logical: int, physical: int, affinity: int | None = None, quota: str = "max"
) -> None:
    """Another machine: so many CPUs, of which this process may use the first `affinity`, with a cgroup's quota."""
    blocks = [f"processor : {i}\nphysical id : 0\ncore id : {i % physical}\n" for i in range(logical)]
    files = {"/sys/fs/cgroup/cpu.max": f"{quota} 100000", "/proc/cpuinfo": "\n".join(blocks)}
    really_open, really_exists = builtins.open, os.path.exists

    def opened(path: Any, *given: Any, **named: Any) -> Any:
        return io.StringIO(files[path]) if path in files else really_open(path, *given, **named)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(os.path, "exists", lambda path: path in files or really_exists(path))
    monkeypatch.setattr(os, "cpu_count", lambda: logical)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity or logical)))
    monkeypatch.setattr(loky.backend.context, "physical_cores_cache", {})
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK", "LOKY_MAX_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)


class TestCores:
    @pytest.mark.parametrize(
        ("given", "cores"),
        [
            ({"logical": 64, "physical": 64}, 64),
            ({"logical": 64, "physical": 32}, 32),  # two hardware threads share a core's arithmetic
            ({"logical": 64, "physical": 64, "affinity": 6}, 6),
            ({"logical": 64, "physical": 64, "quota": "200000"}, 2),  # docker run --cpus=2
            ({"logical": 64, "physical": 64, "quota": "250000"}, 3),
            ({"logical": 64, "physical": 64, "affinity": 1, "quota": "200000"}, 1),
            ({"logical": 64, "physical": 64, "quota": "20000"}, 1),
        ],
    )
    def test_affinity_and_quota(self, given: dict[str, Any], cores: int, monkeypatch: pytest.MonkeyPatch):
        machine(monkeypatch, **given)
        assert threads.cores() == threads.of_command() == cores

    def test_slurms_share(self, monkeypatch: pytest.MonkeyPatch):
        machine(monkeypatch, 64, 64)
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
        assert threads.cores() == 8

    def test_a_real_affinity(self):
        code = (
            "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "from alexlab import threads; print(threads.cores())"
        )
        assert python(code).stdout == "1\n"

    def test_what_the_user_has_set(self, monkeypatch: pytest.MonkeyPatch):
        machine(monkeypatch, 64, 64)
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        assert threads.of_command() is None


class TestLaunchers:
    @pytest.mark.parametrize(
        ("launcher", "n_jobs", "left", "number"),
        [
            ("basic", None, 4, 8),
            ("joblib", 2, 4, 4),
            ("joblib", 4, 4, 2),
            ("joblib", -1, 2, 4),  # eight could run at once, two are left
            ("joblib", -1, 12, 1),
            ("joblib", 3, 12, 2),
            ("submitit_local", None, 2, 4),
            ("submitit_local", None, 20, 1),
            ("slurm", None, 20, 8),
        ],
    )
    def test_runs_side_by_side_share_the_cores(
        self, launcher: str, n_jobs: int | None, left: int, number: int, monkeypatch: pytest.MonkeyPatch
    ):
        machine(monkeypatch, 8, 8)
        config: Any = SimpleNamespace(
            runtime=SimpleNamespace(choices={"hydra/launcher": launcher}), launcher={"n_jobs": n_jobs}
        )
        assert launchers._threads({"threads_set": False, "launched": left}, config) == number
        assert launchers._threads({"threads_set": True, "launched": left}, config) is None

    def test_ray_says_it_by_the_variable(self, monkeypatch: pytest.MonkeyPatch):
        machine(monkeypatch, 8, 8)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")  # as Ray does in its processes, by num_cpus
        config: Any = SimpleNamespace(runtime=SimpleNamespace(choices={"hydra/launcher": "ray"}), launcher={})
        assert launchers._threads({"threads_set": False, "launched": 2}, config) == 3
