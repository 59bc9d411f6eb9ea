"""Judge a study: from its plans and records to one row per claim with effect, intervals, verdict and caveats."""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import pairwise
from typing import Any

from alexlab.config import Rate
from alexlab.console import plural
from alexlab.study.arm_runs import read_arms
from alexlab.study.caveats import add_caveats
from alexlab.study.claims import Claim, Verdict
from alexlab.study.effects import measure
from alexlab.study.judgement import Arm, Judgement, Row
from alexlab.study.noise import against_itself, components_remark, halves, itself_remark
from alexlab.study.own_rates import add_own_rates, doubt_rates, with_choices
from alexlab.study.rates import read_trials
from alexlab.study.records import Archive
from alexlab.study.samples import Samples
from alexlab.study.shared_start import arms_from_base
from alexlab.study.submitters import by_submitter, repeat_remarks
from alexlab.study.surroundings import between_runs
from alexlab.study.verdicts import set_verdict


def judge(
    looks: list[dict[str, Any]],
    archive: Archive,
    own: list[dict[str, Any]] | None = None,
    known: Container[str] = (),
    started: Mapping[str, list[dict[str, Any]]] | None = None,
    config_dir: str | None = None,
) -> Judgement:
    """Judge every claim of a study by its last plan.

    `own`: the plans of the same study at each arm's own learning rate. `known`: runs that other studies planned, which
    are not reported as unplanned. `started`: the plans of all studies, by id, to list those with the same claims and to
    find the rates that were tried. `config_dir`: the reader's, for the command in the report.
    """
    plan, started = looks[-1], started or {}
    is_choosing = plan["rate"] == Rate.choose.name
    claims = [] if is_choosing else [Claim(**claim) for claim in plan["claims"]]
    is_of_noise = not claims and not is_choosing
    arms = read_arms(plan, archive, known)
    if is_of_noise and len(arms) == 1:
        arms = halves(arms[0])
    by_overrides = {tuple(arm.overrides): arm for arm in arms}
    not_tested = [_why_not_tested(claim, plan, by_overrides) for claim in claims]
    tested = [claim for claim, why in zip(claims, not_tested, strict=True) if why is None]
    family = max(1, sum(not claim.is_context for claim in tested))
    problems = list(archive.problems)
    samples = Samples({arm.name: arm.runs for arm in arms}, problems, _find_shared_start(arms, archive))
    rows = []
    for claim, why in zip(claims, not_tested, strict=True):
        its_arms = tuple(by_overrides[tuple(one)] for one in claim.compared if tuple(one) in by_overrides)
        if why is not None:
            rows.append(_untested(claim, its_arms, why))
            continue
        row = measure(claim, its_arms, samples, family * len(looks))
        add_caveats(row, archive, plan)
        set_verdict(row, plan)
        rows.append(row)
    remarks = [*_remarks(looks, arms), *_same_claims(plan, tested, started)]
    remarks += repeat_remarks(archive, {run_id for arm in arms for run_id in arm.planned.values()})
    if is_of_noise:
        if len(arms) == 2 and not any(arm.overrides for arm in arms):
            rows = against_itself(arms)
            family = len(rows)
            remarks.append(itself_remark(rows))
        elif components := components_remark(arms):
            remarks.append(components)
    trials = read_trials(with_choices(plan, started) if is_choosing else plan, archive.runs)
    problems = [archive.named(line) for line in problems]
    judgement = Judgement(plan, len(looks), rows, arms, family, problems, remarks, config_dir, trials)
    for row in rows:
        if row.effect is not None or row.level is not None:
            row.submitters = by_submitter(row.claim, {arm.name: arm.runs for arm in row.arms}, archive)
        if judgement.is_interim:
            row.withhold("interim: runs are missing")
        _qualify(row, looks)
    if plan["rate"] == "own":
        doubt_rates(judgement, archive, started)
    if own is not None:
        add_own_rates(judgement, judge(own, archive, known=known, started=started))
    return judgement


def _why_not_tested(claim: Claim, plan: dict[str, Any], arms: dict[tuple[str, ...], Arm]) -> str | None:
    """Why the study's runs cannot test a claim; None if they can."""
    if claim.not_testable is not None:
        return claim.not_testable
    if claim.name in plan["unmet"]:
        return f"requires {', '.join(plan['unmet'][claim.name])}"
    names = [tuple(arm) for arm in claim.compared]
    if any(name not in arms for name in names):
        return "the study does not have these arms"
    if len(names) == 2 and set(arms[names[0]].planned.values()) & set(arms[names[1]].planned.values()):
        return "the two arms are the same runs at this recipe"  # the recipe already has the claim's change
    return None


def _untested(claim: Claim, arms: tuple[Arm, ...], why: str) -> Row:
    row = Row(claim, arms if claim.not_testable is None else (), why_none=why)
    if not claim.is_context:
        row.word, row.verdict = Verdict.not_testable, Verdict.not_testable.value
    return row


def _find_shared_start(arms: list[Arm], archive: Archive) -> tuple[str, list[str]] | None:
    """The base, and the arms whose runs start from its initial weights on the same seeds."""
    base = next((arm for arm in arms if not arm.overrides and arm.runs), None)
    if base is None:
        return None
    others = {arm.name: arm.runs[0] for arm in arms if arm.overrides and arm.runs}
    return base.name, arms_from_base(base.runs[0], others, archive)


def _qualify(row: Row, looks: list[dict[str, Any]]) -> None:
    """Qualify the verdict if the plan was made after results or after another plan."""
    if row.word is None or row.word is Verdict.not_testable:
        return
    before, own = set(), set()
    for look in looks:  # of the runs that were finished before a later look, the study's own do not count
        before |= {*look.get("finished_before", ())} - own
        own |= {run_id for arm in look["arms"] for run_id in arm["runs"].values()}
    arms = [arm for arm in row.arms if arm.overrides] or list(row.arms)  # the base is shared between studies
    qualifications = []
    if any(run.run_id in before for arm in arms for run in arm.runs):
        qualifications.append("exploratory: runs were finished before the study was planned")
    if len(looks) > 1:
        qualifications.append(f"look {len(looks)}")
    if qualifications:
        row.verdict = f"{row.verdict} ({'; '.join(qualifications)})"


def _remarks(looks: list[dict[str, Any]], arms: list[Arm]) -> list[str]:
    remarks = []
    for number, (before, after) in enumerate(pairwise(looks), 2):
        changed = "claims" if before["claims_digest"] != after["claims_digest"] else "runs"
        remarks.append(
            f"look {number}: the study's {changed} were changed after it had started; the looks share its 5 %"
        )
    unplanned = sum(len(arm.unplanned) for arm in arms)
    if unplanned:
        remarks.append(f"{plural(unplanned, 'finished run')} of these arms outside the plan, not counted")
    return [*remarks, *between_runs({arm.name: arm.runs for arm in arms})]


def _same_claims(plan: dict[str, Any], tested: list[Claim], started: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """A line for each other study that was started with some of these claims at the same recipe."""
    names = {claim.name for claim in tested if not claim.is_context}
    lines = []
    for id, looks in sorted(started.items()):
        last = looks[-1]
        if id == plan["id"] or last["recipe"] != plan["recipe"] or last["rate"] != plan["rate"]:
            continue
        shared = sorted(names & {f"{claim['source']}/{claim['id']}" for claim in last["claims"]})
        if shared:
            departs = last.get("departures") or []
            changed = f", with other {', '.join(departs)}" if departs else ""
            lines.append(
                f"also started at this recipe: {id}{changed}, with {len(shared)} of these claims: {' '.join(shared)}"
            )
    return lines
