"""The rule of a verdict case by case, and what ranges, bounds and second findings make of it."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexlab.study import effects
from alexlab.study.claims import Claim, Verdict, find_claims
from alexlab.study.judgement import Arm, Row
from alexlab.study.samples import Samples
from alexlab.study.statistics import (
    Effect,
)
from alexlab.study.verdicts import both_needed, set_verdict, verdict, weaker
from support.judging import LINE, LRN, judged, planned, rejudged, row
from support.studies import made_study


def of(difference: float, half: float, scatter: float = 0.5, image_variance: float = 0.0) -> Effect:
    """With V = 0 and endless runs, so that a published difference may be off by 1.96 times `scatter`."""
    return Effect(
        difference, half, None, half, None, 0.0, 8.0, scatter / 1.959963984540054, math.inf, image_variance, False
    )


V = Verdict


# What the rules (docs/explanation/verdicts.md) say, case by case: a published 1.5, so that the smallest effect is .75.
CASES: list[tuple[Effect | None, float | None, dict[str, Any], Verdict]] = [
    # Negligible comes before the sign: the whole interval within a half of the published effect.
    (of(0.25, 0.5), 1.5, {}, V.negligible),
    (of(-0.25, 0.5), 1.5, {}, V.negligible),
    (of(0.25, 0.125), 1.5, {}, V.negligible),  # on the claimed side, a sixth of the effect
    (of(-0.25, 0.125), 1.5, {}, V.negligible),  # on the other side
    (of(0.0, 0.0), 1.5, {}, V.negligible),
    (of(0.25, 0.5625), 1.5, {}, V.inconclusive),
    (of(-0.25, 0.5625), 1.5, {}, V.inconclusive),
    (of(1.0, 1.0), 1.5, {}, V.inconclusive),  # touches 0
    (of(-1.0, 1.0), 1.5, {}, V.inconclusive),
    (of(-1.0, 0.9375), 1.5, {}, V.reversed),
    (of(0.0, math.inf, math.inf), 1.5, {}, V.inconclusive),
    # On the claimed side: by where the published figure lies, and at least a half of it.
    (of(1.5, 1.0), 1.5, {}, V.reproduced),
    (of(0.75, 0.25, 0.75), 1.5, {}, V.reproduced),
    (of(0.75, 0.375, 0.75), 1.5, {}, V.size_open),  # a quarter of the effect is not excluded
    (of(1.25, 0.875, 0.75), 1.5, {}, V.size_open),
    (of(1.25, 0.8125, 0.75), 1.5, {}, V.reproduced),
    (of(0.6875, 0.5, 0.9), 1.5, {}, V.size_open),  # noise alone would allow the published effect
    (of(0.6875, 0.5, 0.5), 1.5, {}, V.smaller),
    (of(0.9, 0.5, 0.5), 1.5, {}, V.smaller),
    (of(1.9375, 1.0, 0.5), 1.5, {}, V.reproduced),  # about as far off as two single runs may be
    (of(2.0625, 1.0, 0.5), 1.5, {}, V.larger),
    (of(3.0, 1.0, 0.5), 1.5, {}, V.larger),  # twice the effect is no mere "direction"
    (of(1.5, 0.0, 0.0), 1.5, {}, V.reproduced),
    # A smallest effect of interest of the claim's own.
    (of(0.6875, 0.25, 0.9), 1.5, {"least": 0.6}, V.reproduced),
    (of(0.6875, 0.5, 0.9), 1.5, {"least": 0.6}, V.size_open),
    (of(0.25, 0.5), 1.5, {"least": 0.5}, V.inconclusive),
    # Figures from other images may be further off.
    (of(2.5, 1.0, 0.5, 0.1), 1.5, {}, V.larger),
    (of(2.5, 1.0, 0.5, 0.1), 1.5, {"same_images": False}, V.reproduced),  # sqrt(.0651 + .2) * 1.96 = 1.009
    (of(2.5625, 1.0, 0.5, 0.1), 1.5, {"same_images": False}, V.larger),
    # "More than".
    (of(9.0, 1.0), 1.0, {"at_least": True}, V.reproduced),
    (of(1.0, 0.5, 0.0), 1.0, {"at_least": True}, V.reproduced),
    (of(0.9, 0.5, 0.0), 1.0, {"at_least": True}, V.smaller),
    (of(0.9, 0.5, 0.2), 1.0, {"at_least": True}, V.reproduced),
    (of(0.75, 0.125, 2.0), 1.0, {"at_least": True}, V.smaller),  # its interval lies wholly below the figure
    (of(9.0, 10.0), 1.0, {"at_least": True}, V.inconclusive),
    (of(-9.0, 1.0), 1.0, {"at_least": True}, V.reversed),
    (of(0.0, 0.5), 1.0, {"at_least": True}, V.negligible),
    # Without a figure: the sign, and the smallest effect of interest.
    (of(9.0, 1.0), None, {"least": 2.0}, V.reproduced),
    (of(1.5, 1.0), None, {"least": 2.0}, V.size_open),
    (of(1.0, 0.5), None, {"least": 2.0}, V.negligible),
    (of(-9.0, 1.0), None, {"least": 2.0}, V.reversed),
    (of(1.0, 1.5), None, {"least": 2.0}, V.inconclusive),
    (of(9.0, 1.0), None, {}, V.size_open),  # of a plan that states none
    (of(0.0, 0.0), None, {}, V.inconclusive),
    # Runs too few or failed.
    (of(1.5, 1.0), 1.5, {"runs": (3, 3)}, V.reproduced),
    (of(1.5, 1.0), 1.5, {"runs": (2, 15)}, V.not_testable),
    (of(1.5, 1.0), 1.5, {"runs": (15, 2)}, V.not_testable),
    (None, 1.5, {"runs": (5, 0)}, V.not_testable),
    (None, 1.5, {"runs": (5, 0), "failed": (0, 5)}, V.does_not_train),
    (of(1.5, 1.0), 1.5, {"runs": (4, 15), "failed": (1, 0)}, V.reproduced),  # 20 %
    (of(1.5, 1.0), 1.5, {"runs": (15, 12), "failed": (0, 3)}, V.reproduced),
    (of(1.5, 1.0), 1.5, {"runs": (3, 15), "failed": (1, 0)}, V.does_not_train),
    (of(1.5, 1.0), 1.5, {"runs": (15, 11), "failed": (0, 3)}, V.does_not_train),
    (of(1.5, 1.0), 1.5, {"runs": (2, 15), "failed": (1, 0)}, V.does_not_train),
]


@pytest.mark.parametrize(("found", "published", "options", "expected"), CASES)
def test_verdict(found: Effect | None, published: float | None, options: dict[str, Any], expected: Verdict):
    options = {"runs": (5, 15), **options}
    assert verdict(found, published, 1, **options) is expected
    # And all of it the other way round.
    if found is not None:
        found = Effect(**{**vars(found), "difference": -found.difference})
    assert verdict(found, None if published is None else -published, -1, **options) is expected


def test_the_interval_for_new_images_carries_the_verdict():
    on_these = Effect(1.5, 0.5, 1.0, 0.9, 1.6, 0.3, 8.0, 0.5, 8.0, 0.1, False)
    assert on_these.decisive == 1.6
    assert verdict(on_these, 1.5, 1, runs=(5, 15)) is V.inconclusive
    without_images = Effect(**{**vars(on_these), "new": None, "new_study": None})
    assert verdict(without_images, 1.5, 1, runs=(5, 15)) is V.reproduced


def slow_word(d: float, half: float, published: float | None, scatter: float, least: float | None, bound: bool) -> str:
    """The rules once more, from intervals' ends; for claims that an effect is above 0."""
    low, high = d - half, d + half
    smallest = published / 2 if least is None and published is not None else least
    if smallest is not None and low >= -smallest and high <= smallest:
        return "negligible"
    if high < 0:
        return "reversed"
    if low <= 0:
        return "inconclusive"
    if published is None:
        return "reproduced" if smallest is not None and d >= smallest else "same direction, size open"
    assert smallest is not None
    allowed = published - scatter <= d <= published + scatter or (bound and d >= published)
    if bound and high < published:
        return "same direction, smaller"
    if allowed:
        return "reproduced" if d >= smallest and low > published / 4 else "same direction, size open"
    return "same direction, larger" if d > published else "same direction, smaller"


def test_words_are_those_of_the_rules_written_again():
    rng = np.random.default_rng(8)
    seen = set()
    for _ in range(3000):
        d, half, scatter = rng.normal(0.8, 1.5), abs(rng.normal(0, 0.8)), abs(rng.normal(0, 0.6))
        published = None if rng.random() < 0.2 else float(rng.uniform(0.5, 2))
        least = float(rng.uniform(0.1, 0.5)) if published is None or rng.random() < 0.3 else None
        bound = published is not None and rng.random() < 0.3
        found = verdict(of(d, half, scatter), published, 1, runs=(5, 5), least=least, at_least=bound)
        assert found.value == slow_word(d, half, published, scatter, least, bound)
        seen.add(found)
    assert len(seen) == 7


def test_figures_and_signs_that_are_none_are_refused():
    for published, sign in ((math.nan, 1), (0.0, 1), (-1.0, 1), (math.inf, 1)):
        with pytest.raises(ValueError, match="published="):
            verdict(None, published, sign, runs=(3, 3))
    with pytest.raises(ValueError, match="sign=0"):
        verdict(None, None, 0, runs=(3, 3))


@pytest.mark.parametrize(
    ("first", "second", "one_claim_two_ways", "two_findings"),
    [
        ("reproduced", "reproduced", "reproduced", "reproduced"),
        ("reproduced", "smaller", "smaller", "smaller"),
        ("reproduced", "inconclusive", "inconclusive", "inconclusive"),
        ("reproduced", "reversed", "inconclusive", "reversed"),
        ("size_open", "negligible", "inconclusive", "negligible"),
        ("negligible", "reversed", "negligible", "reversed"),
        ("inconclusive", "reversed", "inconclusive", "reversed"),
    ],
)
def test_two_words(first: str, second: str, one_claim_two_ways: str, two_findings: str):
    for pair in ((V[first], V[second]), (V[second], V[first])):
        assert weaker(*pair) is V[one_claim_two_ways]
        assert both_needed(*pair) is V[two_findings]


def test_one_run_or_two_in_an_arm(tmp_path: Path, own: Path):
    for seeds, interval in ((1, np.inf), (2, None)):
        folder = tmp_path / str(seeds)
        made_study(folder, [*LINE[:2], f"study.seeds={seeds}", "study.base_seeds=1"], config_dir=own)
        lrn = row(judged(folder), "lrn")
        assert lrn.verdict == "not testable here"
        assert lrn.why_none == "1 run in an arm; a verdict needs 3"
        assert lrn.effect is not None
        if interval is not None:
            assert lrn.effect.study == interval


def test_arms_without_any_spread(records: Path):
    ids = planned(records)
    for arm in ids.values():
        for run_id in arm[1:]:
            for name in ("predictions.npz", "metrics.csv"):
                shutil.copy(records / arm[0] / name, records / run_id / name)
            result = json.loads((records / arm[0] / "result.json").read_text())
            (records / run_id / "result.json").write_text(json.dumps(result))
    lrn = row(judged(records), "lrn")
    assert lrn.effect is not None
    assert (lrn.spreads, lrn.effect.study) == ((0, 0), 0)
    assert lrn.verdict is None
    assert lrn.why_none == "all runs of an arm have the same result, whatever their seeds, which points to a bug"


def test_a_claim_without_a_figure_has_a_smallest_effect(finished: Path):
    base = {"published": {}, "direction": "lower"}
    none, small, large = rejudged(finished, base, {**base, "smallest_effect": 1.0}, {**base, "smallest_effect": 50.0})
    assert (none.verdict, small.verdict, large.verdict) == ("same direction, size open", "reproduced", "negligible")


def test_a_claim_that_needs_two_findings(finished: Path):
    """The test error falls by ten points, and the gap does not move: the records' training error follows it."""
    base = {"published": {}, "direction": "lower", "smallest_effect": 1.0}
    both, contrary = rejudged(
        finished, {**base, "also": {"train_top1_error": "lower"}}, {**base, "also": {"train_top1_error": "higher"}}
    )
    assert both.verdict == "reproduced"
    assert contrary.word is not None
    assert contrary.word.value == "reversed"
    assert contrary.verdict == ("reversed (top-1 error: as claimed; training error, centre view, top-1: reversed)")
    assert contrary.notes[1].startswith("the claim also needs training error, centre view, top-1 to be higher: -")


RANGES = [
    {"verdict": "reproduced", "words": "as large as said", "above": -20, "below": -2},
    {"verdict": "negligible", "words": "smaller than 1 point", "above": -1, "below": 1},
    {"verdict": "same direction", "words": "same direction on Imagenette", "below": 0},
    {"verdict": "reversed", "words": "opposite", "above": 0},
]


def test_a_claim_may_have_ranges_of_its_own(finished: Path):
    lrn, other = rejudged(finished, {"ranges": RANGES}, {"ranges": RANGES[1:]})
    assert (lrn.verdict, lrn.word) == ("as large as said", Verdict.reproduced)
    assert (other.verdict, other.word) == ("same direction on Imagenette", Verdict.same_direction)
    [turned] = rejudged(
        finished, {"ranges": RANGES, "arm": LRN["against"], "against": [], "published": {"top1_error": 9}}
    )
    assert (turned.verdict, turned.word) == ("opposite", Verdict.reversed)


def told(claim: dict[str, Any], effect: Effect) -> Row:
    """A claim's row with its verdict, for an effect of five runs in each arm, as fractions."""
    claim = {**{"id": "a", "section": "3", "statement": "Yes.", "recipes": ["demo"]}, **claim}
    runs: list[Any] = [None] * 5
    arms = tuple(Arm(name, overrides, 0.01, {}, runs) for name, overrides in (("x", ["model.lrn=false"]), ("none", [])))
    one = Row(Claim(**claim), arms, effect, spreads=(0.01, 0.01), counted=(5, 5))
    set_verdict(one, {"recipe": "demo", "rate": "common", "data": "cifar10"})
    return one


def on_two(difference: float, fixed: float, new: float, scatter: float = 0.01) -> Effect:
    """Half widths for these test images and for new ones, all in points; `scatter`: the prediction interval's."""
    found = of(difference / 100, fixed / 100, scatter / 100)
    return replace(found, new=new / 100, new_study=new / 100)


@pytest.mark.parametrize(
    ("difference", "half", "scatter", "expected"),
    [
        (-2.0, 1.5, 0.5, "reproduced as a difference"),
        (-1.01, 0.9, 1.0, "reproduced as a difference"),
        (-1.01, 0.9, 0.9, "inconclusive"),
        (-0.9, 0.5, 2.0, "inconclusive"),  # below 0, but of less than 1 point
        (-3.0, 1.0, 0.9, "inconclusive"),  # -2 is not within the prediction interval
        (-1.5, 1.4, 0.4, "inconclusive"),
        (-0.5, 0.4, 2.0, "same direction, smaller"),
        (-0.2, 0.7, 2.0, "negligible"),
        (0.2, 0.7, 2.0, "negligible"),
        (-0.2, 0.9, 2.0, "inconclusive"),
        (1.0, 0.5, 2.0, "reversed"),
        (0.5, 0.4, 2.0, "negligible"),  # within 1 point is tried before the sign, as in the general rule
    ],
)
def test_the_plan_of_lrn_on_cifar10(difference: float, half: float, scatter: float, expected: str):
    """results/cifar_lrn/README.md, case by case."""
    claim = {**dataclasses.asdict(find_claims(["cifar_lrn/lrn"])[0]), "recipes": ["demo"]}
    assert told(claim, on_two(difference, half, half, scatter)).verdict == expected


def training_errors(folder: Path, run_ids: list[str], errors: list[float]) -> None:
    for run_id in run_ids:
        path = folder / run_id / "metrics.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        for line, error in zip(lines[1:], errors, strict=True):
            line[4] = str(error + int(run_id, 16) % 97 / 1e4)
        path.write_text("\n".join(",".join(line) for line in lines))


def test_a_bound_supports_a_direction_at_most(records: Path):
    """Figure 1: ReLU against tanh, which never gets there; here the base against the arm without LRN."""
    ids = planned(records)
    training_errors(records, ids["none"], [0.5, 0.3, 0.2, 0.1])
    training_errors(records, ids["no_lrn"], [0.6, 0.5, 0.4, 0.3])
    speed = {"metric": "epochs_to_25", "ratio": True, "arm": LRN["against"], "against": []}
    ranges = [
        {"verdict": "reproduced", "words": None, "above": 1.1, "below": 9},
        {"verdict": "same direction", "words": "several times faster", "above": 1.3},
        {"verdict": "same direction", "words": "faster", "above": 1},
    ]
    plain, ranged = rejudged(
        records,
        {**speed, "published": {"epochs_to_25": 1.7}},
        {**speed, "published": {"epochs_to_25": 6.0}, "ranges": ranges},
    )
    for one in (plain, ranged):
        assert one.is_bound
        assert one.word is Verdict.same_direction
    assert plain.effect is not None
    low = plain.shown(plain.effect.difference - plain.effect.study)
    assert 1.4 < low < 1.7
    assert plain.verdict == f"same direction, at least {low:.2f}×"
    assert ranged.verdict == f"several times faster, at least {low:.2f}×"


def test_what_was_there_when_first_logged_is_a_bound_too(records: Path):
    ids = planned(records)
    training_errors(records, ids["none"], [0.2, 0.2, 0.1, 0.1])
    training_errors(records, ids["no_lrn"], [0.6, 0.5, 0.3, 0.2])
    speed = {"metric": "epochs_to_25", "ratio": True, "published": {"epochs_to_25": 3.5}}
    arms = {"arm": LRN["against"], "against": []}
    slower, faster = rejudged(records, {**speed, **arms}, {**speed, "published": {"epochs_to_25": 0.3}})
    for one, sign in ((slower, ">"), (faster, "<")):
        assert one.is_bound, sign
        assert one.word is Verdict.same_direction
        assert "first logged after the event" in " ".join(one.notes)
    [backwards] = rejudged(records, speed)  # the effect may be smaller than measured: nothing can be said
    assert (backwards.verdict, backwards.why_none) == (
        "not testable here",
        "runs were first logged after what the claim is about",
    )


def test_runs_that_never_reached_what_a_claim_waits_for_settle_nothing(records: Path):
    for run_id in [run_id for runs in planned(records).values() for run_id in runs]:
        path = records / run_id / "metrics.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("\n".join(",".join([*one[:4], "0.9", *one[5:]]) for one in [lines[0], *lines[1:]]))
        path.write_text(path.read_text().replace("train_loss,0.9", "train_loss,train_top1_error", 1))
    sooner = row(judged(records), "sooner")
    assert (sooner.verdict, sooner.why_none) == ("not testable here", "runs ended before what the claim is about")


def test_a_bound_is_judged_by_its_side_however_small_it_is(records: Path):
    """The effect may be larger than measured, so that it is within the smallest effect of interest says nothing."""
    ids = planned(records)
    training_errors(records, ids["none"], [0.5, 0.3, 0.2, 0.1])
    training_errors(records, ids["no_lrn"], [0.6, 0.5, 0.4, 0.3])
    speed = {"metric": "epochs_to_25", "ratio": True, "arm": LRN["against"], "against": []}
    [found] = rejudged(records, {**speed, "published": {"epochs_to_25": 36.0}})  # factors below 6 are negligible
    assert found.is_bound
    assert found.effect is not None
    low = found.shown(found.effect.difference - found.effect.study)
    assert 1 < low < 6
    assert found.verdict == f"same direction, at least {low:.2f}×"


def test_an_interval_that_only_straddles_a_claims_own_bound_is_not_of_this_test_set_only(finished: Path):
    [lrn] = rejudged(finished, {})
    assert lrn.effect is not None
    straddled = 100 * lrn.effect.difference
    [found] = rejudged(finished, {"ranges": [{"verdict": "same direction", "words": None, "below": straddled}]})
    assert found.effect is not None
    assert abs(found.effect.difference) > found.effect.decisive
    assert found.verdict == "inconclusive"


def test_a_level_waits_for_runs_that_cannot_be_read(records: Path):
    level = {"against": [], "is_level": True, "published": {"top1_error": 30.0}}
    [before] = rejudged(records, level)
    assert before.verdict is not None
    for run_id in planned(records)["none"][:2]:
        (records / run_id / "predictions.npz").write_bytes(b"")
    [found] = rejudged(records, {**level, "view": "corner"})
    assert (found.verdict, found.why_none) == (None, "interim: finished runs could not be read")


def test_one_run_is_no_level(tmp_path: Path, own: Path):
    made_study(tmp_path, [*LINE[:2], "study.seeds=1", "study.base_seeds=1"], config_dir=own)
    assert row(judged(tmp_path), "level").why_none == "1 run; a verdict needs 3"


def test_only_this_test_set(finished: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the interval for new images contains 0, and that for these images does not."""
    real = effects.effect

    def wide(*arguments: Any, **more: Any) -> Any:
        found = real(*arguments, **more)
        return dataclasses.replace(found, new_study=None if found.new_study is None else 1.0)

    monkeypatch.setattr(effects, "effect", wide)
    monkeypatch.setattr(Samples, "matched", lambda *_: {})
    assert row(judged(finished), "lrn").verdict == "inconclusive (same direction on this test set only)"


@pytest.mark.parametrize(
    ("points", "here", "new", "expected"),
    [
        (0.9, 0.3, 0.4, "inconclusive"),  # above 0 and on both sides of the bound, whatever the images
        (0.8, 0.5, 0.9, "inconclusive"),  # above 0 on this test set only, but on both sides of the bound there
        (0.8, 0.1, 0.4, "inconclusive (reproduced on this test set only)"),
        (1.2, 0.1, 0.4, "inconclusive (reversed on this test set only)"),
    ],
)
def test_only_this_test_set_by_ranges(
    finished: Path, monkeypatch: pytest.MonkeyPatch, points: float, here: float, new: float, expected: str
):
    """Of a claim that the error is less than 1 point higher."""
    size, here, new = points / 100, here / 100, new / 100
    found = Effect(size, here, new, here, new, 0.001, 8.0, 0.01, 8.0, 1e-6, False)
    monkeypatch.setattr(effects, "effect", lambda *_: found)
    monkeypatch.setattr(Samples, "matched", lambda *_: {})
    ranges = [{"verdict": "reproduced", "below": 1.0}, {"verdict": "reversed", "above": 1.0}]
    [hardly] = rejudged(finished, {"published": {}, "direction": "lower", "ranges": ranges})
    assert (hardly.word, hardly.verdict) == (Verdict.inconclusive, expected)
