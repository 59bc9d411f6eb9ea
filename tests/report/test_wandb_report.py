"""What W&B is told of a study: of its own runs, by the names that they are logged by, and nothing without a key."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image

from alexlab.command import exit_status
from alexlab.config import LoggerConfig
from alexlab.console import Console
from alexlab.data.shapes import CLASSES
from alexlab.errors import UserError
from alexlab.report import wording
from alexlab.report.sweep import examine
from alexlab.report.wandb_report import (
    build_report,
    build_workspace,
    claims_markdown,
    main_keys,
    publish,
    publish_sweep,
    run_names,
)
from alexlab.runs import trackers
from alexlab.runs.record import Record
from alexlab.study.judge import judge
from alexlab.study.judgement import Judgement
from alexlab.study.plans import read_looks
from alexlab.study.records import Archive, read_archive
from alexlab.study.sweeps import read_sweep
from support.studies import made_study

pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces")
KEY = "0123456789abcdef" * 2 + "01234567"
MINE = LoggerConfig(project="mine")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    made_study(folder, ["study=lrn", "study.seeds=2", "study.base_seeds=2"], missing={"no_lrn": 1})
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither key nor server of whoever runs the tests; and no process of W&B's is left."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    wandb.teardown()
    yield
    wandb.teardown()


def judged(runs: Path, change: Callable[[dict[str, Any]], None] = lambda plan: None) -> tuple[Judgement, Archive]:
    [plan] = (runs / "studies").glob("*.json")
    looks = read_looks(plan)
    change(looks[-1])
    archive = read_archive([runs])
    return judge(looks, archive), archive


def spec(view: Any) -> dict[str, Any]:
    return json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def panels(found: Any) -> list[dict[str, Any]]:
    """All panels of a specification, in order."""
    if isinstance(found, list):
        return [panel for one in found for panel in panels(one)]
    if not isinstance(found, dict):
        return []
    return [found] if "viewType" in found else [panel for one in found.values() for panel in panels(one)]


def runsets(found: dict[str, Any]) -> list[dict[str, Any]]:
    if "section" in found:
        return found["section"]["runSets"]
    return [one for block in found["blocks"] for one in block.get("metadata", {}).get("runSets", [])]


class Logged:
    """What `tracking` sends of a run."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    def init(self, **named: Any) -> SimpleNamespace:
        rows: list[dict[str, Any]] = []
        summary: dict[str, Any] = {}
        self.runs.append({**named, "rows": rows, "summary": summary})
        return SimpleNamespace(
            summary=summary,
            starting_step=0,
            log=lambda row, step: rows.append(row),
            finish=lambda exit_code: None,
            define_metric=lambda name, step_metric=None: None,
        )


@pytest.fixture
def logged(runs: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """All finished runs of the study as W&B has them."""
    sent = Logged()
    with monkeypatch.context() as context:
        context.setenv("WANDB_MODE", "online")
        context.setattr(wandb, "init", sent.init)
        archive = read_archive([runs])
        for run in archive.runs.values():
            config = archive.config(run)
            config.logger = MINE
            config.logger.wandb = True
            assert trackers.send("wandb", config, run.record)
    return sent.runs


def test_panels_show_what_is_logged(runs: Path, logged: list[dict[str, Any]]):
    judgement, archive = judged(runs)
    both = [spec(build_workspace(judgement, archive, MINE)), spec(build_report(judgement, archive, MINE))]
    first = logged[0]
    for found in both:
        kinds: dict[str, list[dict[str, Any]]] = {}
        for panel in panels(found):
            kinds.setdefault(panel["viewType"], []).append(panel["config"])
        lines = kinds["Run History Line Plot"]
        assert [line["metrics"] for line in lines] == [["train_loss"], ["train_top1_error"], ["val_top1_error"]]
        for line in lines:
            assert {line["xAxis"], *line["metrics"]} <= first["rows"][0].keys()
        bars = kinds["Bar Chart"]
        tested = [name for name in first["summary"] if name.startswith("test/")]
        assert sorted(name for bar in bars for name in bar["metrics"]) == sorted(tested)
        for panel in (*lines, *bars):
            assert (panel["groupBy"], panel["groupAgg"], panel["groupArea"]) == ("group", "mean", "minmax")
            assert panel["limit"] == 6  # all runs
        [parallel] = kinds["Parallel Coordinates Plot"]
        *keys, error = [column["accessor"] for column in parallel["columns"]]
        assert keys == ["config:model.lrn.value", "config:model.lrn_alpha.value"]
        assert {key.removeprefix("config:").removesuffix(".value") for key in keys} <= first["config"].keys()
        assert error.removeprefix("summary:") in first["summary"]
    assert len({run["group"] for run in logged}) == 3


def test_a_finished_run_has_its_kernels_confusions_and_predictions(runs: Path, logged: list[dict[str, Any]]):
    record = Record(runs, logged[0]["id"])
    media = logged[0]["rows"][-1]
    assert {"conv1", "confusion", "predictions"} == media.keys()
    assert isinstance(media["conv1"], wandb.Image)
    with np.load(record.file("predictions.npz")) as arrays:
        labels, top5, chances = (arrays[name] for name in ("labels", "ten_top5", "ten_log_probability"))
    names = sorted(CLASSES)
    rows = media["predictions"].data
    assert len(rows) == 200
    for place, true, first, _, _, is_right, chance in rows:
        assert (true, first) == (names[labels[place]], names[top5[place, 0]])
        assert is_right == (true == first)
        assert chance == pytest.approx(np.exp(chances[place]), abs=1e-4)
    counts = {(actual, given): number for actual, given, number in media["confusion"].table.data}
    assert sum(counts.values()) == len(labels)
    assert counts[names[3], names[3]] == ((labels == 3) & (top5[:, 0] == 3)).sum()


def test_a_run_without_those_files_is_sent_all_the_same(runs: Path, monkeypatch):
    sent = Logged()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", sent.init)
    archive = read_archive([runs])
    run = next(run for run in archive.runs.values() if run.is_done)
    run.record.file("conv1.npy").write_bytes(b"no array")
    run.record.file("predictions.npz").unlink()
    config = archive.config(run)
    config.logger = LoggerConfig(project="mine", wandb=True)
    assert trackers.send("wandb", config, run.record)
    assert "test/ten/top1_error" in sent.runs[0]["summary"]
    assert "epoch" in sent.runs[0]["rows"][-1]


def test_runs_are_those_of_the_study(runs: Path, logged: list[dict[str, Any]]):
    judgement, archive = judged(runs)
    names = [*archive.runs]
    archive.runs[names[0]].record.write("wandb.json", {"id": f"{names[0]}-2"})  # W&B's first was deleted
    archive.runs[names[1]].record.write("wandb.json", {"id": "somebody-elses-run"})  # as a stranger may have written
    planned = {run_id for arm in judgement.plan["arms"] for run_id in arm["runs"].values()}
    expected = {run_id for run_id in planned if run_id != names[0]} | {f"{names[0]}-2"}
    assert set(run_names(judgement, archive)) == expected
    assert {run["id"] for run in logged} < planned  # one run is missing; its curve comes with it
    for view in (build_workspace(judgement, archive, MINE), build_report(judgement, archive, MINE)):
        for runset in runsets(spec(view)):
            [by] = runset["filters"]["filters"]
            assert (by["key"], by["op"]) == ({"section": "run", "name": "name"}, "IN")
            assert set(by["value"]) == expected
    by_arm = [runset["grouping"] for runset in runsets(spec(build_report(judgement, archive, MINE)))]
    assert by_arm == [[{"section": "run", "name": "group"}], []]


def test_parallel_keys_are_those_that_vary_and_can_be_drawn(runs: Path):
    def change(plan: dict[str, Any]) -> None:
        plan["claims"][0]["differs"] = ["model.remove", "model.lrn", "optim.lr", "data.cache", "logger.project"]

    assert main_keys(*judged(runs, change)) == ["model.lrn", "model.lrn_alpha"]


def test_claims_are_a_table_in_which_no_sign_counts(runs: Path):
    statement = "it | is *not* $x_1$ <b>\nso\\"

    def change(plan: dict[str, Any]) -> None:
        plan["claims"][0]["statement"] = statement
        plan["claims"][1].update(is_context=False, direction="lower", recipes=["demo"])

    judgement, archive = judged(runs, change)
    lines = claims_markdown(judgement, archive).splitlines()
    assert len(lines) == 2 + len(judgement.rows)
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in cells} == {9}
    plain = [re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", cell.strip()) for cell in cells[2]]
    assert plain[2] == " ".join(statement.split())
    row = judgement.rows[0]
    assert [plain[0], *plain[3:5]] == ["lrn", wording.published(row), wording.measured(row)]
    assert [row[8].strip() for row in cells[2:]] == [wording.verdict_and_reason(row) for row in judgement.rows]
    assert claims_markdown(*judged(runs)).count("|  |\n") == len(judgement.rows) - 1  # of a rehearsal, but the last
    blocks = spec(build_report(judgement, archive, MINE))["blocks"]
    [table] = [block["content"] for block in blocks if block["type"] == "markdown-block"]
    assert table.splitlines() == lines


def test_the_report_says_what_the_terminal_says_but_no_folder(runs: Path):
    judgement, archive = judged(runs)
    judgement.plan["line"] = [*judgement.plan["line"], "data.raw=/secret/place"]
    judgement.problems.append(f"{runs}/0123456789ab/result.json: is damaged; left out")
    judgement.rows[0].confounds.append(f"the store differs: {runs}")
    text = json.dumps(spec(build_report(judgement, archive, MINE)), ensure_ascii=False)
    assert wording.summary(judgement)[0] in text
    assert "planned runs is missing, and verdicts wait for it. This command runs it." in text
    assert "0123456789ab/result.json: is damaged" in text
    assert "lrn: the store differs: runs" in text
    assert str(runs) not in text
    assert "/secret" not in text


def test_the_same_study_gives_the_same_but_for_ids(runs: Path):
    def made_once() -> list[Any]:
        judgement, archive = judged(runs)
        return [anonymous(spec(build(judgement, archive, MINE))) for build in (build_workspace, build_report)]

    def anonymous(found: Any) -> Any:
        if isinstance(found, list):
            return [anonymous(one) for one in found]
        if isinstance(found, dict):
            return {name: anonymous(one) for name, one in found.items() if name not in ("id", "__id__")}
        return found

    assert made_once() == made_once()


def told(judgement: Judgement, archive: Archive, folder: Path, logger: LoggerConfig = MINE) -> list[str]:
    console = Console(file=io.StringIO(), width=300)
    publish(judgement, archive, folder, logger, console)
    return console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("mode", [None, "offline", "disabled"])
def test_without_a_key_it_is_written_and_not_sent(runs: Path, tmp_path: Path, monkeypatch, capfd, mode: str | None):
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(wandb, "Api", None)
    judgement, archive = judged(runs)
    why = "no key" if mode is None else f"WANDB_MODE={mode}"
    hint = "wandb login" if mode is None else "unset it"
    out = tmp_path / "out"
    assert told(judgement, archive, out) == [
        f"W&B: {why}, so nothing was sent; see {out}/wandb_report.json and wandb_workspace.json. To send: {hint}, "
        "then re-run this command"
    ]
    assert capfd.readouterr() == ("", "")
    for name, build in (("report", build_report), ("workspace", build_workspace)):
        written = json.loads((out / f"wandb_{name}.json").read_text())
        assert (written["project"], written["entity"], written["id"]) == ("mine", "", "")
        assert len(panels(written["spec"])) == len(panels(spec(build(judgement, archive, MINE)))) == 9


def test_without_the_library_it_is_a_line(runs: Path, tmp_path: Path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(UserError, match=r"^--wandb: needs wandb-workspaces; pip install '\.\[workspaces\]'$"):
        told(*judged(runs), tmp_path)


class Server:
    """W&B's GraphQL interface, as far as it is asked for; `refuse` answers each request with that status."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: set[str | None] = set()
        self.projects: list[str] = []
        self.refuse: int | None = None
        self.silent = False

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        assert name is not None
        self.asked.append((name[1], variables))
        if name[1] in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if name[1] == "GetProjects":
            nodes = [{"__typename": "Project", "id": one, "name": one, "entityName": "me"} for one in self.projects]
            nodes = [{**node, "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None} for node in nodes]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"edges": [{"node": node} for node in nodes], "pageInfo": page}}
        if name[1] == "CreateProject":
            self.projects.append(variables["input"]["name"])
            return {"result": {"inserted": True}}
        assert name[1].lower().startswith("upsertview"), query
        assert variables["projectName"] in self.projects
        project = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
        view = {**variables, "id": variables.get("id") or f"view{len(self.sent())}", "project": project}
        view["updatedAt"] = "2026-01-01T00:00:00"
        return {"upsertView": {"view": view, "inserted": True}}

    def sent(self) -> list[dict[str, Any]]:
        return [variables for name, variables in self.asked if name.lower().startswith("upsertview")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A stand-in of W&B on this machine, with a key for it."""
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.path != "/graphql":  # W&B's own telemetry
                return self.reply(404, {})
            served.keys.add(self.headers["Authorization"])
            if served.refuse is not None:
                return self.reply(served.refuse, {"errors": [{"message": "the key\nis none"}]})
            asked = json.loads(body)
            self.reply(200, {"data": served.answer(asked["query"], asked.get("variables") or {})})

        def reply(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{http.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield served
    wandb.teardown()
    http.shutdown()
    http.server_close()
    thread.join()


def test_both_are_sent_and_later_replaced(runs: Path, tmp_path: Path, server: Server, monkeypatch, capfd):
    judgement, archive = judged(runs)
    lines = told(judgement, archive, tmp_path)
    assert capfd.readouterr() == ("", "")
    title = judgement.plan["id"]
    assert re.fullmatch(rf"W&B report: http://127.0.0.1:\d+/me/mine/reports/{title}--view1", lines[0])
    assert re.fullmatch(r"W&B workspace: http://127.0.0.1:\d+/me/mine\?nw=\w+", lines[1])
    assert lines[2:] == ["5 runs not yet in W&B; to send: python src/runs.py copy logger=wandb logger.project=mine"]
    assert len(server.keys) == 1
    first, second = server.sent()
    assert [(sent["type"], sent["displayName"], sent["entityName"]) for sent in (first, second)] == [
        ("runs", title, "me"),
        ("project-view", title, "me"),
    ]
    for name, sent in (("report", first), ("workspace", second)):
        written = json.loads((tmp_path / f"wandb_{name}.json").read_text())
        assert written["spec"] == json.loads(sent["spec"])
        assert written["entity"] == "me"
    assert lines[1].endswith(second["name"].removeprefix("nw-").removesuffix("-v"))

    with monkeypatch.context() as context:  # nothing of what W&B gave is forgotten meanwhile
        context.setenv("WANDB_MODE", "offline")
        told(judgement, archive, tmp_path)
    again = told(judgement, archive, tmp_path)
    assert again == lines
    assert [sent["id"] for sent in server.sent()[2:]] == ["view1", "view2"]
    assert server.sent()[3]["name"] == second["name"]
    assert server.projects == ["mine"]

    told(judgement, archive, tmp_path, LoggerConfig(project="other"))
    assert [sent.get("id") for sent in server.sent()[4:]] == [None, None]
    assert server.projects == ["mine", "other"]


def test_the_plots_of_a_report_are_a_run_of_their_own(runs: Path, tmp_path: Path, server: Server, monkeypatch):
    judgement, archive = judged(runs)
    for name in ("forest", "runs", "cost"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    logged: list[Any] = []

    def init(**named: Any) -> SimpleNamespace:
        logged.append(named)
        return SimpleNamespace(log=logged.append, finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    told(judgement, archive, tmp_path)
    named, pictures = logged
    assert (named["id"], named["project"], named["job_type"]) == (f"report-{judgement.plan['id']}", "mine", "report")
    assert list(pictures) == ["report/runs", "report/forest"]
    found = json.loads((tmp_path / "wandb_report.json").read_text())["spec"]
    shown = [key for panel in panels(found) for key in panel["config"].get("mediaKeys", [])]
    assert shown == ["report/runs", "report/forest", "conv1"]
    [ids] = [one["filters"]["filters"][0]["value"] for one in runsets(found)[:1]]
    assert ids == [named["id"]]

    monkeypatch.setattr(wandb, "init", lambda **named: 1 / 0)
    lines = told(judgement, archive, tmp_path)
    assert "W&B did not take the plots (division by zero); re-run the command to send them" in lines


def test_a_sweep_is_a_workspace_and_a_report_too(runs: Path, tmp_path: Path, server: Server):
    archive = read_archive([runs])
    rows = [
        {"run_id": run.run_id, "seed": run.seed, "data_seed": run.seed, "values": {"ablation": run.labels["ablation"]}}
        for run in archive.runs.values()
    ]
    (runs / "sweeps").mkdir()
    document = {"sweep_id": "0123456789ab", "factors": ["ablation"], "runs": rows}
    (runs / "sweeps" / "0123456789ab.json").write_text(json.dumps(document))
    console = Console(file=io.StringIO(), width=300)
    publish_sweep(examine(read_sweep("last", runs)), tmp_path, MINE, console)
    assert [sent["displayName"] for sent in server.sent()] == ["sweep-0123456789ab"] * 2
    for name in ("report", "workspace"):
        found = json.loads((tmp_path / f"wandb_{name}.json").read_text())["spec"]
        for runset in runsets(found):
            assert set(runset["filters"]["filters"][0]["value"]) == set(archive.runs)
        [parallel] = [panel["config"] for panel in panels(found) if panel["viewType"] == "Parallel Coordinates Plot"]
        keys = {column["accessor"] for column in parallel["columns"]}
        assert "config:model.lrn.value" in keys
        assert not any("seed" in key for key in keys)
    [table] = [block["content"] for block in server_blocks(tmp_path) if block["type"] == "markdown-block"]
    assert len(table.splitlines()) == 2 + 3


def server_blocks(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "wandb_report.json").read_text())["spec"]["blocks"]


def test_a_refusal_is_a_line_and_loses_nothing(runs: Path, tmp_path: Path, server: Server, capsys):
    judgement, archive = judged(runs)
    server.refuse = 401
    assert exit_status(lambda: len(told(judgement, archive, tmp_path))) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("error: W&B did not accept the report (Failed to verify credentials with http://127.0.0.1:")
    assert error.endswith(f": the key is none); {tmp_path}/wandb_report.json has it, re-run the command to send it")
    assert len(panels(json.loads((tmp_path / "wandb_workspace.json").read_text())["spec"])) == 9


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, "no answer in time"),
        ({"WANDB_API_KEY": "short"}, "API key must have 40"),
        ({"WANDB_API_KEY": "", "WANDB_MODE": "online"}, "no key; run wandb login"),
    ],
)
def test_no_network_and_no_good_key(runs: Path, tmp_path: Path, server: Server, monkeypatch, changes, reason: str):
    monkeypatch.setattr(wandb.Api, "_HTTP_TIMEOUT", 1)
    monkeypatch.setattr("wandb.sdk.lib.identity._RESOLVE_TIMEOUT_SECONDS", 0.5)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match=reason) as raised:
        told(*judged(runs), tmp_path)
    assert "\n" not in str(raised.value)
    assert not server.asked
    assert {path.name for path in tmp_path.glob("*.json")} == {"wandb_report.json", "wandb_workspace.json"}


def test_the_library_is_imported_only_where_it_is_asked_for():
    listing = "[name for name in sys.modules if name.startswith('wandb_workspaces')]"
    code = f"import sys, alexlab.report.wandb_report; print({listing})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
