"""The report of trials of learning rates, and what a study's report has of them, on the kept records of figure 1."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from alexlab.cli import report
from alexlab.config import PROJECT_DIR, ConfigError
from alexlab.report.wording import rate_sentences
from alexlab.runs.bundle import unpacked
from alexlab.study.judge import judge
from alexlab.study.plans import read_looks
from alexlab.study.rates import ArmTrials, RateTrial, read_trials
from alexlab.study.records import Archive, read_archive

KEPT = PROJECT_DIR / "results" / "figure1" / "records.zip"


@pytest.fixture(scope="module")
def folder() -> Path:
    return unpacked(KEPT)


@pytest.fixture(scope="module")
def plan(folder: Path) -> dict:
    [path] = (folder / "studies").glob("*choose*.json")
    return json.loads(path.read_text())["looks"][-1]


@pytest.fixture(scope="module")
def archive(folder: Path) -> Archive:
    return read_archive([folder])


def reached(path: Path) -> float:
    """Epochs to 25 % training error, by NumPy from the log alone; NaN if it is not reached."""
    with path.open() as file:
        rows = [(float(row["epoch"]), float(row["train_top1_error"])) for row in csv.DictReader(file)]
    epochs, errors = np.array(rows).T
    below = np.flatnonzero(errors <= 0.25)
    if not len(below):
        return np.nan
    i = below[0]
    return float(np.interp(0.25, errors[[i, i - 1]], epochs[[i, i - 1]]))


def test_each_trial_has_the_value_of_its_own_log(folder: Path, plan: dict, archive: Archive):
    base, tanh, _ = read_trials(plan, archive.runs)
    assert [one.lr for one in base.trials][:4] == [0.0005, 0.001, 0.002, 0.004]
    for one in base.trials[:4]:
        assert one.value == pytest.approx(reached(folder / one.run_id / "train_error.csv"), rel=1e-9)
    assert np.isnan(reached(folder / base.trials[4].run_id / "train_error.csv"))
    assert (base.trials[4].value, base.trials[4].why_none) == (None, "stopped after 2")  # it lost its race
    assert (tanh.trials[0].value, tanh.trials[0].why_none) == (None, "not in 150")


def test_a_trial_without_a_record_has_what_the_plan_noted(plan: dict):
    base, tanh, _ = read_trials(plan, {})
    assert base.trials[0].value == pytest.approx(13.296, abs=5e-4)
    assert (tanh.trials[0].value, tanh.trials[0].is_finished) == (None, False)


def test_the_page_of_trials_shows_them_and_no_claims(
    plan: dict, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    line = ["study=figure1", "study.rate=choose", f"runs={KEPT}", f"out={tmp_path}"]
    assert report.main(["--json", *line]) == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    first = study["rates"][0]["trials"][0]
    assert first["value"] == pytest.approx(reached(folder / first["run_id"] / "train_error.csv"), rel=1e-9)
    assert report.main(line) == 0
    told = " ".join(capsys.readouterr().out.split())
    for one in ("0.0005: 13.3", "0.001: 9.1", "0.002: 7.1", "0.004: 7.1", "0.008: stopped after 2"):
        assert f" {one}" in told
    assert "Trials of base" in told
    assert "not testable" not in told
    [made] = tmp_path.glob("*choose*")
    text, page = ((made / f"report.{end}").read_text() for end in ("md", "html"))
    assert re.search(r"^\| 0\.0005 \| 13\.3 \| not in 150 \|", text, re.MULTILINE)
    assert "## Claims" not in text
    assert 'id="claims"' not in page
    assert "13.3 epochs" in (made / "trials_0.svg").read_text()  # the figure's own computation, from the same log
    assert (made / "rates.png").is_file()


def test_a_value_of_zero_has_no_ratio():
    """Ten drawn shapes are soon told apart without an error."""

    def arm(name: str, *values: float) -> ArmTrials:
        trials = tuple(RateTrial(lr, 0, "a", value) for lr, value in zip((0.01, 0.02), values, strict=True))
        return ArmTrials(name, "epochs_to_25", trials, None, None)

    assert rate_sentences([arm("none", 0.0, 2.0), arm("no_lrn", 1.0, 3.0)])[-1].endswith("no verdict: 0.02: 1.50")


def test_a_rate_of_zero_is_a_corrupt_plan(folder: Path, tmp_path: Path):
    [path] = (folder / "studies").glob("*choose*.json")
    content = json.loads(path.read_text())
    content["looks"][-1]["rates"][0]["trials"][0]["lr"] = 0
    (tmp_path / path.name).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"rates\.trials\.lr is 0, must be a number above 0"):
        read_looks(tmp_path / path.name)


def test_sentences_name_the_rate_that_was_chosen_or_why_there_is_none():
    trials = (
        RateTrial(0.01, 1000, "a", 0.25),
        RateTrial(0.01, 1001, "b", 0.27),
        RateTrial(0.02, 1000, "c", None, "failed"),
    )
    chosen = ArmTrials("none", "val_top1_error", trials, 0.01, None)
    doubtful = ArmTrials("no_lrn", "val_top1_error", trials[:1], None, "no rate succeeds")
    assert rate_sentences([chosen, doubtful]) == [
        "Trials of base, validation error in % by learning rate: 0.01: 25.00 and 27.00, 0.02: failed; chosen: 0.01.",
        "Trials of no_lrn, validation error in % by learning rate: 0.01: 25.00; no rate succeeds.",
    ]


def test_a_finished_search_tells_the_rates_that_the_plan_after_it_has(plan: dict, archive: Archive):
    """A round is planned before its trials, so the search's own last plan cannot have what the last round chose."""
    chosen = [{**rate, "lr": lr} for rate, lr in zip(plan["rates"], (0.00282843, 0.016, 0.011), strict=True)]
    undecided = {**plan, "rates": [{**rate, "lr": None} for rate in plan["rates"]]}
    own_id = plan["id"].replace("-choose-", "-own-")
    own = {**plan, "id": own_id, "rate": "own", "rates": chosen, "planned": plan["planned"] + 9}

    def rates(started: dict[str, list[dict]]) -> list[float | None]:
        return [arm.chosen for arm in judge([undecided], archive, started=started).trials]

    assert rates({plan["id"]: [undecided]}) == [None, None, None]
    assert rates({plan["id"]: [undecided], own_id: [own]}) == [0.00282843, 0.016, 0.011]
    before = {**own, "planned": plan["planned"] - 9}  # the search has gone on since, such as from another start
    assert rates({plan["id"]: [undecided], own_id: [before]}) == [None, None, None]
    assert rates({own_id.replace("figure1", "other"): [own]}) == [None, None, None]
