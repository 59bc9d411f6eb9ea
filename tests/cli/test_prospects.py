"""What `--dry-run` prints of a study's prospects, and the command that a budget gives."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from alexlab.cli import forecast
from alexlab.cli.train import main
from alexlab.study.claims import find_claims
from alexlab.study.planning import prospects
from alexlab.sweep.plan import make_plan

HOUR = 3600.0


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes a tenth of an hour."""
    monkeypatch.setattr(forecast, "forecast", lambda configs: [((HOUR / 10,) * 3, 1)] * len(configs))
    monkeypatch.setenv("COLUMNS", "80")


def lines(tmp_path: Path, *more: str) -> list[str]:
    return ["study=lrn", "--dry-run", f"paths.runs={tmp_path}", *more]


def test_claims_that_the_plan_cannot_settle_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(lines(tmp_path, "study.assumed_sd=0.3", "study.claims=[paper/lrn,paper/overlap,paper/conv3]")) == 0
    output = capsys.readouterr().out
    table = output[output.index("What the plan can show") :]
    shares = [int(share) for share in re.findall(r"(\d+) %\s", table.partition("This plan")[0])]
    assert shares == sorted(shares)
    assert len(set(shares)) == 3
    assert all(len(line) <= 80 for line in table.splitlines() if not line.startswith("python"))
    assert "study.assumed_sd (80 % upper bounds where measured)" in " ".join(table.split())


def test_a_budget_prints_an_ordinary_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["python -m alexlab train"])
    assert main(lines(tmp_path, "study.assumed_sd=0.1", "study.budget=3h")) == 0
    output = capsys.readouterr().out
    [line] = re.findall(r"^python -m alexlab train (.*)$", output, re.MULTILINE)
    words = shlex.split(line)
    assert "study.budget" not in line
    plan = make_plan(words)
    assert len(plan.runs) * HOUR / 10 <= 3 * HOUR
    [claims] = [word.partition("=")[2].strip("[]").split(",") for word in words if word.startswith("study.claims=")]
    assert plan.study is not None
    seeds = {len(arm.seeds) for arm in plan.study.arms if arm.overrides}
    [runs] = seeds
    base = max(len(arm.seeds) for arm in plan.study.arms)
    settled = prospects(find_claims(claims), runs, base, 2000, [], 0.1)
    assert all(one.is_settled for one in settled if one.why_not is None)
    assert f"3 hours settle {sum(one.why_not is None for one in settled)} of" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study=lrn", "study.budget=4h"], "study.budget=4h: plans a study; add --dry-run"),
        (["study.budget=4h", "--dry-run"], "study.budget=4h: plans a study; add study=NAME"),
        *(
            (["study=lrn", f"study.budget={given}", "--dry-run"], f"study.budget={given}: give hours or days")
            for given in ("abc", "-3h", "0h", "1e9h", "0", "nanh")
        ),
        (["study=lrn", "study.budget=0.1h", "study.assumed_sd=1", "--dry-run"], "study.budget=0.1h: settles no claim"),
        (
            ["study=lrn", "study.budget=10h", "--dry-run"],
            "study.budget: no claim has an effect",
        ),
        *(
            (["study=lrn", "study.budget=9h", f"study.rate={rate}", "--dry-run"], "study.budget=9h: cannot plan trials")
            for rate in ("own", "choose")
        ),
        (["study=lrn", "study.assumed_sd=-1", "--dry-run"], "study.assumed_sd=-1: must be above 0"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*words, f"paths.runs={tmp_path}"]) == 2
    [error] = capsys.readouterr().err.strip().splitlines()
    assert error.startswith(f"error: {message}")
