"""Try-outs, `debug=limit`, `overfit` and `profile`: what they do, and that nothing of them is kept."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
import torch

from alexlab.data import build_datamodule
from alexlab.runs.failure import NOT_LEARNT, failure_of, message_of
from alexlab.runs.identity import run_id
from alexlab.sweep.plan import make_plan
from alexlab.training.debug import NotLearnt
from alexlab.training.fit import fit
from support.commands import command
from support.settings import composed

DEBUGS = ("limit", "overfit", "profile")


def short(tiny: list[str], *overrides: str) -> list[str]:
    """Without the keys that a try-out sets, which the command line would override."""
    return [*(line for line in tiny if not line.startswith("trainer.max_epochs")), *overrides]


def test_limit(tiny: list[str]):
    outcome = fit(composed(short(tiny, "debug=limit", "debug.images=12", "data.batch_size=2")), None, "run")
    assert outcome.steps == 20  # of the 30 of an epoch
    assert len(outcome.test["ten"].labels) == outcome.train["images"] == 12


def test_overfit_learns_its_batch(tiny: list[str], capsys: pytest.CaptureFixture[str]):
    outcome = fit(composed(short(tiny, "debug=overfit")), None, "run")
    said = re.search(
        r"^run: learnt: loss 0\.0\d\d after (\d+) steps on one batch of 20 images$", capsys.readouterr().out
    )
    assert said is not None
    assert outcome.steps == int(said[1]) < 1000


def test_overfit_that_does_not_is_a_failure(tiny: list[str]):
    line = short(tiny, "debug=overfit", "optim.lr=1e-9", "trainer.limit_train_batches=3")
    with pytest.raises(NotLearnt) as caught:
        fit(composed(line), None, "run")
    assert re.fullmatch(
        r"loss 2\.\d+ after 3 steps on one batch of 20 images; must be below 0\.01", message_of(caught.value)
    )
    assert failure_of(caught.value) == NOT_LEARNT


def test_overfit_has_one_batch_as_it_is_stored(tiny: list[str]):
    """Every step has the same inputs: the centre of the images, nothing mirrored, no colour shifted."""
    data = build_datamodule(composed(short(tiny, "debug=overfit", "trainer.limit_train_batches=4")))
    data.setup()
    batches = list(data.train_dataloader())
    assert len(batches) == 4
    split = data.split("train")
    assert composed(short(tiny, "debug=overfit")).model.dropout == 0
    for batch in batches:
        assert (batch.labels == batches[0].labels).all()
        for crop, window, label in zip(batch.crops, batch.windows.tolist(), batch.labels, strict=True):
            assert window == [7, 7, 0]
            fits = [i for i, one in enumerate(split.labels) if one == label]
            assert any((torch.from_numpy(split.image(i)[7:103, 7:103].copy()) == crop).all() for i in fits)
        assert not batch.shifts.any()


def test_profile_writes_a_table_and_a_trace(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    line = short(tiny, "debug=profile", "data.batch_size=6", f"paths.runs={tmp_path / 'runs'}", "data.num_workers=0")
    fit(composed(line), None, "run")
    printed = capfd.readouterr()
    assert "mean of 7 steps" in printed.out
    assert re.search(r"aten::convolution_backward +5\.0 ", printed.out)  # five convolutions, no step of validation
    assert max(len(row) for row in printed.out.splitlines() if "aten::" in row) <= 80
    assert "Profiler" not in printed.err  # of torch's own log
    [trace] = (tmp_path / "runs" / "profiles").iterdir()
    assert printed.out.rstrip().endswith(str(trace))
    names = [event.get("name", "") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]]
    assert len([name for name in names if name.startswith("ProfilerStep")]) == 7


def test_none_changes_no_id():
    assert run_id(composed(["debug=none"])) == run_id(composed())


@pytest.mark.parametrize("debug", DEBUGS)
def test_a_plan_of_it_keeps_nothing(debug: str):
    assert make_plan([f"debug={debug}"]).is_tryout
    assert make_plan([f"debug={debug}", "study=lrn", "study.seeds=1", "study.base_seeds=1"]).is_tryout
    assert not make_plan([]).is_tryout


@pytest.mark.slow
@pytest.mark.processes
def test_the_command(tiny: list[str], tmp_path: Path):
    line = [*short(tiny), f"paths.runs={tmp_path / 'kept'}"]
    done = command("debug=limit", "logger=wandb", *line)
    assert done.returncode == 0, done.stderr
    assert "3 steps in" in done.stdout
    assert "of 37 test images" in done.stdout
    assert done.stdout.endswith("debug=limit: 1 of 1 passed; no record is kept\n")
    failed = command("debug=overfit", "optim.lr=1e-9", "trainer.limit_train_batches=2", *line)
    assert failed.returncode == 1
    assert "FAILED (not learnt): loss 2." in failed.stdout
    assert failed.stdout.endswith("debug=overfit: 0 of 1 passed; no record is kept\n")
    assert not (tmp_path / "kept").exists()
