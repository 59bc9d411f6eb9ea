"""Write a study's report: the page, its Markdown, the table of claims as CSV, and the plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alexlab.files import write_atomic
from alexlab.report.content import PLAIN, Extras, commits, machines
from alexlab.report.html import page
from alexlab.report.latex import claims_latex
from alexlab.report.markdown import markdown
from alexlab.report.plots import draw
from alexlab.report.tables import csv_text
from alexlab.study.claims import METRICS
from alexlab.study.judgement import Judgement, Row
from alexlab.study.records import Archive

CSV_COLUMNS = (
    *("claim", "section", "statement", "metric", "view", "unit", "arm", "against", "published", "measured"),
    *(
        "fixed_half",
        "new_half",
        "study_half",
        "new_study_half",
        "share",
        "share_low",
        "share_high",
        "standard_error",
        "df",
    ),
    *("correlation", "original_z", "bayes_factor", "word", "verdict", "why_none"),
    *("runs_arm", "runs_against", "failed_arm", "failed_against", "fisher_p", "sd_arm", "sd_against", "seconds_arm"),
    *("seconds_against", "differing", "confounds", "notes"),
    *("own_rate_measured", "own_rate_study_half", "own_rate_new_study_half", "own_rate_verdict"),
)

SUBMITTER_COLUMNS = (
    *("claim", "submitter", "unit", "effect", "half", "standard_error", "df", "runs_arm", "runs_against", "repeats"),
    *("machine", "code", "equal_f", "equal_df", "equal_residual_df", "equal_p"),
)


def claims_table(judgement: Judgement) -> list[dict[str, Any]]:
    """One mapping per claim as `claim_facts` has it, its lists joined."""
    joints = {"notes": "; ", "confounds": "; ", "differing": " "}
    facts = [claim_facts(row) for row in judgement.rows]
    return [{**one, **{name: joint.join(one[name]) or None for name, joint in joints.items()}} for one in facts]


def claim_facts(row: Row) -> dict[str, Any]:
    """A claim by CSV_COLUMNS: numbers in the published unit, intervals of ratios as logarithms."""
    claim, effect = row.claim, row.effect
    testable = claim.not_testable is None
    facts: dict[str, Any] = dict.fromkeys(CSV_COLUMNS)
    facts.update(
        claim=claim.name,
        section=claim.section,
        statement=claim.statement,
        word=None if row.word is None else row.word.value,
        verdict=row.verdict,
        why_none=row.why_none,
        notes=row.notes,
        confounds=row.confounds,
        differing=row.differing,
    )
    if not testable:
        return facts
    facts.update(
        metric=claim.metric,
        view=claim.view,
        unit="ratio" if claim.ratio else METRICS[claim.metric][1],
        arm=" ".join(claim.arm) or "none",
        against=claim.against_view or (" ".join(claim.against) or "none" if len(claim.compared) == 2 else None),
        published=claim.published.get(claim.metric),
        original_z=row.strength,
        bayes_factor=row.bayes_factor,
        fisher_p=row.fisher,
    )
    for side, arm, counted in zip(("arm", "against"), row.arms, row.run_counts, strict=False):
        facts.update({f"runs_{side}": counted, f"failed_{side}": arm.lost, f"seconds_{side}": arm.seconds})
    for side, spread in zip(("arm", "against"), row.spreads, strict=False):
        facts[f"sd_{side}"] = spread if claim.ratio else row.shown(spread)
    if row.level is not None:
        facts["measured"], facts["fixed_half"], facts["study_half"] = map(row.shown, row.level)
    scaled = (lambda value: value) if claim.ratio else row.shown
    if effect is not None:
        facts.update(
            measured=row.shown(effect.difference),
            fixed_half=scaled(effect.fixed),
            new_half=None if effect.new is None else scaled(effect.new),
            study_half=scaled(effect.study),
            new_study_half=None if effect.new_study is None else scaled(effect.new_study),
            correlation=effect.correlation,
            standard_error=scaled(effect.standard_error),
            df=effect.df,
        )
    if row.share is not None:
        facts.update(zip(("share", "share_low", "share_high"), row.share, strict=True))
    if (own := row.own_rate) is not None:
        facts["own_rate_verdict"] = own.verdict
        if own.effect is not None:
            facts.update(
                own_rate_measured=own.shown(own.effect.difference),
                own_rate_study_half=scaled(own.effect.study),
                own_rate_new_study_half=None if own.effect.new_study is None else scaled(own.effect.new_study),
            )
    return facts


def submitters_table(judgement: Judgement) -> list[dict[str, Any]]:
    """One mapping per claim and submitter, by SUBMITTER_COLUMNS; units as in `claims_table`."""
    return [facts for row in judgement.rows for facts in _submitters(row)]


def _submitters(row: Row) -> list[dict[str, Any]]:
    if row.submitters is None:
        return []
    found = []
    for one in row.submitters.each:
        runs = [run for arm in one.runs for run in arm]
        facts: dict[str, Any] = dict.fromkeys(SUBMITTER_COLUMNS)
        facts.update(
            claim=row.claim.name,
            submitter=one.submitter,
            unit="ratio" if row.claim.ratio else METRICS[row.claim.metric][1],
            repeats=one.repeats,
            machine=", ".join(machines(runs)),
            code=", ".join(commits(runs)),
        )
        facts.update(zip(("runs_arm", "runs_against"), map(len, one.runs), strict=False))
        if one.effect is not None:
            half, error = one.effect.fixed, one.effect.standard_error
            if not row.claim.ratio:
                half, error = row.shown(half), row.shown(error)
            facts.update(effect=row.shown(one.effect.difference), half=half, standard_error=error, df=one.effect.df)
        if (test := row.submitters.equality) is not None:
            facts.update(equal_f=test.statistic, equal_df=test.dfs[0], equal_residual_df=test.dfs[1], equal_p=test.p)
        found.append(facts)
    return found


def write(judgement: Judgement, archive: Archive, folder: Path, extras: Extras = PLAIN) -> Path:
    """Write a study's report and return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "claims.csv", csv_text(CSV_COLUMNS, claims_table(judgement)))
    write_atomic(folder / "claims.tex", claims_latex(judgement))
    if rows := submitters_table(judgement):
        write_atomic(folder / "submitters.csv", csv_text(SUBMITTER_COLUMNS, rows))
    else:
        (folder / "submitters.csv").unlink(missing_ok=True)  # of an earlier report
    plots = draw(judgement, archive, folder, extras)
    write_atomic(folder / "report.md", markdown(judgement, plots))
    write_atomic(folder / "report.html", page(judgement, plots))
    return folder / "report.html"
