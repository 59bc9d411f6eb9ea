"""The closing table: its statistics, and what a person sees in 80 columns."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from alexlab.cli.tables import print_table, read_rows
from alexlab.study.intervals import paired_difference, wilson
from alexlab.sweep.plan import Plan, make_plan, write_sweep
from support.settings import Typed
from support.sweeps import fill, printed


def test_wilson_interval_of_a_textbook():
    """10 of 20 and 0 of 10, by the closed form: (.299, .701) and (0, .278)."""
    assert wilson(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_paired_difference_is_mcnemars():
    """b images right only in the first, c only in the second: (b - c) / N, variance (b + c - (b - c)^2 / N) / N^2."""
    n, b, c = 400, 30, 12
    base = np.zeros(n, bool)
    wrong = np.zeros(n, bool)
    wrong[:b] = True
    base[b : b + c] = True
    difference, half = paired_difference(wrong, base)
    assert difference == pytest.approx((b - c) / n)
    assert half == pytest.approx(1.959964 * np.sqrt(b + c - (b - c) ** 2 / n) / n, rel=2e-3)


def shown(plan: Plan, width: int = 80) -> str:
    return printed(lambda console: print_table(plan, read_rows(plan), console), width)


def test_one_seed_concludes_nothing(tmp_path):
    plan = make_plan(["model.lrn=true,false", "pool.overlap=true,false", f"paths.runs={tmp_path}"], multirun=True)
    fill(plan, {0: 0.133, 1: 0.283, 2: 0.112, 3: 0.1})
    text = shown(plan)
    assert "1 seed: no conclusion about the ablation" in text
    for run in plan.runs:
        assert run.run_id in text
    assert "13.3±1.5" in text  # Wilson's half width at 2,000 images: 1.49
    assert "+15.0±1.6" in text  # 300 images right in the first alone: 1.96 * sqrt(.15 * .85 / 2000)
    assert re.findall(r"^(true|false) +(true|false) ", text, re.MULTILINE) == [*product(("true", "false"), repeat=2)]


def test_several_seeds_give_mean_and_spread(tmp_path):
    plan = make_plan(["model.lrn=true,false", "seed=0,1,2", f"paths.runs={tmp_path}"], multirun=True)
    fill(plan, {0: 0.10, 1: 0.20, 2: 0.30, 3: 0.15, 4: 0.15}, failed=5)
    text = shown(plan)
    assert "20.0 ±10.0" in text  # mean and deviation of 10, 20, 30
    assert re.search(r"-5\.0 ±\d", text)
    assert "vs first ±: 95 % interval of the difference, for new seeds and new" in text
    assert "2 of 3" in text
    assert re.search(r"FAILED:\s+diverged", text)
    assert "the training loss of epoch 3 is nan" in text
    assert "no conclusion" not in text


def test_arms_with_other_maps_are_told(tmp_path):
    plan = make_plan(["data.crop_size=96", "pool.overlap=true,false", f"paths.runs={tmp_path / 'odd'}"], multirun=True)
    fill(plan, {0: 0.1, 1: 0.1})
    assert "differ in size" not in shown(plan)
    plan = make_plan(
        ["data.crop_size=100", "pool.overlap=true,false", f"paths.runs={tmp_path / 'even'}"], multirun=True
    )
    fill(plan, {0: 0.1, 1: 0.1})
    assert "feature maps differ in size" in shown(plan)


def test_other_data_are_not_paired(tmp_path):
    plan = make_plan(["data.files_seed=0,1", f"paths.runs={tmp_path}"], multirun=True)
    fill(plan, {0: 0.1, 1: 0.2})
    assert "other data" in shown(plan)
    assert "+10.0" not in shown(plan)


def test_other_data_are_not_subtracted_between_arms(tmp_path):
    line = ["data.test_images=37,50", "seed=0,1", f"paths.runs={tmp_path}"]
    plan = make_plan(line, multirun=True)
    fill(plan, {0: 0.1, 1: 0.1, 2: 0.2, 3: 0.2})
    assert shown(plan).count("other data") == 1
    assert "+10.0" not in shown(plan)


def test_lists_and_brackets_are_shown_as_they_are(tmp_path):
    plan = make_plan(["model.remove=[],[conv3],[fc6,fc7]", f"paths.runs={tmp_path}"], multirun=True)
    fill(plan, {0: 0.1, 1: 0.1, 2: 0.1})
    text = shown(plan, width=100)
    for value in ("model.remove ", "\n[] ", "\n[conv3] ", "\n[fc6, fc7] "):
        assert value in text


def test_what_all_runs_share_stands_once_above_the_table(tmp_path):
    line = ["ablation=none,no_lrn", "trainer.max_epochs=7", "data.train_images=300", f"paths.runs={tmp_path}"]
    plan = make_plan(line, multirun=True)
    fill(plan, {0: 0.1, 1: 0.1})
    text = shown(plan)
    assert text.count("Settings: data.train_images=300 trainer.max_epochs=7\n") == 1
    assert text.count("max_epochs") == 1
    assert re.findall(r"^(\w+) .* [0-9a-f]{12}$", text, re.MULTILINE) == ["none", "no_lrn"]


def test_a_sweep_with_seeds_says_what_it_can_tell(tmp_path):
    """The interval beside the table's difference is that of least squares over the four arms' runs, for 3 differences.

    All runs err on the same images where their numbers of errors agree, so images add next to nothing.
    """
    line = ["model.lrn=true,false", "model.width=0.5,0.25", "seed=0,1,2", f"paths.runs={tmp_path}"]
    plan = make_plan(line, multirun=True)
    centres = np.repeat([0.20, 0.25, 0.30, 0.35], 3)
    values = centres + np.tile([-0.01, 0.0, 0.01], 4)
    fill(plan, dict(enumerate(values)))
    text = shown(plan, 100)
    [interval] = re.findall(r"^true +0\.25 .* \+5\.0 ±([\d.]+)$", text, re.MULTILINE)
    assert float(interval) >= 100 * 0.01 * np.sqrt(2 / 3) * stats.t.ppf(1 - 0.025 / 3, 8) - 0.05
    assert re.search(r"^model.lrn +true → false +\+10\.0 ±", text, re.MULTILINE)
    assert re.search(r"^model.width +0\.5 → 0\.25 +\+5\.0 ±", text, re.MULTILINE)
    assert "interval of all 3 differences at once" in text
    assert re.search(r"^3 seeds, 2,000 test images: differences under ", text, re.MULTILINE)


def test_seeds_of_the_data_are_shown(tmp_path):
    plan = make_plan(["data.seed=0,1", f"paths.runs={tmp_path}"], multirun=True)
    fill(plan, {0: 0.1, 1: 0.1})
    assert " 0/1 " in shown(plan)


def test_finished_runs_in_a_folder_of_others_are_done(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch):
    """Only the sweep's own file cannot be written there, which was exit status 1."""
    line = ["seed=0,1", f"paths.runs={tmp_path}"]
    fill(make_plan(line, multirun=True), {0: 0.1, 1: 0.2})

    def refuse(path: Path, content: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("alexlab.sweep.plan.write_atomic", refuse)
    done = typed("-m", *line)
    assert done.status == 0, done.output
    assert re.search(r"This sweep's file could not be written: .*Permission denied", done.output)


def test_a_sweeps_file(tmp_path):
    plan = make_plan(["seed=0,1", f"paths.runs={tmp_path}"], multirun=True)
    path = write_sweep(plan, tmp_path / "sweeps")
    document = json.loads(path.read_text())
    assert path.name == f"{plan.sweep_id}.json"
    assert [run["run_id"] for run in document["runs"]] == [run.run_id for run in plan.runs]
    assert [run["seed"] for run in document["runs"]] == [0, 1]
    assert [run["overrides"] for run in document["runs"]] == [[f"seed={n}", f"paths.runs={tmp_path}"] for n in (0, 1)]
