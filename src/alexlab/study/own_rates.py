"""A study's second analysis: each arm at its own best learning rate. The weaker of a claim's two verdicts counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alexlab.config import Rate
from alexlab.study.claims import Verdict
from alexlab.study.judgement import Judgement
from alexlab.study.rates import OF_TRIALS
from alexlab.study.records import Archive
from alexlab.study.verdicts import weaker


def doubt_rates(judgement: Judgement, archive: Archive, started: Mapping[str, list[dict[str, Any]]]) -> None:
    """Withhold verdicts of arms whose best rate is the lowest or highest that was tried, or whose rates all failed."""
    tried = _tried_rates(judgement.plan, started)
    for arm in judgement.arms:
        rates = tried.get(tuple(arm.overrides), {})
        failed = [all(_is_failed(archive, run_id) for run_id in run_ids) for run_ids in rates.values()]
        doubt = None
        if rates and all(failed):
            doubt = f"{arm.name}: all runs failed at every rate that was tried"
        elif rates and (arm.lr <= min(rates) or arm.lr >= max(rates)):
            doubt = f"{arm.name}: its best rate, {arm.lr:g}, is at the edge of those that were tried"
        if doubt is None:
            continue
        judgement.remarks.append(f"{doubt}; try more rates")
        for row in judgement.rows:
            if arm in row.arms and not row.claim.is_level:
                row.rate_doubts.append(doubt)
                row.withhold(f"{doubt}; no verdict")


def with_choices(plan: dict[str, Any], started: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The plan of a search of rates, with the rates chosen if the plan that follows from it is among those `started`.

    A search is planned round by round, each before its trials, so its own last plan does not have what they chose.
    """
    looks = started.get(re.sub(r"-choose(?=-\w{6}$)", "-own", plan["id"]))
    if looks is None or looks[-1].get("planned", 0) < plan.get("planned", 0):
        return plan
    return {**plan, "rates": looks[-1].get("rates", [])}


def _tried_rates(
    plan: dict[str, Any], started: Mapping[str, list[dict[str, Any]]]
) -> dict[tuple[str, ...], dict[float, list[str]]]:
    """{arm's overrides: {rate: run ids}} of the studies that chose rates for the same base."""
    tried: dict[tuple[str, ...], dict[float, list[str]]] = {}
    for id, looks in started.items():
        if looks[-1]["rate"] != Rate.choose.name or id[-6:] != plan["id"][-6:]:
            continue
        for arm in (arm for look in looks for arm in look["arms"]):
            overrides = tuple(one for one in arm["overrides"] if not one.startswith(OF_TRIALS))
            tried.setdefault(overrides, {}).setdefault(arm["lr"], []).extend(arm["runs"].values())
    return tried


def _is_failed(archive: Archive, run_id: str) -> bool:
    run = archive.runs.get(run_id)
    return run is not None and run.is_terminal and not run.is_done


def add_own_rates(judgement: Judgement, own: Judgement) -> None:
    """Attach each claim's row at the arms' own rates; if the words differ, the weaker one is the verdict."""
    rows = {row.claim.name: row for row in own.rows}
    for row in judgement.rows:
        row.own_rate = rows.get(row.claim.name)
        if row.own_rate is None or row.claim.is_level:
            continue
        if row.own_rate.rate_doubts:
            row.rate_doubts = row.own_rate.rate_doubts
            row.withhold(row.own_rate.why_none or "")
        words = [one.word for one in (row, row.own_rate)]
        if words[0] is None or words[1] is None or row.verdict == row.own_rate.verdict:
            continue
        if Verdict.not_testable in words:
            continue
        each = f"{row.verdict} at the common rate; {row.own_rate.verdict} at each arm's own"
        if Verdict.does_not_train in words:
            row.word = Verdict.does_not_train if words[0] is words[1] else Verdict.inconclusive
        else:
            row.word = weaker(words[0], words[1])
        # Of two ranges with one word the later is the weaker.
        weak = [one.verdict for one, word in ((row, words[0]), (row.own_rate, words[1])) if word is row.word]
        if len(weak) == 2 and row.own_rate.range < row.range:
            weak.reverse()
        row.verdict = f"{weak[-1] if weak else row.word.value} ({each})"
    if judgement.plan["claims_digest"] != own.plan["claims_digest"]:
        judgement.remarks.append("the study at each arm's own rate has other claims")
    if own.missing:
        judgement.remarks.append(f"at own rates: {own.missing} planned runs are missing")
    judgement.remarks += [f"at own rates: {remark}" for remark in own.remarks]
    judgement.trials = own.trials
    judgement.problems += [f"at own rates: {line}" for line in own.problems if line not in judgement.problems]
