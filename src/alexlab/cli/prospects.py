"""What a study's plan can show, printed before anything runs; and the study that a budget of hours allows."""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexlab.cli.columns import Column, print_columns
from alexlab.command import program
from alexlab.console import Console, plural
from alexlab.data.locate import image_counts
from alexlab.report.wording import decimals
from alexlab.study.allotment import Allotment, allot
from alexlab.study.claims import METRICS, Claim
from alexlab.study.planning import MOST_RUNS, UNKNOWN, Prospect, prospects
from alexlab.study.records import RunData
from alexlab.sweep.plan import Plan
from alexlab.sweep.study_plan import Study, unmet
from alexlab.validate import hours

_BY_BUDGET = ("study.budget", "study.seeds", "study.base_seeds", "study.claims")


def plan_prospects(plan: Plan, past: Sequence[RunData]) -> list[Prospect]:
    """Compute what each tested claim of a study's plan can show; empty for other plans and for learning-rate trials.

    `past`: finished runs; those of the plan are not used.
    """
    study = plan.study
    if study is None or study.round or not study.claims:
        return []
    settings = study.base.study
    counts = {tuple(arm.overrides): len(arm.seeds) for arm in study.arms}
    return prospects(
        _tested(study),
        settings.seeds,
        counts.get((), settings.seeds),
        image_counts(study.base.data)["test"],
        _at_recipe(plan, study, past),
        settings.assumed_sd,
    )


def _tested(study: Study) -> list[Claim]:
    return [claim for claim in study.claims if claim.not_testable is None and not unmet(claim, study.base)]


def _at_recipe(plan: Plan, study: Study, past: Sequence[RunData]) -> list[RunData]:
    """The runs at the study's recipe, protocol and model that are not in the plan."""
    planned = {run.run_id for run in plan.runs}
    wanted = {name: study.choices[name] for name in ("recipe", "protocol", "model")}
    return [
        run for run in past if run.run_id not in planned and {name: run.labels.get(name) for name in wanted} == wanted
    ]


def print_prospects(found: list[Prospect], console: Console) -> None:
    """Print each claim's power and what would settle it, the claims that the plan cannot settle first."""
    if not found:
        return
    runs, family = found[0].runs, found[0].family
    base_runs = max(one.base_runs for one in found)
    claim = Column("claim", wraps=True)
    headings = ("effect", "sd of\na run", "found\nwith", "smallest\nfound", "runs\nneeded")
    columns = [Column(name, right=True) for name in headings]
    computed = [one for one in found if one.power is not None]
    for one in sorted(computed, key=lambda one: one.power or 0.0):
        assert one.size is not None
        assert one.sd is not None
        assert one.power is not None
        claim.cells.append(one.claim.id)
        cells = (
            _amount(one.claim, one.size, one.is_published),
            _plain(one.claim, one.sd.value),
            f"{100 * one.power:.0f} %",
            _plain(one.claim, one.found or 0.0),
            f"over {MOST_RUNS:,}" if one.needed is None else str(one.needed),
        )
        for column, cell in zip(columns, cells, strict=True):
            column.cells.append(cell)
    console.print()
    if computed:
        claims, arms = plural(family, "claim"), plural(runs, "run")
        title = f"What the plan can show: {claims} at once, {arms} per arm, {base_runs} of the base"
        print_columns(title, [claim, *columns], console)
        if unsettled := [one.claim.id for one in computed if not one.is_settled]:
            console.say(f"This plan cannot settle {', '.join(unsettled)}.", "yellow")
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one.why_not is not None:
            reasons[one.why_not].append(one.claim.id)
    notes = [f"Not computed, {why_not}: {', '.join(ids)}." for why_not, ids in reasons.items()]
    if computed:
        notes.append(
            "found with: the power, which is the probability that the verdict's interval excludes 0 if the effect is "
            "as published or (~) the smallest of interest; smallest found: at a power of 80 %; runs needed: per arm, "
            "at 90 %."
        )
    if sources := dict.fromkeys(one.sd.source for one in found if one.sd is not None):
        notes.append(f"Standard deviations: {', '.join(sources)} (80 % upper bounds where measured).")
    if UNKNOWN in reasons:
        notes.append(
            "study.assumed_sd=POINTS sets the standard deviation of a run's error if no finished runs show it."
        )
    for note in notes:
        console.say(note, "dim")


def prospect_facts(one: Prospect) -> dict[str, Any]:
    """A claim's prospect in the unit of its published figure; for a ratio, natural logarithms."""
    unit = one.claim.unit
    sd = None if one.sd is None else one.sd.value
    sizes = {"effect": one.size, "sd": sd, "smallest_found": one.found}
    return {
        "claim": one.claim.name,
        "unit": "log ratio" if one.claim.ratio else METRICS[one.claim.metric][1],
        "runs": one.runs,
        "base_runs": one.base_runs,
        "family": one.family,
        **{name: None if size is None else size / unit for name, size in sizes.items()},
        "is_published": one.is_published,
        "sd_source": None if one.sd is None else one.sd.source,
        "power": one.power,
        "runs_needed": one.needed,
        "is_settled": one.is_settled,
        "why_not": one.why_not,
    }


def _amount(claim: Claim, size: float, is_published: bool) -> str:
    return ("" if is_published else "~") + _plain(claim, size, is_factor=True)


def _plain(claim: Claim, size: float, is_factor: bool = False) -> str:
    """A size in the unit of the published figure."""
    if claim.ratio:
        return f"{math.exp(size):.2f}×" if is_factor or size > 0 else "1×"
    return f"{size / claim.unit:.{decimals(claim)}f} {METRICS[claim.metric][1]}".rstrip()


@dataclass(frozen=True)
class Affordable:
    """The study that `study.budget` hours allow, with the overrides that make it."""

    hours: float
    chosen: Allotment
    overrides: list[str]


def afford(plan: Plan, found: list[Prospect], seconds: Mapping[str, float]) -> Affordable | None:
    """The study that `study.budget` hours allow; None without such a budget.

    `seconds`: of one run, by the arm's hash.

    Raises:
        UserError: if the budget settles no claim.
    """
    study = plan.study
    if study is None or study.base.study.budget is None:
        return None
    budget = hours("study.budget", study.base.study.budget)
    by_overrides = {}
    for arm in study.arms:
        of = next(run.arm for run in plan.runs if run.config == arm.job.config)
        by_overrides[tuple(arm.overrides)] = seconds[of]
    arms = {one.claim.name: [tuple(arm) for arm in one.claim.compared] for one in found}
    chosen = allot(found, arms, by_overrides, 3600 * budget)
    names = {claim.name for claim in chosen.claims}
    context = [claim for claim in _tested(study) if claim.is_context and _arms(claim) <= _used(chosen.claims)]
    claims = [claim.name for claim in study.claims if claim.name in names or claim in context]
    line = [one for one in study.overrides if one.partition("=")[0] not in _BY_BUDGET]
    line += [f"study.seeds={chosen.runs}", f"study.base_seeds={chosen.base_runs}", f"study.claims=[{','.join(claims)}]"]
    return Affordable(budget, chosen, line)


def print_allotment(affordable: Affordable, found: list[Prospect], console: Console) -> None:
    """Print the command of the study that a budget allows, and the claims that it leaves out."""
    chosen = affordable.chosen
    console.print()
    console.say(
        f"{affordable.hours:g} hours settle {len(chosen.claims)} of {len(found)} claims: {chosen.runs} runs per arm, "
        f"{chosen.base_runs} of the base, about {chosen.seconds / 3600:.1f} hours:"
    )
    console.print(f"{program('train')} {shlex.join(affordable.overrides)}", soft_wrap=True)
    if chosen.left_out:
        console.say(f"Left out: {', '.join(claim.name for claim in chosen.left_out)}", "yellow")


def _arms(claim: Claim) -> set[tuple[str, ...]]:
    return {tuple(arm) for arm in claim.compared}


def _used(claims: list[Claim]) -> set[tuple[str, ...]]:
    return {arm for claim in claims for arm in _arms(claim)}
