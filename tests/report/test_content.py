"""Sentences and cells of a report, by made judgements."""

from __future__ import annotations

import dataclasses
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest

from alexlab.report.content import report_content
from alexlab.report.html import css_class, page
from alexlab.report.latex import claims_latex
from alexlab.report.plots import _forest_row
from alexlab.report.wording import measured, printed, summary
from alexlab.report.write import claim_facts
from alexlab.study.claims import Claim, Verdict
from alexlab.study.judgement import Arm, Judgement, Row
from alexlab.study.metrics import HOW_TO_MEASURE
from alexlab.study.statistics import Effect

CLAIM = {"id": "lrn", "section": "3.3", "statement": "LRN helps.", "against": ["ablation=no_lrn"], "source": "mine"}
EFFECT = Effect(
    difference=-0.010, standard_error=0.001, df=10.0, fixed=0.002, study=0.003, run_sd=0.004, pair_df=10.0, new=0.0025,
    new_study=0.0035, image_variance=0.0, welch=False,
)  # fmt: skip


def made_row(difference: float = -0.010, **claim: Any) -> Row:
    """A row of two arms with an effect and no verdict, of a claim of 1.4 points unless `claim` changes it."""
    found = Claim(**{**CLAIM, "published": {"top1_error": -1.4}, "recipes": ["imagenet128"], **claim})
    arms = tuple(Arm(" ".join(one) or "none", one, 0.01, {}) for one in found.compared)
    return Row(found, arms, dataclasses.replace(EFFECT, difference=difference), counted=(5,) * len(arms))


def judgement_of(*rows: Row, problems: list[str] | None = None) -> Judgement:
    plan = {"name": "made", "recipe": "demo", "protocol": "paper", "model": "alexnet", "data": "shapes", "rate": "own",
            "id": "made-abcdef", "claims_digest": "0", "line": ["study=made"], "digest": "0"}  # fmt: skip
    arms = [arm for row in rows for arm in row.arms]
    return Judgement(plan, 1, list(rows), arms, len(rows), problems or [], [])


def runs_called(*run_ids: str) -> list[Any]:
    return [SimpleNamespace(run_id=run_id) for run_id in run_ids]


def shown(*rows: Row) -> dict[str, Any]:
    return report_content(judgement_of(*rows))


def test_a_group_of_runs_is_no_run():
    row = made_row(arm=[], against=[], metric="five_top1_error", one_arm=True, published={"five_top1_error": -1.0})
    row.counted = (3,)
    [claim] = shown(row)["claims"]
    assert claim.sides[0].counts == "15 in 3 groups"
    assert claim.sort["runs"] == 3


def test_only_runs_that_the_effect_is_of_are_counted():
    row = made_row()
    row.counted = (4, 5)
    row.arms[0].partly += runs_called("a")
    [claim] = shown(row)["claims"]
    assert [side.counts for side in claim.sides] == ["4, 1 failed or partly trained", "5"]


def test_keys_that_the_plan_changes_are_expected_to_differ():
    row = made_row(differs=["model.lrn"])
    row.differing, row.unexpected = ["model.lrn", "optim.lr", "pool.ceil"], ["pool.ceil"]
    [claim] = shown(row)["claims"]
    assert claim.differing == [("model.lrn", True), ("optim.lr", True), ("pool.ceil", False)]


def test_the_interval_that_decides_about_a_level_is_shown_and_exported():
    row = made_row(arm=[], against=[], is_level=True, published={"top1_error": 40.7})
    row.effect, row.level = None, (0.41, 0.004, 0.02)
    [claim] = shown(row)["claims"]
    assert claim.intervals == {"this test set": "40.60 to 41.40", "study-wise": "39.00 to 43.00"}
    assert "study-wise prediction interval" in claim.rule
    assert measured(row) == "41.00 ±2.00"
    facts = claim_facts(row)
    assert (facts["fixed_half"], facts["study_half"]) == pytest.approx((0.4, 2.0))
    assert any("of a level, of the prediction interval of one more run" in line for line in printed(judgement_of(row)))


def test_half_of_a_ratio_is_its_square_root():
    row = made_row(math.log(2), metric="epochs", ratio=True, published={"epochs": 2.0})
    [claim] = shown(row)["claims"]
    assert "at least as far from 1 as 1.41, the square root of the published one" in claim.rule
    assert "half" not in claim.rule
    sizes = shown(row, made_row(-0.007))["findings"][2]  # half of 1.4 points, and the ratio as published
    assert sizes.startswith("Sizes: the effects are 0.50 to 0.50 times the published ones; 0 of 1 intervals")


def test_a_smallest_ratio_is_a_factor_on_either_side_of_one():
    sizes = {"smallest_effect": 1.5, "smallest_effect_reason": "costs a day", "published": {}}
    [claim] = shown(made_row(-1.0, metric="epochs", ratio=True, direction="lower", **sizes))["claims"]
    assert "entirely below one, and the effect is at least a factor of 1.5 (costs a day)" in claim.rule


@pytest.mark.parametrize(
    ("claim", "runs"),
    [
        ({}, "two single runs"),
        ({"arm": [], "against": [], "against_view": "center"}, "a single run"),
        (
            {"against": [], "metric": "five_top1_error", "one_arm": True, "published": {"five_top1_error": -1.4}},
            "a single group of 5 runs",
        ),
    ],
)
def test_what_the_published_figure_is_from(claim: dict[str, Any], runs: str):
    row = made_row(**claim)
    row.strength = 2.0
    [found] = shown(row)["claims"]
    assert found.original == f"z = 2.0 for the published effect in {runs}"
    assert f"prediction interval of {runs}" in found.rule


def test_the_rule_says_which_interval_excludes_a_quarter():
    assert "; its 95 % interval for new images excludes 0.35 points" in shown(made_row())["claims"][0].rule
    of_loss = made_row(metric="train_loss", published={"train_loss": -1.4})
    assert "; its 95 % interval excludes 0.35 nats" in shown(of_loss)["claims"][0].rule


def test_the_forest_draws_the_interval_that_the_rule_names():
    """For new images where it is known, else for this test set."""
    row = made_row()
    assert _forest_row(row).half == pytest.approx(0.25)
    row.effect = dataclasses.replace(EFFECT, new=None, new_study=None)
    assert _forest_row(row).half == pytest.approx(0.2)


def test_no_difference_is_not_open_where_none_is_claimed():
    ranges = [{"verdict": "reproduced", "below": 1.0}, {"verdict": "reversed", "above": 1.0}]
    no_worse = {"direction": "lower", "published": {}, "ranges": ranges}
    found = shown(
        made_row(0.005, id="none_a", **no_worse), made_row(0.0, id="none_b", **no_worse),
        made_row(0.02, id="worse"), made_row(0.001, id="near"),
    )["findings"]  # fmt: skip
    assert "no effect in the claimed direction; worse in the other" in found[1]
    assert "Open: whether near differ from zero" in found[3]
    beyond = [{"verdict": "reproduced", "above": 0.5}]
    of_a_difference = shown(made_row(0.02, direction="higher", published={}, ranges=beyond))["findings"]
    assert "lrn in the claimed direction" in of_a_difference[1]


def test_conventions_of_tables_are_stated_where_a_table_has_them():
    row, other = made_row(), made_row(id="other")
    row.confounds = ["the arms do not differ in model.lrn, as the claim says"]
    judgement = judgement_of(row, other)
    assert "1 row has confounds." in summary(judgement)
    assert not any("*" in line or "±" in line or "in tables" in line for line in summary(judgement))
    assert {"± is half the width of the study-wise interval.", "* marks rows with confounds."} <= {*printed(judgement)}


def test_records_are_counted_once_and_unmeasured_nets_apart():
    row = made_row(arm=[], against=[], metric="retrieval", one_arm=True, published={}, direction="higher")
    row.arms[0].runs = runs_called("a", "b")
    row.effect, row.counted = None, (0,)
    problems = [
        f"{'a' * 12}: is corrupt; not counted for gap",
        f"{'a' * 12}: is corrupt; not counted for top1_error",
        f"at own rates: {'a' * 12}: is corrupt; not counted for colour_gap",
        f"/runs/{'b' * 12}/result.json: is corrupt; left out",
        f"{'c' * 12}: has no neighbours.json; python src/report.py with --nets measures it; not counted for retrieval",
    ]
    lines = summary(dataclasses.replace(judgement_of(row, problems=problems), arms=[]))
    assert "2 records could not be used, or not in full." in lines
    assert "Nets are not measured yet: lrn. python src/report.py with --nets measures them." in lines
    lines = summary(dataclasses.replace(judgement_of(row, problems=problems[-1:]), arms=[]))
    assert not any("could not be used" in line for line in lines)


def test_nets_that_are_not_measured_at_own_rates_only_are_named_too():
    nets = {"arm": [], "against": [], "metric": "retrieval", "one_arm": True, "published": {}, "direction": "higher"}
    row, own = made_row(**nets), made_row(**nets)
    row.counted, own.counted = (1,), (0,)
    for one in (row, own):
        one.arms[0].runs = runs_called("a")
    row.own_rate = own
    problem = f"at own rates: {'a' * 12}: has no neighbours.json; {HOW_TO_MEASURE} measures it"
    lines = summary(judgement_of(row, problems=[problem]))
    assert f"Nets are not measured yet: lrn. {HOW_TO_MEASURE} measures them." in lines
    row.own_rate = None  # the line is of a metric that stands beside a claim
    lines = summary(judgement_of(row, problems=[problem]))
    assert f"Nets are not measured yet. {HOW_TO_MEASURE} measures them." in lines


def test_a_latex_table_says_which_interval_a_level_has():
    row = made_row(arm=[], against=[], is_level=True, published={"top1_error": 40.7})
    row.effect, row.level = None, (0.41, 0.004, 0.02)
    said = "The interval of a level is the prediction interval of one more run."
    assert said in claims_latex(judgement_of(row, made_row()))
    assert said not in claims_latex(judgement_of(made_row()))


def test_a_verdict_at_own_rates_is_in_the_table_without_an_effect_too():
    row = made_row()
    row.own_rate = made_row(-0.02)
    row.own_rate.verdict = "reproduced"
    facts = claim_facts(row)
    assert facts["own_rate_new_study_half"] == pytest.approx(0.35)
    assert facts["own_rate_study_half"] == pytest.approx(0.3)
    row.own_rate.effect = None
    row.own_rate.verdict = "not testable here"
    assert claim_facts(row)["own_rate_verdict"] == "not testable here"


def test_failed_and_partly_trained_runs_of_an_arm_are_apart():
    row = made_row()
    row.arms[1].failed += runs_called("a", "b")
    row.arms[1].partly += runs_called("c")
    found = shown(row)["arms"][1]
    assert (found.done, found.failed, found.partly) == (1, 2, 1)


def test_every_verdict_has_its_colour():
    """On a claim, in the tally and in the legend."""
    row = made_row()
    row.word, row.verdict = Verdict.larger, Verdict.larger.value
    text = page(judgement_of(row), [])
    classes = re.findall(r'class="verdict (v-[^"]*)">same direction, larger<', text)
    assert classes == ["v-same-direction-larger"] * 3
    for verdict in (Verdict.same_direction, Verdict.larger, Verdict.smaller, Verdict.size_open):
        assert f".{css_class(verdict.value)}::before" in text
