"""A study at W&B: a saved workspace and a report of the runs that `alexlab.runs.wandb_copy` sends there.

Both are built offline and written to files first, so that nothing is lost without a key or a server. No folder of this
machine is sent. W&B's library is imported only if it is used.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexlab.config import LoggerConfig
from alexlab.console import Console, plural, printable
from alexlab.errors import UserError, one_line
from alexlab.files import write_atomic
from alexlab.report.sweep import SweepReport, sweep_content
from alexlab.report.wording import measured, printed, row_cells
from alexlab.runs.identity import SEEDS
from alexlab.runs.tracked import public_config
from alexlab.runs.wandb_copy import is_copied, private_settings, wandb_mode
from alexlab.study.claims import VIEWED
from alexlab.study.judgement import Judgement
from alexlab.study.records import Archive, RunData

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces import Workspace

CURVES = {"train_loss": "training loss", "train_top1_error": "training error", "val_top1_error": "validation error"}
PICTURES = ("runs", "forest", "forest_gap", "forest_ratio", "classes", "confusion")  # plots that are sent to W&B
GROUP = "Group"  # W&B's name of the arm that alexlab.runs.wandb_copy sets
_LONGEST_TITLE = 128  # that W&B accepts
_LONGEST_REASON = 300  # characters shown of a server's answer, which may be a web page
_BUSY = "the service process is busy and did not respond in time"  # W&B's message if the server is down
_GRID = 24  # columns of a report's width
_MARKS = re.compile(r"([\\`*_\[\]<>|~$&])")  # of Markdown within a line, a table or a formula

_LOGGED_VIEWS = ("ten", "center")  # whose errors are in W&B's summary


def publish(judgement: Judgement, archive: Archive, folder: Path, logger: LoggerConfig, console: Console) -> None:
    """Write <folder>/wandb_report.json and wandb_workspace.json, and with a W&B key send both to `logger`'s project.

    A copy that was sent before, according to those files, is replaced. The report's plots in `folder` are sent too, as
    images of a W&B run of their own.

    Raises:
        UserError: if wandb-workspaces is not installed.
        OSError: if W&B does not accept one; both files are written anyway.
    """
    pictures = _pictures(folder)
    views = {  # the report first, as only that creates a project
        "report": build_report(judgement, archive, logger, pictures),
        "workspace": build_workspace(judgement, archive, logger),
    }
    runs = [run for arm in judgement.arms for run in arm.runs]
    _publish(views, _title(judgement.plan["id"]), pictures, runs, folder, logger, console)


def publish_sweep(report: SweepReport, folder: Path, logger: LoggerConfig, console: Console) -> None:
    """As `publish`, for a sweep."""
    shown, pictures = _of_sweep(report), _pictures(folder)
    views = {"report": _sweep_report(report, shown, logger, pictures), "workspace": _workspace(shown, logger)}
    _publish(views, shown.title, pictures, report.runs, folder, logger, console)


def _publish(
    views: dict[str, Any],
    title: str,
    pictures: dict[str, Path],
    runs: list[RunData],
    folder: Path,
    logger: LoggerConfig,
    console: Console,
) -> None:
    files = {what: folder / f"wandb_{what}.json" for what in views}
    folder.mkdir(parents=True, exist_ok=True)
    for what, view in views.items():
        _replace(view, files[what], logger)
        _write(view, files[what])
    for what, view in views.items():
        try:
            with _quiet():
                url = _sent(view)
        except Exception as error:  # W&B raises many kinds
            raise OSError(_refused(what, view, files[what], error)) from error
        if url is None:
            console.print(_unsent(list(files.values())), soft_wrap=True)
            return
        _write(view, files[what])
        console.print(f"W&B {what}: {url}", soft_wrap=True)
    _send_pictures(pictures, title, logger, console)
    absent = sum(not is_copied(run.record, "online") for run in runs)
    if absent:
        keys = f"logger.project={logger.project}" + (f" logger.entity={logger.entity}" if logger.entity else "")
        console.print(
            f"{plural(absent, 'run')} not yet in W&B; to send: python src/runs.py copy logger=wandb {keys}",
            soft_wrap=True,
        )


def _pictures(folder: Path) -> dict[str, Path]:
    """The plots of a report that W&B's own panels cannot show, by the names under which they are logged."""
    return {f"report/{name}": folder / f"{name}.png" for name in PICTURES if (folder / f"{name}.png").is_file()}


def _picture_run(title: str) -> str:
    return f"report-{title}"[:_LONGEST_TITLE]


def _send_pictures(pictures: dict[str, Path], title: str, logger: LoggerConfig, console: Console) -> None:
    if not pictures:
        return
    import wandb

    try:
        with _quiet():
            run = wandb.init(
                project=logger.project,
                entity=logger.entity,
                id=_picture_run(title),
                name=_picture_run(title),
                job_type="report",
                resume="allow",
                mode="online",
                settings=private_settings(),
            )
            run.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
            run.finish()
    except Exception as error:  # W&B raises many kinds
        reason = one_line(error)[:_LONGEST_REASON]
        console.print(f"W&B did not take the plots ({reason}); re-run the command to send them", soft_wrap=True)


@dataclass(frozen=True)
class Shown:
    """What a workspace and the panels of a report show."""

    title: str
    names: list[str]  # W&B's ids of the runs
    keys: list[str]  # in which they differ

    @property
    def filters(self) -> str:
        """By id, not by group: a group may contain unplanned runs, and the library garbles =, < and >."""
        return f"Metric('ID') in {self.names}"


def _of_study(judgement: Judgement, archive: Archive) -> Shown:
    return Shown(_title(judgement.plan["id"]), run_names(judgement, archive), main_keys(judgement, archive))


def _of_sweep(report: SweepReport) -> Shown:
    names = [wandb_id(run.data.run_id, run.data) for run in report.sweep.runs]
    configs = []
    for arm in report.arms:
        with contextlib.suppress(UserError):
            configs += [public_config(report.archive.config(run)) for run in arm.runs[:1]]
    wanted = [name for name in dict.fromkeys(name for config in configs for name in config) if name not in SEEDS]
    return Shown(_title(f"sweep-{report.sweep.sweep_id}"), list(dict.fromkeys(names)), _varying(wanted, configs))


def build_workspace(judgement: Judgement, archive: Archive, logger: LoggerConfig) -> Workspace:
    """Build the study's saved view: its runs by arm, with curves, test errors and keys.

    Raises:
        UserError: if wandb-workspaces is not installed.
    """
    return _workspace(_of_study(judgement, archive), logger)


def _workspace(shown: Shown, logger: LoggerConfig) -> Workspace:
    reports, workspaces = _library()
    most = len(shown.names)
    return workspaces.Workspace(
        entity=logger.entity or "",
        project=logger.project,
        name=shown.title,
        sections=[
            workspaces.Section(name="Training, by arm", panels=_curves(most), is_open=True),
            workspaces.Section(name="Test errors, by arm", panels=_bars(most), is_open=True),
            workspaces.Section(name="Keys and test error", panels=_parallel(shown.keys), is_open=True),
            workspaces.Section(
                name="First layer", panels=[reports.MediaBrowser(title="conv1", media_keys=["conv1"])], is_open=False
            ),
        ],
        settings=workspaces.WorkspaceSettings(x_axis="epoch", max_runs=most),
        runset_settings=workspaces.RunsetSettings(filters=shown.filters, groupby=[workspaces.Metric(GROUP)]),
    )


def build_report(
    judgement: Judgement, archive: Archive, logger: LoggerConfig, pictures: Collection[str] = ()
) -> Report:
    """Build the study's report: summary, plots, claims, caveats, and the workspace's panels.

    `pictures`: names of the plots that `publish` logs.

    Raises:
        UserError: if wandb-workspaces is not installed.
    """
    reports, _ = _library()
    plan, shown = judgement.plan, _of_study(judgement, archive)
    lines = printed(replace(judgement, config_dir=None))  # which is a folder of this machine
    doubts = [f"{row.claim.id}: {doubt}" for row in judgement.rows for doubt in (*row.confounds, *row.notes)]

    def listed(texts: list[str]) -> Any:
        return reports.UnorderedList(items=[_public(text, archive) for text in texts])

    blocks = [
        reports.P(f"Study {plan['name']} at recipe {plan['recipe']}, claim by claim."),
        listed(lines),
        *_picture_blocks(shown, pictures),
        reports.H2("Claims"),
        reports.MarkdownBlock(claims_markdown(judgement, archive)),
        *([reports.H2("Caveats"), listed(doubts)] if doubts else []),
        *_panel_blocks(shown),
    ]
    return _report(shown, logger, f"{plural(judgement.done, 'run')}; python src/report.py --wandb updates it.", blocks)


def _sweep_report(report: SweepReport, shown: Shown, logger: LoggerConfig, pictures: Collection[str]) -> Report:
    reports, _ = _library()
    content = sweep_content(report)
    names = content["intervals"]
    rows = [["arm", "runs", "top-1 error, %", "difference, points", *names]]
    rows.append(["---"] * len(rows[0]))
    for arm in content["arms"]:
        texts = [arm["name"], arm["counts"], f"{arm['error']} {arm['sd']}", arm["difference"]]
        rows.append([_cell(text) for text in (*texts, *(arm["intervals"].get(name, "") for name in names))])
    blocks = [
        reports.P(f"{content['title']}: {content['subtitle']}"),
        reports.UnorderedList(items=content["summary"]),
        *_picture_blocks(shown, pictures),
        reports.H2("Arms"),
        reports.MarkdownBlock("\n".join(f"| {' | '.join(cells)} |" for cells in rows)),
        *_panel_blocks(shown),
    ]
    description = (
        f"{plural(len(report.runs), 'run')}; python src/report.py sweep={report.sweep.sweep_id} --wandb updates it."
    )
    return _report(shown, logger, description, blocks)


def _report(shown: Shown, logger: LoggerConfig, description: str, blocks: list[Any]) -> Report:
    reports, _ = _library()
    return reports.Report(
        entity=logger.entity or "",
        project=logger.project,
        title=shown.title,
        description=description,
        blocks=blocks,
        width="fluid",
    )


def _grid(shown: Shown, filters: str, panels: list[Any], groupby: list[str]) -> Any:
    """Panels of runs of the report's own project."""
    reports, _ = _library()
    return reports.PanelGrid(
        runsets=[reports.Runset(name=shown.title, filters=filters, groupby=groupby)], panels=panels
    )


def _picture_blocks(shown: Shown, pictures: Collection[str]) -> list[Any]:
    if not pictures:
        return []
    reports, _ = _library()
    panels = [reports.MediaBrowser(title=name.partition("/")[2], media_keys=[name], num_columns=1) for name in pictures]
    filters = f"Metric('ID') in {[_picture_run(shown.title)]}"
    return [reports.H2("Plots"), _grid(shown, filters, _placed(panels, 2, height=18), [])]


def _panel_blocks(shown: Shown) -> list[Any]:
    reports, _ = _library()
    most = len(shown.names)
    conv1 = reports.MediaBrowser(title="conv1", media_keys=["conv1"])
    return [
        reports.H2("By arm"),
        reports.P("Lines and bars are means over an arm's runs; bands show the range of the runs."),
        _grid(shown, shown.filters, [*_placed(_curves(most), 3), *_placed(_bars(most), 2, top=8)], [GROUP]),
        reports.H2("By run"),
        reports.P("Each line is a run, with the keys in which the arms differ and its test error."),
        _grid(shown, shown.filters, [*_placed(_parallel(shown.keys), 1), *_placed([conv1], 1, top=8)], []),
    ]


def claims_markdown(judgement: Judgement, archive: Archive) -> str:
    """The claims as a Markdown table, one row each."""
    heads = ["claim", "section", "statement", "paper", "measured, ± study-wise"]
    heads += ["± this test set", "± new images", "runs", "verdict"]
    rows = [heads, ["---"] * len(heads)]
    for row in judgement.rows:
        name, paper, effect, number, verdict = row_cells(row, judgement.is_rehearsal)
        alone = [measured(row, which) if row.level is None else "" for which in ("fixed", "new")]
        texts = [name, row.claim.section, row.claim.statement, paper, effect, *alone, number, verdict]
        rows.append([_cell(_public(text, archive)) for text in texts])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def run_names(judgement: Judgement, archive: Archive) -> list[str]:
    """W&B's ids of all runs that the study planned, as `alexlab.runs.wandb_copy` gives them; each once."""
    found = {}
    for run_id in (run_id for arm in judgement.arms for run_id in arm.planned.values()):
        found[wandb_id(run_id, archive.runs.get(run_id))] = None
    return list(found)


def wandb_id(run_id: str, run: RunData | None) -> str:
    """W&B's id of a run, with a number appended if an earlier copy was deleted there."""
    name = run_id if run is None else str(run.record.read("wandb.json").get("id", run_id))
    return name if re.fullmatch(rf"{re.escape(run_id)}(-\d+)?", name) else run_id


def main_keys(judgement: Judgement, archive: Archive) -> list[str]:
    """The keys that the study's claims are about, if runs differ in them and W&B can plot their values."""
    wanted = dict.fromkeys(name for row in judgement.rows for name in row.claim.differs or row.differing)
    configs = []
    for arm in judgement.arms:
        with contextlib.suppress(UserError):  # `judge` has reported it
            configs += [public_config(archive.config(run)) for run in arm.runs[:1]]
    return _varying(wanted, configs)


def _varying(wanted: Iterable[str], configs: list[dict[str, Any]]) -> list[str]:
    """Those of the keys whose values differ and can be plotted."""
    found = []
    for name in wanted:
        values = [config.get(name) for config in configs]
        if all(isinstance(value, bool | int | float | str) for value in values) and len({*map(repr, values)}) > 1:
            found.append(name)
    return found


def _library() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic's, about the library's code
            import wandb_workspaces.reports.v2 as reports
            import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError("--wandb: needs wandb-workspaces; pip install '.[workspaces]'") from error
    return reports, workspaces


def _title(name: str) -> str:
    """A title without characters that W&B reads as emojis, such as + and =."""
    return re.sub(r"[^\w./ -]", "-", name)[:_LONGEST_TITLE]


def _curves(most: int) -> list[Any]:
    reports, _ = _library()
    return [
        reports.LinePlot(
            title=f"{title}, mean and range over seeds",
            x="epoch",
            y=[name],
            groupby=GROUP,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=most,
        )
        for name, title in CURVES.items()
    ]


def _bars(most: int) -> list[Any]:
    reports, _ = _library()
    return [
        reports.BarPlot(
            title=f"test {metric.replace('_', ' ')}, {view} view",
            metrics=[error_name(view, metric)],
            groupby=GROUP,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=most,
            max_bars_to_show=most,
        )
        for metric in VIEWED
        for view in _LOGGED_VIEWS
    ]


def _parallel(keys: list[str]) -> list[Any]:
    reports, _ = _library()
    from wandb_workspaces.reports.v2 import internal

    class Key(reports.ParallelCoordinatesPlotColumn):
        """A key with dots in its name, as they are logged; `reports.Config` reads the dots as levels."""

        def _to_model(self) -> Any:
            return internal.Column(accessor=f"config:{self.metric}.value", display_name=self.metric)

    error = error_name(_LOGGED_VIEWS[0], VIEWED[0])
    columns = [Key(metric=name) for name in keys]
    columns.append(reports.ParallelCoordinatesPlotColumn(metric=reports.SummaryMetric(error), display_name=error))
    return [reports.ParallelCoordinatesPlot(title="keys and test error", columns=columns)]


def error_name(view: str, metric: str) -> str:
    """The name in W&B's summary, as `alexlab.runs.wandb_copy` writes it."""
    return f"test/{view}/{metric}"


def _placed(panels: list[Any], columns: int, top: int = 0, height: int = 8) -> list[Any]:
    """Lay out panels side by side in a report's grid."""
    reports, _ = _library()
    width = _GRID // columns
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        panel.layout = reports.Layout(x=width * column, y=top + height * row, w=width, h=height)
    return panels


def _cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _public(text: str, archive: Archive) -> str:
    """Remove this machine's folders and control characters from a text."""
    text = printable(text)
    for place in (Path(source.name) for source in archive.sources):
        if place.is_absolute():
            text = text.replace(f"{place}/", "").replace(str(place), place.name)
    return text


def _replace(view: Any, file: Path, logger: LoggerConfig) -> None:
    """Let a view replace the one that was sent before, if its file names one."""
    try:
        before = json.loads(file.read_text("utf-8"))
        ours = before["project"] == logger.project and logger.entity in (None, before["entity"])
        if not (ours and before["id"]):
            return
        view.entity = before["entity"]
        if hasattr(view, "_internal_id"):
            view._internal_id, view._internal_name = before["id"], before["name"]
        else:
            view.id = before["id"]
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is not ours
        return


def _write(view: Any, file: Path) -> None:
    """Write everything that is sent for a view; `id` and `name` are set by W&B, and empty before."""
    model = view._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    content = {"entity": view.entity, "project": view.project, "title": model.display_name, "id": model.id}
    content["name"] = getattr(view, "_internal_name", "")
    write_atomic(file, json.dumps({**content, "spec": spec}, indent=1, ensure_ascii=False) + "\n")


def _sent(view: Any) -> str | None:
    """Send a view and return its address, or None if W&B is off."""
    import wandb

    if wandb_mode() != "online":
        return None
    if "WANDB_MODE" in os.environ and not wandb.login(
        prompt=False, verify=False
    ):  # else W&B asks for it in the terminal
        raise ValueError("no key; run wandb login")
    view.entity = view.entity or wandb.Api().default_entity
    view.save()
    return view.url


def _refused(what: str, view: Any, file: Path, error: Exception) -> str:
    reason = one_line(error).replace(_BUSY, "no answer in time")
    known = getattr(view, "_internal_id", getattr(view, "id", ""))
    hint = "; if it was deleted there, remove that file first" if known else ""
    reason = reason[:_LONGEST_REASON]
    return f"W&B did not accept the {what} ({reason}); {file} has it, re-run the command to send it{hint}"


def _unsent(files: list[Path]) -> str:
    mode = os.environ.get("WANDB_MODE")
    why, hint = (f"WANDB_MODE={mode}", "unset it") if mode else ("no key", "wandb login")
    sent = f"W&B: {why}, so nothing was sent; see {files[0]} and {files[1].name}."
    return f"{sent} To send: {hint}, then re-run this command"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress W&B's own lines on stderr."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
