"""`python src/report.py`: a study's records as tables, plots and one page, under `reports/<study>/`.

Records are read and nothing else, so a copy of `runs/` on a laptop will do.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from alexlab.cli.tables import new_table
from alexlab.command import run_command
from alexlab.compose import Composer
from alexlab.config import PROJECT_DIR, ConfigError
from alexlab.files import write_whole
from alexlab.runs import bundle
from alexlab.study.claims import METRICS
from alexlab.study.records import Archive, read_archive
from alexlab.study.verdicts import Judgement, Row, judge
from alexlab.sweep.arms import document, is_study, make_study, read_looks

USAGE = """\
Judge the claims of a study by its records, and write reports/<study>/:
report.html (one file), report.md, claims.csv, and plots as PNG and SVG.

  python src/report.py                              every study that was begun
  python src/report.py study=paper recipe=demo      one of them
  python src/report.py 'runs=[runs,/mnt/box/runs]'  records of several folders,
                                                    merged by run id
  python src/report.py study=paper --pictures       figure 4 too, by a run's
                                                    weights and its data
  python src/report.py study=paper --nets           measures first what claims
                                                    need of the nets: averages
                                                    of five, neighbours; kept
                                                    with the records
  python src/report.py study=paper --wandb logger.project=NAME
                                                    also a W&B workspace and
                                                    report of it

out=FOLDER writes elsewhere than reports/. What study=... takes besides is what
src/train.py takes. Verdicts are given where all planned runs are there, at the
recipes that a claim names; --help of src/train.py tells how to run a study.
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command."""

SETTINGS = ("paths.", "logger.")  # keys that choose no study
# What chooses among studies that were begun: the name in a line, and in their plans.
GROUPS = {name: name for name in ("recipe", "protocol", "model", "data")} | {"study": "name", "study.rate": "rate"}
Looks = list[dict[str, Any]]


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    flags = [argument for argument in argv if argument in ("--wandb", "--pictures", "--nets")]
    arguments = [argument for argument in argv if argument not in flags]
    return run_command(arguments, USAGE, ".", lambda given, folder, console: _obey(given, folder, console, flags))


def _obey(given: list[str], config_dir: str | None, console: Console, flags: list[str]) -> int:
    settings = {name: value for name, sign, value in (one.partition("=") for one in given) if sign}
    line = [one for one in given if one.partition("=")[0] not in ("runs", "out")]
    composer = Composer(config_dir)
    config = composer.job([one for one in line if one.startswith(SETTINGS)], trains=False, stored=False).config
    places = _folders(settings["runs"]) if "runs" in settings else [Path(config.paths.runs)]
    folders = list(bundle.folders(places))
    out = Path(settings["out"]).expanduser() if "out" in settings else PROJECT_DIR / "reports"
    archive = read_archive(folders)
    begun = begun_studies(folders)
    known = {id for looks in begun.values() for look in looks for arm in look["arms"] for id in arm["runs"].values()}
    plans = find_plans([one for one in line if not one.startswith(SETTINGS)], begun, composer, config_dir)
    if "--nets" in flags:
        from alexlab.cli.nets import measure

        for plan in plans.values():
            measure(judge(plan.looks, archive, known=known), composer, console)
    judged = {name: judge(plan.looks, archive, plan.own, known, begun) for name, plan in plans.items()}
    for name, judgement in judged.items():
        print_claims(judgement, console)
        written = write(judgement, archive, out / name, "--pictures" in flags)
        console.print(f"Report: {written}", soft_wrap=True)
    if "--wandb" in flags:  # once all is written, since W&B may not answer
        from alexlab.report.wandb_report import publish

        for name, judgement in judged.items():
            publish(judgement, archive, out / name, config.logger, console)
    return 0


def _folders(given: str) -> list[Path]:
    names = [one.strip(" '\"") for one in given.strip("[] ").split(",")]
    if not all(names):
        raise ConfigError(f"runs={given}: has a place without a folder")
    return [Path(name).expanduser() for name in names]


@dataclass(frozen=True)
class Planned:
    """All that a study planned, and what it planned for each arm's own learning rate, where it did."""

    looks: list[dict[str, Any]]
    own: list[dict[str, Any]] | None


def find_plans(
    line: list[str], begun: dict[str, Looks], composer: Composer, config_dir: str | None
) -> dict[str, Planned]:
    """The studies that a line asks for, by their ids, of those that were `begun`.

    Where it asks for one that was not, that one is composed, so that finished runs of its arms count and the missing
    ones are listed.

    Raises:
        ConfigError: for a mistake in the line, or one that asks for a begun study with other runs or claims.
    """
    wanted = {name: value for name, _, value in (one.partition("=") for one in line)}
    for name in wanted.keys() & GROUPS.keys():
        if all(looks[-1][GROUPS[name]] != wanted[name] for looks in begun.values()):
            composer.check(f"{name}={wanted[name]}")
    found = {
        id: looks
        for id, looks in begun.items()
        if all(looks[-1][GROUPS[name]] == value for name, value in wanted.items() if name in GROUPS)
    }
    if not found or wanted.keys() - GROUPS.keys():
        given = line if is_study(line) else ["study=paper", *line]
        study = make_study(composer, given, config_dir, stored=False)
        plan = document(study)
        looks = begun.get(study.id)
        if looks is not None and (looks[-1]["arms"], looks[-1]["claims"]) != (plan["arms"], plan["claims"]):
            raise ConfigError(
                f"{' '.join(given)}: this study was begun with other claims or seeds; leave out what changes them, or "
                "train it first"
            )
        found = {study.id: looks or [{"digest": None, **plan}]}
    return {
        id: Planned(looks, begun.get(f"{id[:-7]}-own{id[-7:]}"))
        for id, looks in found.items()
        if looks[-1]["rate"] != "own" or "study.rate" in wanted or f"{id[:-11]}{id[-7:]}" not in found
    }


def begun_studies(folders: list[Path]) -> dict[str, Looks]:
    """By id, all that each study planned; of several folders together, in the order of time.

    Raises:
        ConfigError: where a plan is damaged.
    """
    begun: dict[str, dict[str, dict[str, Any]]] = {}
    for folder in folders:
        for path in sorted((folder / "studies").glob("*.json")):
            begun.setdefault(path.stem, {}).update({look["digest"]: look for look in read_looks(path)})
    return {id: sorted(looks.values(), key=lambda look: look.get("planned", 0)) for id, looks in begun.items()}


def print_claims(judgement: Judgement, console: Console) -> None:
    """The claims in the terminal, one row each."""
    plan = judgement.plan
    table = new_table(f"{plan['name']}: {plan['recipe']}, effects as arm less the other, study-wise intervals")
    table.add_column("claim", ratio=1, overflow="fold")
    for name in ("paper", "measured", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", ratio=1, overflow="fold")
    testable = [row for row in judgement.rows if row.claim.not_testable is None]
    for row in testable:
        verdict = "" if judgement.is_rehearsal and row.verdict is None else told(row)
        table.add_row(f"{row.claim.id}{'*' * bool(row.confounds)}", published(row), measured(row), runs(row), verdict)
    console.print()
    console.print(table)
    for line in summary(judgement):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def published(row: Row) -> str:
    """The published figure, in its unit; or the sign alone."""
    claim = row.claim
    figure = claim.published.get(claim.metric)
    if figure is None:
        return {-1: "lower", 1: "higher", 0: ""}[claim.sign] if claim.not_testable is None else ""
    text = f"{figure:g}" if claim.is_level else f"{figure:g}x" if claim.ratio else f"{figure:+g}"
    if not claim.at_least:
        return text
    return f"<{text}" if claim.sign < 0 else f">{text}"


def measured(row: Row, which: str = "decisive") -> str:
    """The measured effect with an interval, in the published figure's unit."""
    if row.level is not None:
        mean, half = (row.shown(value) for value in row.level[:2])
        return f"{mean:.1f} ±{half:.1f}" if math.isfinite(half) else f"{mean:.1f}"
    if row.effect is None:
        return ""
    half = getattr(row.effect, which)
    if half is None:
        return ""
    if row.claim.ratio:
        low, high = (
            (row.shown(row.effect.difference + sign * half) for sign in (-1, 1)) if half < 700 else (0, math.inf)
        )
        return f"{row.shown(row.effect.difference):.2f}x {low:.2f}-{high:.2f}"
    digits = 2 if METRICS[row.claim.metric][1] == "points" else 3
    text = f"{row.shown(row.effect.difference):+.{digits}f}"
    return f"{text} ±{row.shown(half):.{digits}f}" if math.isfinite(half) else f"{text} (1 run)"


def runs(row: Row) -> str:
    """Finished runs of the arms, and failed ones."""
    counted = row.counted or tuple(len(arm.runs) for arm in row.arms)
    counts = [f"{count}{f'+{arm.lost}!' if arm.lost else ''}" for count, arm in zip(counted, row.arms, strict=True)]
    return "/".join(counts) if row.claim.not_testable is None else ""


def told(row: Row) -> str:
    """The verdict, or why there is none."""
    parts = [row.verdict or "", row.why_none or ""]
    return ": ".join(part for part in parts if part)


def summary(judgement: Judgement) -> list[str]:
    """What holds of the report as a whole."""
    plan = judgement.plan
    lines = [
        f"{judgement.done} runs done; {judgement.family} claims share the study-wise 5 %. ± is the study interval: it "
        "holds for all of them at once, for new images where the metric is of images."
    ]
    if judgement.is_rehearsal:
        lines.append(f"A rehearsal: no verdict is given at recipe={plan['recipe']}; it shows what a study looks like.")
    if judgement.missing:
        lines.append(f"Interim: {judgement.missing} planned runs are missing. {judgement.command}")
    untestable = sum(row.claim.not_testable is not None for row in judgement.rows)
    if untestable:
        lines.append(f"{untestable} more claims no records can test; the report says what would.")
    if any(row.confounds for row in judgement.rows):
        lines.append("* more differs between the arms than the claim says; see the report.")
    lines += judgement.remarks
    if plan.get("digest") is None:
        lines.append("This study was not begun by study=, so nothing shows that its seeds were planned beforehand.")
    lines += [f"Left out: {problem}" for problem in judgement.problems[:5]]
    if len(judgement.problems) > 5:
        lines.append(f"... and {len(judgement.problems) - 5} more; report.md lists them")
    return lines


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
    *("own_rate_measured", "own_rate_study_half", "own_rate_verdict"),
)


def claims_table(judgement: Judgement) -> list[dict[str, Any]]:
    """One mapping a claim, by CSV_COLUMNS: numbers in the published figure's unit, ratios as their logarithms' ends."""
    return [_facts(row) for row in judgement.rows]


def _facts(row: Row) -> dict[str, Any]:
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
        notes="; ".join(row.notes) or None,
        confounds="; ".join(row.confounds) or None,
        differing=" ".join(row.differing) or None,
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
    for number, (place, arm) in enumerate(zip(("arm", "against"), row.arms, strict=False)):
        counted = row.counted[number] if row.counted else len(arm.runs)
        facts.update({f"runs_{place}": counted, f"failed_{place}": arm.lost, f"seconds_{place}": arm.seconds})
    for place, spread in zip(("arm", "against"), row.spreads, strict=False):
        facts[f"sd_{place}"] = spread if claim.ratio else row.shown(spread)
    if row.level is not None:
        facts["measured"], facts["fixed_half"] = map(row.shown, row.level[:2])
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
    if row.own_rate is not None and row.own_rate.effect is not None:
        own = row.own_rate
        facts.update(own_rate_measured=own.shown(own.effect.difference), own_rate_verdict=own.verdict)  # pyright: ignore
        facts["own_rate_study_half"] = scaled(own.effect.study)  # pyright: ignore
    return facts


def write(judgement: Judgement, archive: Archive, folder: Path, with_pictures: bool = False) -> Path:
    """Write the report's files; the page's path. `with_pictures`: as for `plots.draw`."""
    from alexlab.report.html import markdown, page
    from alexlab.report.plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(claims_table(judgement))
    write_whole(folder / "claims.csv", text.getvalue())
    plots = draw(judgement, archive, folder, with_pictures)
    write_whole(folder / "report.md", markdown(judgement, plots))
    write_whole(folder / "report.html", page(judgement, plots))
    return folder / "report.html"
