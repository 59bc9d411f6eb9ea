"""A study's report as GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from alexlab.console import printable, printable_line
from alexlab.report.cite import Repeat
from alexlab.report.content import (
    INTERVALS,
    NOTHING,
    SHARE,
    SUBMITTERS,
    ClaimRow,
    PlotOnPage,
    SubmitterRow,
    report_content,
)
from alexlab.study.judgement import Judgement


def markdown(judgement: Judgement, figures: list[PlotOnPage]) -> str:
    """The report as GitHub's Markdown, without the details that unfold on the page."""
    content = report_content(judgement)
    lines = [f"# {_md(content['title'])}", "", _md(content["subtitle"]), ""]
    if content["rehearsal"]:
        lines += [f"> **A rehearsal.** {_md(content['rehearsal'])}", ""]
    if content["interim"]:
        lines += [f"> **Interim.** {_md(content['interim'])}", "", *_fenced(judgement.command), ""]
    lines += [f"{number}. {_md(sentence)}" for number, sentence in enumerate(content["findings"], 1)] + [""]
    tally = ", ".join(f"{count} {kind}" for kind, count in content["kinds"])
    claims = [] if judgement.is_choosing else [f"Claims: {tally or 'none'}."]
    lines += [f"- {_md(sentence)}" for sentence in [*claims, *content["summary"]]]
    lines += [""]
    if figures:
        lines += [*_plot(figures[0]), ""]
    lines += [] if judgement.is_choosing else ["## Claims", "", *_claims(content["claims"])]
    if content["submitters"]:
        lines += ["", "## Submitters", "", SUBMITTERS, "", *_submitters(content["submitters"])]
    if trials := content["trials"]:
        lines += ["", "## Learning rates", "", f"Trials: {_md(trials['what'])}; the chosen rate is bold.", ""]
        rows = [
            (lr, *(f"**{_md(text)}**" if is_chosen else _md(text) for text, is_chosen in cells))
            for lr, cells in trials["rows"]
        ]
        lines += _table(("learning rate", *map(_code, trials["arms"])), rows)
        lines += ["", *(f"- {_md(note)}" for note in trials["notes"])] if trials["notes"] else []
    if figures[1:]:
        lines += ["", "## Plots"]
        for plot in figures[1:]:
            lines += ["", *_plot(plot)]
    lines += ["", "## Arms", ""]
    lines += _table(
        ("arm", "top-1 error, ten views, %", "done of planned", "failed", "partly trained",
         "missing", "unplanned seeds", "rate", "time"),
        (
            (
                _code(arm.name), f"{arm.error} {arm.sd}".strip(), f"{arm.done} / {arm.planned}", str(arm.failed),
                str(arm.partly), str(arm.missing), arm.unplanned or NOTHING, arm.lr, arm.time,
            )
            for arm in content["arms"]
        ),
    )  # fmt: skip
    if content["missing"]:
        lines += ["", "## Missing runs", "", *_fenced(judgement.command), ""]
        lines += [
            f"- {_code(name)}: " + ", ".join(f"{_code(run)} (seed {seed})" for seed, run in runs)
            for name, runs in content["missing"]
        ]
    if judgement.problems:
        lines += ["", "## Records left out", "", *(f"- {_md(problem)}" for problem in judgement.problems)]
    return "\n".join([*lines, *_origin(content)]) + "\n"


def _claims(claims: list[ClaimRow]) -> list[str]:
    return _table(
        ("claim", "published", "effect", *INTERVALS.values(), SHARE, "runs", "sd", "time/run", "verdict"),
        (
            (
                f"{_md(one.statement)} (§ {_md(one.section)}, {_code(one.name)})"
                + (f"<br>{_md(one.words)}" if one.words else ""),
                _md(" ".join((one.published, one.unit)).strip()),
                _md(one.effect),
                *(_md(one.intervals.get(name, NOTHING)) for name in (*INTERVALS.values(), SHARE)),
                *(
                    "<br>".join(_md(cell) for cell in cells) or NOTHING
                    for cells in (
                        [f"{side.name}: {side.counts}" for side in one.sides],
                        one.sds,
                        [side.time for side in one.sides],
                    )
                ),
                ". ".join(
                    part.rstrip(".")
                    for part in (
                        f"**{_md(one.verdict)}**" if one.has_verdict else _md(one.verdict),
                        _md(one.reason),
                        _md(one.disagreement),
                        *map(_md, one.confounds),
                    )
                    if part
                ),
            )
            for one in claims
        ),
    )


def _submitters(rows: list[SubmitterRow]) -> list[str]:
    return _table(
        ("claim", "submitter", "effect", "95 % interval", "runs", "machine", "code", "equal effects"),
        (
            (
                _code(one.claim), _md(one.submitter), _md(one.effect), _md(one.interval), _md(one.runs),
                _md(one.machine), _md(one.code), _md(one.equality),
            )
            for one in rows
        ),
    )  # fmt: skip


def sweep_markdown(content: dict[str, Any], figures: list[PlotOnPage]) -> str:
    """A sweep's report as GitHub's Markdown, of the content that its page shows."""
    lines = [f"# {_md(content['title'])}", "", _md(content["subtitle"]), ""]
    lines += [*(f"- {_md(sentence)}" for sentence in content["summary"]), ""]
    if figures:
        lines += [*_plot(figures[0]), ""]
    lines += ["## Arms", ""]
    lines += _table(
        ("arm", "top-1 error, ten views, %", "difference, points", *content["intervals"], "runs", "time/run"),
        (
            (
                _code(arm["name"]), f"{arm['error']} {arm['sd']}".strip(), _md(arm["difference"]),
                *(_md(arm["intervals"].get(name, NOTHING)) for name in content["intervals"]),
                arm["counts"], arm["time"],
            )
            for arm in content["arms"]
        ),
    )  # fmt: skip
    if content["main_effects"]:
        lines += ["", "## Main effects", "", "One factor, averaged over all values of the others, in points.", ""]
        names = list(content["main_effects"][0][3])
        lines += _table(
            ("factor", "from, to", "effect", *names),
            (
                (_code(factor), _md(change), _md(effect), *map(_md, ends.values()))
                for factor, change, effect, ends in content["main_effects"]
            ),
        )
    if figures[1:]:
        lines += ["", "## Plots"]
        for plot in figures[1:]:
            lines += ["", *_plot(plot)]
    lines += ["", "## Runs", ""]
    lines += _table(
        ("run", "arm", "seed", "top-1 error, %", "epochs", "time", "state"),
        (
            (
                _code(run["run_id"]), _code(run["arm"]), run["seed"], run["error"], run["epochs"], run["time"],
                _md(run["state"]) or "DONE",
            )
            for run in content["runs"]
        ),
    )  # fmt: skip
    if content["problems"]:
        lines += ["", "## Records left out", "", *(f"- {_md(problem)}" for problem in content["problems"])]
    return "\n".join([*lines, *_origin(content)]) + "\n"


def _plot(plot: PlotOnPage) -> list[str]:
    return [f"**{_md(plot.title)}.** {_md(plot.text)}", "", f"![{_md(plot.title)}]({plot.png_name})"]


def _origin(content: dict[str, Any]) -> list[str]:
    """The commands that repeat the runs, a citation, and where the runs come from."""
    repeat: Repeat = content["repeat"]
    lines = ["", "## Cite and repeat", "", "```bash", *map(printable_line, repeat.commands.splitlines()), "```", ""]
    lines += ["```bibtex", *map(printable, repeat.citation.splitlines()), "```", ""]
    lines += ["## Where the runs come from", ""]
    return lines + [f"- {_md(what)}: {'; '.join(map(_md, values))}" for what, values in content["provenance"]]


def _md(text: str) -> str:
    """Escape a text, so that Markdown shows it unchanged, also within a table or at the start of a line."""
    text = re.sub(r"[\\`*\[\]|<>~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", printable_line(text))
    return re.sub(r"^([#+=-]*|\d+)([#+=.)-])(?= |$)", r"\1\\\2", text)  # a heading, or an item of a list


def _code(text: str) -> str:
    """A code span, also within a table."""
    text = printable_line(text)
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _fenced(command: str) -> list[str]:
    """A code block of one line, which the command cannot close."""
    return ["```bash", printable_line(command), "```"]


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(names)
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]
