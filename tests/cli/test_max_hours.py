"""`max_hours`: a command that ends with its hours, and resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alexlab.config import Config
from alexlab.runs.identity import run_id
from alexlab.runs.record import Record
from alexlab.sweep import stop
from support.commands import statuses, under_way
from support.settings import Typed, composed

LONG = ["trainer.max_epochs=100000", "trainer.chance_epochs=null"]


class Clock:
    """Stands still until something is so, and then is a century later."""

    def __init__(self, is_over: Callable[[], object]) -> None:
        self._is_over = is_over

    def monotonic(self) -> float:
        return 3.2e9 if self._is_over() else 0.0


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_it_saves_what_trains_and_starts_no_more(
    launcher: str, tiny: list[str], tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
):
    runs, at_once = tmp_path / "runs", 2 if launcher == "joblib" else 1
    line = ["-m", "seed=0,1,2", *tiny, *LONG, "max_hours=2d"]
    if launcher == "joblib":
        line += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    monkeypatch.setattr(stop, "time", Clock(lambda: under_way(runs, at_once)))
    done = typed(*line)
    assert done.status == 75, done
    assert statuses(runs) == [("PREEMPTED", 1)] * at_once
    assert all(list(path.glob("checkpoints/*.ckpt")) for path in under_way_or_saved(runs))
    output = " ".join(done.output.split())
    assert "max_hours is used up: the current step is finished and saved. A signal ends it at once." in output
    assert "Error on the test split" in output
    assert output.endswith(
        f"0 of 3 runs done, {at_once} saved: max_hours=2d, counted from the command's start, is used up. Run the same "
        "command again to resume."
    )


def under_way_or_saved(runs: Path) -> list[Path]:
    return [path.parent for path in runs.glob("*/status.json")]


def test_a_run_that_would_be_stopped_at_once_is_not_started(tiny: list[str], tmp_path: Path, typed: Typed):
    done = typed("max_hours=1e-9", *tiny)
    assert done.status == 75, done
    assert not (tmp_path / "runs").exists()
    assert " ".join(done.output.split()).endswith(
        "0 of 1 run done: max_hours=1e-09, counted from the command's start, is used up; a run started now would be "
        "stopped at once. Run the same command again to resume."
    )


def test_what_is_done_needs_no_time(tiny: list[str], tiny_config: Config, typed: Typed, tmp_path: Path):
    """The rest of a sweep does: its finished runs are counted."""
    record = Record(tmp_path / "runs", run_id(tiny_config))
    record.path.mkdir(parents=True)
    record.set_status("FAILED", failure="diverged", message="the loss is nan", hint="")
    assert typed("max_hours=1e-9", *tiny).status == 1  # nothing is left to do
    done = typed("-m", "seed=0,1", "max_hours=1e-9", *tiny)
    assert done.status == 75
    assert "0 of 2 runs done, 1 failed: max_hours=1e-09" in " ".join(done.output.split())


def test_a_study_ends_between_its_rounds(tiny: list[str], tmp_path: Path, typed: Typed):
    done = typed("study=lrn", "study.rate=own", "max_hours=1e-9", *tiny)
    assert done.status == 75, done
    assert "runs done: max_hours=1e-09" in " ".join(done.output.split())
    assert not list((tmp_path / "runs").glob("*/status.json"))


def test_a_try_out_ends_too(tiny: list[str], typed: Typed):
    done = typed("trainer.fast_dev_run=true", "max_hours=1e-9", *tiny)
    assert done.status == 75, done
    assert "fast_dev_run: 0 of 1 ran one batch of each split" in done.output
    assert "max_hours=1e-09" in done.output


def test_it_is_no_part_of_a_run(tiny: list[str], tiny_config: Config):
    assert run_id(composed([*tiny, "max_hours=3"])) == run_id(tiny_config)


def test_it_is_the_commands(tiny: list[str], tmp_path: Path, typed: Typed):
    done = typed("-m", "max_hours=1,2", *tiny)
    assert (done.status, done.errors) == (
        2,
        "error: max_hours: must be the same for all jobs; it counts from the command's start\n",
    )
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_how_far_it_gets(tiny: list[str], typed: Typed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("alexlab.cli.forecast.forecast", lambda configs: [((3600.0,) * 3, 1)] * len(configs))
    done = typed("-m", "seed=0,1,2", "max_hours=2.5", "--dry-run", *tiny)
    assert "max_hours=2.5: about 2 of these 3 end in that time, one after another." in done.output
