"""Intervals and verdicts hold in simulated studies of a known truth."""

from __future__ import annotations

from typing import Any

import pytest

from alexlab.study.simulate import main, simulate

SIMULATED: list[dict[str, Any]] = [
    {"claims": 1, "runs": 10, "base_runs": 10},
    {"claims": 1, "runs": 5, "base_runs": 15, "unlike": 1},
    {"claims": 2, "runs": 5, "base_runs": 15, "unlike": 1, "factor": 3},
    {"claims": 6, "noise": "t3"},
    {"claims": 6, "noise": "lognormal"},
    {"claims": 6, "partly": 0.1},
    {"claims": 6, "scatter": 0.3},
    {"claims": 12, "runs": 5, "base_runs": 15, "scatter": 0.3},
    *({"claims": 6, "correlation": correlation, "scatter": 0.3} for correlation in (0.8, 0.0, -0.5)),
    {"claims": 1, "correlation": 0.8},
    *({"claims": claims, "runs": 5, "base_runs": 5, "correlation": 0.0, "base_factor": 3} for claims in (1, 2)),
    {"claims": 6, "images": 1000, "image_sd": 0.8},
]


@pytest.mark.parametrize("options", SIMULATED, ids=str)
def test_intervals_hold_in_simulated_studies(options: dict[str, Any]):
    """Of 400 studies a share of .05 has a standard error of .011."""
    found = simulate(400, **options)
    assert 0.93 - 0.01 < found["fixed"] < 0.97 + 0.01
    if "new" in found:
        assert 0.92 < found["new"] < 0.98
    assert found["study_error"] <= 0.06 + 0.025


def test_words_of_simulated_studies():
    """At a quarter of the effect next to nothing is reproduced, at the true effect nearly all is."""
    options: dict[str, Any] = {"claims": 6, "published": 0.0372}
    quarter, whole, twice = (simulate(200, size=share * 0.0372, **options) for share in (0.25, 1.0, 2.0))
    assert quarter["reproduced"] <= 0.03
    assert whole["reproduced"] >= 0.9
    assert twice["same direction, larger"] > 0.9


def test_a_quarter_of_a_small_effect_is_rarely_called_reproduced():
    """Of 2.7 sd, by one claim of 10 runs an arm: at most .025, since such an interval excludes the truth that often."""
    options: dict[str, Any] = {"claims": 1, "runs": 10, "base_runs": 10, "published": 2.7 * 0.004}
    quarter, whole = (simulate(1500, size=share * 2.7 * 0.004, **options) for share in (0.25, 1.0))
    assert quarter["reproduced"] <= 0.025 + 3 * 0.004
    assert whole["reproduced"] >= 0.9


def test_effects_are_found_in_simulated_studies():
    options: dict[str, Any] = {"images": 0, "run_sd": 0.0015, "scatter": 0.3}
    assert simulate(200, size=0.014, **options)["found"] > 0.99
    assert 0.75 < simulate(200, size=0.004, **options)["found"] < 0.95


def test_main_prints_both_tables(capsys: pytest.CaptureFixture[str]):
    main(["--studies", "2", "--only", "1 claims, 10/10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 claims, 10/10 ")
    assert any("published 9.3 sd, true x1" in line for line in lines)
