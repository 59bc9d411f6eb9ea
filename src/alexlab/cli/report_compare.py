"""`alexlab report compare`: compare someone else's error with a recipe's runs, and list what may explain the gap."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from alexlab.cli.columns import Column, print_columns
from alexlab.cli.json_output import FLAG, json_answer
from alexlab.cli.study_report import SETTINGS, find_places
from alexlab.command import as_typed, given_values, run_command
from alexlab.compose import Composer, key_types
from alexlab.config import CONF_DIR, ConfigError, Dataset, did_you_mean
from alexlab.console import Console, plural, printable_line
from alexlab.errors import UserError
from alexlab.study.claims import VIEW_NAMES
from alexlab.study.comparison import Comparison, Figure, Placement, Question, compare
from alexlab.study.departures import (
    AWAY,
    FROM_PAPERS,
    MEASURED,
    NEAR_ZERO,
    NOT_KNOWN,
    OTHER_VIEW,
    SEEDS,
    Difference,
    train_command,
)
from alexlab.study.records import read_archive
from alexlab.study.statistics import LEAST_RUNS
from alexlab.sweep.study_plan import SETTLED, STUDYS_OWN

USAGE = """\
usage: python src/report.py compare top1=ERROR [top5=ERROR] [view=ten|center]
           [images=N] [n=N [sd=SD]] [runs=PATH] [--like KEY=VALUE ...] [--json]

Compare an error from a paper, a log or a file of weights with the finished runs
of a recipe: its percentile, the prediction interval of one further run, and the
differences that may explain the rest. The effect of each is measured in
finished runs, else published; else there is the command that measures it.
Errors are in per cent.

  python src/report.py compare top1=42.9 --like recipe=imagenet2012 view=center
  python src/report.py compare top1=21.5 runs=results/demo/records.zip
  python src/report.py compare top1=43.5 --like recipe=imagenet2012 \\
                               augment.pca=false    which is known to differ

  top1, top5    errors in per cent (100 less the accuracy)
  view          ten = the average of ten views (default), center = one view
  images        number of test images, if not those of these runs
  n, sd         the figure is the mean of n runs, whose standard deviation is sd
  runs          folders of records or bundles; default: paths.runs
  --like        groups and keys as python src/train.py takes them; default: the
                paper's protocol at the recipe with the most finished runs
  --json        the same as a JSON document
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command."""

METRICS = {"top1": "top1_error", "top5": "top5_error"}
OWN = (*METRICS, "view", "images", "n", "sd", "runs")
LIKE = "--like"
_MOST_NAMED = 3  # problems
HEADINGS = {
    MEASURED: "measured",
    FROM_PAPERS: "published",
    NOT_KNOWN: "not measured",
    NEAR_ZERO: "not distinguishable from 0",
    AWAY: "the other way",
}


def main(argv: Sequence[str]) -> int:
    """Run a command line, without the word `compare`; return its exit status."""
    arguments = [argument for argument in argv if argument not in (LIKE, FLAG)]

    with json_answer(argv) as answer:

        def obey(given: list[str], config_dir: str | None, console: Console) -> int:
            found = _find(given, LIKE in argv, Composer(config_dir))
            if answer.is_wanted:
                from alexlab.report.documents import comparison_document  # imports Matplotlib

                answer.give("report-compare/1", comparison_document(found))
            else:
                print_comparison(found, console)
            return 0

        return run_command(arguments, USAGE, ".", obey)


def _find(given: Sequence[str], has_like: bool, composer: Composer) -> Comparison:
    """Answer a command line.

    Raises:
        UserError: for a mistake in it, or a folder of records that is missing.
    """
    question, settings = read_question(given, has_like)
    places = find_places(settings, composer)
    _check_like(question.like, composer)
    is_named = any(one.startswith(("runs=", "paths.runs=")) for one in settings)
    archive = read_archive([one for one in places.sources if is_named or one.folder.exists()])
    return compare(question, composer, archive, SETTLED, STUDYS_OWN)


def read_question(given: Sequence[str], has_like: bool) -> tuple[Question, list[str]]:
    """Check a command line; return the question, and the words that say where records are.

    Raises:
        UserError: naming the word, and what to write.
    """
    own: list[str] = []
    like: list[str] = []
    places: list[str] = []
    for word in given:
        name, sign, _ = word.partition("=")
        if not sign:
            hint = f"write top1={word}" if re.fullmatch(r"[\d.]+%?", word) else "--help lists what compare takes"
            raise UserError(f"{word}: is not KEY=VALUE; {hint}")
        if name in OWN:
            own.append(word)
        elif name.startswith(SETTINGS):
            places.append(word)
        elif not has_like:
            raise UserError(f"{word}: compare takes {', '.join(OWN)}{_advice(name, word)}")
        else:
            like.append(word)
    values = given_values(own)
    if has_like and not like:
        raise UserError(f"{LIKE}: names no recipe; write {LIKE} recipe=imagenet2012")
    if "runs" in values:
        places.append(f"runs={values['runs']}")
    errors = {METRICS[name]: _percent(name, values[name]) for name in METRICS if name in values}
    if not errors:
        raise UserError("compare: no figure is given; write top1=42.9, an error in per cent")
    if len(errors) == 2 and errors["top5_error"] > errors["top1_error"]:
        right = " ".join(f"{name}={100 - 100 * errors[METRICS[name]]:.4g}" for name in METRICS)
        raise UserError(
            f"top1={values['top1']} top5={values['top5']}: no top-5 error is above its top-1 error; if these are "
            f"accuracies, write {right}"
        )
    view = values.get("view")
    if view not in (None, *OTHER_VIEW):
        raise UserError(f"view={view}: must be ten or center")
    images = _whole("images", values["images"], 2) if "images" in values else None
    runs = _whole("n", values["n"], 1) if "n" in values else 1
    sd = None
    if "sd" in values:
        if len(errors) == 2:
            raise UserError(f"sd={values['sd']}: is of one error; give top1 or top5 alone")
        if runs < 2:
            raise UserError(f"sd={values['sd']}: needs the number of runs that it is of, two or more; add n=...")
        sd = _percent("sd", values["sd"])
    figures = {metric: Figure(value, runs, sd, images) for metric, value in errors.items()}
    return Question(figures, view, like), places


def _advice(name: str, word: str) -> str:
    if name in key_types() or (CONF_DIR / name).is_dir():
        return f"; groups and keys of a recipe follow {LIKE}: {LIKE} {word}"
    if name.startswith("acc"):
        return "; an accuracy of 57.1 is an error of 42.9: top1=42.9"
    return did_you_mean(name, OWN)


def _percent(name: str, text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        what = "a standard deviation" if name == "sd" else "an error"
        raise UserError(f"{name}={text}: must be {what} in per cent, from 0 to 100")
    return abs(value) / 100  # -0 is 0


def _whole(name: str, text: str, least: int) -> int:
    value = int(text) if re.fullmatch(r"\d{1,12}", text) else 0
    if value < least:
        raise UserError(f"{name}={text}: must be a whole number, {least} or more")
    return value


def _check_like(line: list[str], composer: Composer) -> None:
    """Raise ConfigError unless a line names a single recipe."""
    for override in composer.parse(line):
        text = override.input_line or ""
        if override.is_sweep_override():
            raise ConfigError(f"{LIKE} {text}: names one recipe; give one value of each key")
        if override.key_or_group in ("seed", "data.seed"):
            raise ConfigError(f"{LIKE} {text}: all seeds of a recipe are compared; remove it")
        if override.key_or_group.partition(".")[0] in ("study", "debug"):
            raise ConfigError(f"{LIKE} {text}: names no run; name one by its recipe and keys")
    composer.check_once(line)


def print_comparison(found: Comparison, console: Console) -> None:
    """Print the answer, within some fifty lines of eighty columns."""
    console.print()
    for line in _answer(found):
        console.say(as_typed(line))
    console.print()
    _print_differences(found, console)
    for line in _notes(found):
        if line.startswith("python src/"):
            console.print(as_typed(line), style="dim", soft_wrap=True)  # to be copied
        else:
            console.say(as_typed(line), "dim")


def _answer(found: Comparison) -> list[str]:
    """The sentences about the figures."""
    name, view = " ".join(found.line), VIEW_NAMES[found.view]
    lines = []
    for metric, figure in found.question.figures.items():
        if metric == "top1_error" and 0 < figure.value < 0.01:
            lines.append(f"top1 is read as {_error(figure.value)}; write fractions in per cent.")
    if found.own is None:
        lines.append(f"No run of {name} is finished in these records{_instead(found)}")
        for metric, theirs in found.references.items():
            if (figure := found.question.figures.get(metric)) is not None:
                lines.append(
                    f"{_name(metric)}: {_error(figure.value)} is {_gap(figure.value - theirs)} {_error(theirs)}."
                )
        return lines + _left_out(found)
    own = found.own
    count = "" if found.images is None else f", {found.images:,} test images"
    chosen = f" {LIKE} names another recipe." if found.is_chosen_here else ""
    lost = f" {own.lost} more failed or are partly trained, and are not counted." if own.lost else ""
    lines.append(f"Compared with {plural(len(own.runs), 'finished run')} of {name}: {view}{count}.{lost}{chosen}")
    lines += [f"{_name(metric)}: {sentence(placement)}" for metric, placement in found.placements.items()]
    if any(placement.half is not None for placement in found.placements.values()):
        lines.append(_of_interval(found))
    return lines + _left_out(found)


def _left_out(found: Comparison) -> list[str]:
    """Problems of records, which may be why there are few runs or none."""
    lines = [f"Left out: {one}" for one in found.problems[:_MOST_NAMED]]
    more = len(found.problems) - len(lines)
    return lines + [f"Left out: {more:,} more like these."] * (more > 0)


def _instead(found: Comparison) -> str:
    one = found.reference
    if one is None:
        return ", and the paper has no figure for it at this scale."
    view = VIEW_NAMES[one.view]
    if one.view != found.view:
        view += f", changed to the {VIEW_NAMES[found.view]} by what section 6 has for one net"
    return f"; compared with {one.source} ({view}). Its spread over seeds was never published."


def sentence(placement: Placement) -> str:
    """The position of a figure among the runs, in one sentence; a second one has the percentile."""
    figure, count = placement.figure, placement.runs
    spread = "" if placement.sd is None else f", standard deviation {100 * placement.sd:.2g}"
    centre = f"the mean of {count} runs" if count > 1 else "the only run"
    start = f"{_error(figure.value)} is {_gap(placement.gap)} {centre} ({_error(placement.mean)}{spread})"
    further = "one further run" if figure.runs == 1 else f"the mean of {figure.runs} further runs"
    if placement.interval is None:
        return (
            f"{start}. The interval for {further} of this recipe needs {LEAST_RUNS} runs or more, better eight; there "
            f"{'is' if count == 1 else 'are'} {count}."
        )
    low, high = (f"{100 * end:.{_decimals(placement.half or 0)}f}" for end in placement.interval)
    side = "within" if placement.is_expected else "above" if placement.gap > 0 else "below"
    why = "chance alone can explain it" if placement.is_expected else "chance alone does not explain it"
    same = f", {placement.equal} the same" if placement.equal else ""
    below = f"{placement.below} of the {count} runs have less error{same} (percentile {placement.percentile:.0f})"
    return (
        f"{start}, {side} what {further} of this recipe gives (95 %: {low} to {high} %; {count} runs): {why}. {below}."
    )


def _of_interval(found: Comparison) -> str:
    """The sources of variation that the interval covers."""
    figure = next(iter(found.question.figures.values()))
    scatter = "both sides' spread over seeds" if figure.sd is not None else "the spread over seeds"
    wide = next(iter(found.placements.values())).runs < 5
    few = " It is wide because the runs are few." if wide else ""
    count = "" if found.images is None else f"{found.images:,} "
    if figure.images is None:
        return (
            f"The interval (Student's t) covers {scatter} but not the choice of test images, as the figure is assumed "
            f"to be from the same {count}images; if it is from N others, add images=N.{few}"
        )
    return (
        f"The interval (Student's t) covers {scatter} and the choice of test images: {figure.images:,} there, "
        f"{count.strip()} others here.{few}"
    )


def _print_differences(found: Comparison, console: Console) -> None:
    titles = {"top1_error": "top-1", "top5_error": "top-5"}
    columns = [
        *(Column("what may differ"), Column("as an override", wraps=True, rank=1), Column("points", right=True)),
        Column("known from", wraps=True, rank=2),
    ]
    group = None
    for one in found.differences:
        rank = one.rank(found.gap)[0]
        if rank != group:
            cells = _heading(rank, found.gap), "", "", ""
            for column, cell in zip(columns, cells, strict=True):
                column.cells.append(cell)
            group = rank
        for column, cell in zip(columns, _cells(one), strict=True):
            column.cells.append(cell)
    gap = "" if found.gap is None else f" (to explain: {100 * found.gap:+.1f})"
    print_columns(f"Effect of each difference on their {titles[found.metric]} error{gap}", columns, console)


def _heading(rank: int, gap: float | None) -> str:
    toward = "" if gap is None or rank not in (MEASURED, FROM_PAPERS) else f", {'more' if gap > 0 else 'less'} error"
    return f"{HEADINGS[rank]}{toward}".upper()


def _cells(one: Difference) -> tuple[str, str, str, str]:
    points = ""
    if one.effect is not None:
        half = "" if one.half is None else f" ±{100 * one.half:.1f}"
        sign = ">" if one.at_least and one.effect > 0 else "<" if one.at_least else ""
        points = half.strip() if one.effect == 0 and half else f"{sign}{100 * one.effect:+.1f}{half}"
    known = f"{'/'.join(map(str, one.runs))} runs" if one.runs else one.source
    return f"  {one.name}", one.override or "", points, known


def _notes(found: Comparison) -> list[str]:
    """Notes on the table's numbers, and the commands."""
    lines = []
    if any(one.is_measured for one in found.differences):
        lines.append(
            "Measured: runs with the difference minus those without (number of each), ±95 % for all rows at once, for "
            "new seeds and images. The best epoch's effect is on validation images."
        )
    if any(one.effect is not None and not one.is_measured for one in found.differences):
        lines.append(
            "Published: single runs; caffenet-benchmark's use 128 px and the centre view, and half the epochs also a "
            "linear schedule. Effects do not add up."
        )
    if found.data is Dataset.shapes:
        lines.append("These runs are on ten drawn shapes, not ImageNet: their effects hold for such runs only.")
    if found.published:
        each = [f"{one.top1_error}/{one.top5_error} {one.source}" for one in found.published]
        view = f" ({VIEW_NAMES[found.published[0].view]})"
        lines.append(f"Published for {found.data.name}{view}: {'; '.join(each)}.")
    if found.own is None:
        lines.append(f"To measure this recipe's spread, {SEEDS} seeds:")
        lines.append(train_command(found.command))
    commands = [
        (one.override, one.command) for one in found.differences if one.command is not None and one.override is not None
    ]
    if commands:
        override, command = commands[0]
        name = printable_line(override).partition("=")[0]
        lines.append(
            "To measure a row" + (f" (another: its override in place of {name}):" if len(commands) > 1 else ":")
        )
        lines.append(train_command(command))
    return lines


def _name(metric: str) -> str:
    return "top-1" if metric == "top1_error" else "top-5"


def _error(value: float) -> str:
    return f"{100 * value:.2f}".rstrip("0").rstrip(".") + " %"


def _gap(gap: float) -> str:
    if abs(gap) < 5e-5:
        return "as much as"
    return f"{100 * abs(gap):.{_decimals(gap)}f} points {'above' if gap > 0 else 'below'}"


def _decimals(size: float) -> int:
    """Of a number of points: two below one point."""
    return 1 if abs(size) >= 0.01 else 2
