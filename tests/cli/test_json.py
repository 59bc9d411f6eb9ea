"""`--json`: one document that fits its schema, with the numbers of the records, and nothing else on stdout."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from scipy import stats

from alexlab.cli import forecast, report, runs, train
from alexlab.cli.json_output import plain
from alexlab.config import PROJECT_DIR
from alexlab.runs.lease import take
from alexlab.runs.record import Record
from support.studies import made_study

SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (PROJECT_DIR / "src/alexlab/schemas").glob("*.json")}
PAGE = PROJECT_DIR / "docs/reference/json.md"
SWEEPS = ("0123456789ab", "1" * 12)


def checked(text: str) -> dict[str, Any]:
    """The one document of a text, strict JSON that fits the schema which it names."""

    def reject(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert text.isascii()
    assert text.endswith("}\n")
    document = json.loads(text, parse_constant=reject)
    assert next(iter(document)) == "schema"
    name, _, version = document["schema"].removeprefix("alexlab.").partition("/")
    errors = [
        f"{one.json_path}: {one.message}"
        for one in Draft202012Validator(SCHEMAS[f"{name}-{version}"]).iter_errors(document)
    ]
    assert errors == []
    return document


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study and two sweeps of the same runs: finished, diverged, missing and running ones; and a corrupt record."""
    folder = tmp_path_factory.mktemp("runs")
    line = ["study=lrn", "study.seeds=4", "study.base_seeds=4"]
    made_study(folder, line, {"none": 0.3, "no_lrn": 0.36}, missing={"lrn_scale_only": 2}, failed={"no_lrn": 1})
    [plan] = (folder / "studies").glob("*.json")
    arms = json.loads(plan.read_text())["looks"][-1]["arms"]
    all_runs = [
        {"run_id": run_id, "seed": int(seed), "data_seed": int(seed), "values": {"ablation": arm["name"]}}
        for arm in arms
        for seed, run_id in arm["runs"].items()
    ]
    running = Record(folder, next(run["run_id"] for run in all_runs if not (folder / run["run_id"]).exists()))
    running.path.mkdir()
    running.begin("seed: 2\n", {"ablation": "lrn_scale_only", "recipe": "demo"}, started=1.7e9)
    lease = take(running.path)
    assert lease is not None
    corrupt = folder / ("c" * 12)
    corrupt.mkdir()
    (corrupt / "status.json").write_text("{")
    (folder / "sweeps").mkdir()
    for sweep_id, chosen in zip(SWEEPS, (all_runs, [run for run in all_runs if run["seed"] == 0]), strict=True):
        document = {"sweep_id": sweep_id, "factors": ["ablation"], "runs": chosen}
        (folder / "sweeps" / f"{sweep_id}.json").write_text(json.dumps(document))
    yield folder
    lease.release()


@pytest.fixture
def answer(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """What a command of `runs` or `report` answers, beside those records."""
    monkeypatch.setenv("ALEXLAB_RUNS", str(records))
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")

    def get(main: Callable[[list[str]], int], *line: str) -> dict[str, Any]:
        assert main([*line, "--json", *([f"out={tmp_path}"] if main is report.main else [])]) == 0
        return checked(capsys.readouterr().out)

    return get


def result_of(records: Path, run_id: str) -> dict[str, Any]:
    return json.loads((records / run_id / "result.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def same(cell: str, value: Any) -> bool:
    """Whether a cell of a CSV file holds a value of JSON."""
    if value is None or value == []:
        return cell in ("", "inf", "nan")
    return float(cell) == value if isinstance(value, int | float) else cell == value


def test_schemas_are_closed_and_agree():
    shared: dict[str, Any] = {}
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert f"{schema['properties']['schema']['const']}".removeprefix("alexlab.").replace("/", "-") == name
        for kind, body in schema.get("$defs", {}).items():
            assert shared.setdefault(kind, body) == body, kind
        closed = {
            **schema,
            "$defs": {kind: body for kind, body in schema.get("$defs", {}).items() if "split" not in kind},
        }
        closed["$defs"].pop("result", None)  # the content of a file
        for found in objects(closed):
            assert "additionalProperties" in found, found
            if "properties" in found:
                assert found["required"] == list(found["properties"])


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from objects(value)
    if isinstance(schema, dict) and "object" in str(schema.get("type")):
        yield schema


def test_the_schema_of_a_result_has_what_runs_write():
    known = set(SCHEMAS["runs-show-1"]["$defs"]["result"]["properties"])
    for kept in ("demo", "figure1"):
        with zipfile.ZipFile(PROJECT_DIR / "results" / kept / "records.zip") as archive:
            paths = [name for name in archive.namelist() if name.endswith("/result.json")]
            assert {name for path in paths for name in json.loads(archive.read(path))} <= known


def test_list(records: Path, answer):
    document = answer(runs.main, "list")
    states = [run["state"] for run in document["runs"]]
    assert (states.count("DONE"), states.count("FAILED"), states.count("RUNNING")) == (9, 1, 1)
    assert {run["failure"] for run in document["runs"]} == {None, "diverged"}
    [problem] = document["problems"]
    assert "status.json: is corrupt" in problem
    for run in document["runs"]:
        if run["state"] != "DONE":
            assert run["test"] is None
            continue
        result = result_of(records, run["run_id"])
        assert (run["seed"], run["epochs"], run["seconds"]) == (result["seed"], result["epochs"], result["seconds"])
        assert run["test"] == {name: result["test"][name] for name in run["test"]}
        assert run["ablation"] == result["labels"]["ablation"]
        assert run["ablations"] == ([] if run["ablation"] == "none" else [run["ablation"]])


def test_filters_and_an_empty_folder(answer, tmp_path: Path):
    assert {run["state"] for run in answer(runs.main, "list", "state=FAILED")["runs"]} == {"FAILED"}
    (tmp_path / "none").mkdir()
    document = answer(runs.main, "list", f"paths.runs={tmp_path / 'none'}")
    assert (document["runs"], document["problems"]) == ([], [])


def test_show_has_the_whole_result(records: Path, answer):
    done = next(path.parent.name for path in sorted(records.glob("*/result.json")))
    document = answer(runs.main, "show", done[:8])
    assert document["result"] == result_of(records, done)
    assert Path(document["path"]) == records / done
    assert document["bytes"] == sum(path.stat().st_size for path in (records / done).rglob("*"))
    failed = next(path.parent.name for path in records.glob("*/status.json") if "diverged" in path.read_text())
    document = answer(runs.main, "show", failed)
    assert document["result"] is None
    assert (document["run"]["failure"], document["run"]["message"]) == ("diverged", "the loss is nan")


def test_compare_two_runs(records: Path, answer):
    by_arm = {run["ablation"]: run["run_id"] for run in answer(runs.main, "list", "state=DONE", "seed=1")["runs"]}
    ids = by_arm["none"], by_arm["no_lrn"]
    document = answer(runs.main, "compare", *ids)
    assert tuple(run["run_id"] for run in document["runs"]) == ids
    assert {"key": "model.lrn", "values": [True, False]} in document["differing"]
    found = {one["name"]: one for one in document["results"]}["test.ten.top1_error"]
    first, second = (result_of(records, run_id)["test"]["ten"]["top1_error"] for run_id in ids)
    assert found["values"] == [first, second]
    assert found["difference"] == pytest.approx(second - first)
    assert 0 < found["images_half"] < 0.1


def test_compare_two_sweeps(records: Path, answer):
    document = answer(runs.main, "compare", SWEEPS[0][:5], SWEEPS[1])
    assert [sweep["sweep_id"] for sweep in document["sweeps"]] == list(SWEEPS)
    assert all(arm["shares_runs"] and arm["difference"] is None for arm in document["arms"])
    first = next(arm for arm in document["arms"] if arm["values"] == {"ablation": "none"})
    assert [len(errors) for errors in first["top1_errors"]] == [4, 1]


def test_studies(records: Path, answer, tmp_path: Path):
    """The same counts as in the study's report, which judges each run; two runs of the arm below are not done."""
    document = answer(runs.main, "studies")
    [study], [report_] = document["studies"], answer(report.main, "study=lrn")["studies"]
    assert document["problems"] == []
    same = set(study) - {"claims", "arms"}
    assert {name: study[name] for name in same} == {name: report_[name] for name in same}
    assert study["runs"] == {"planned": 12, "done": 9, "failed": 1, "missing": 2}
    assert study["is_interim"]
    assert study["claims"] == [claim["claim"] for claim in report_["claims"]]
    assert study["arms"] == [{name: arm[name] for name in study["arms"][0]} for arm in report_["arms"]]
    arms = {arm["arm"]: (arm["planned"], arm["done"], arm["failed"], arm["missing"]) for arm in study["arms"]}
    assert arms == {"none": (4, 4, 0, 0), "no_lrn": (4, 3, 1, 0), "lrn_scale_only": (4, 2, 0, 2)}

    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "broken.json").write_text("{")
    document = answer(runs.main, "studies", f"paths.runs={tmp_path}")
    assert document["studies"] == []
    assert ["broken.json: is corrupt" in problem for problem in document["problems"]] == [True]


def test_report_of_a_study_is_claims_csv(records: Path, answer):
    [study] = answer(report.main, "study=lrn")["studies"]
    rows = table(Path(study["page"]).with_name("claims.csv"))
    assert len(rows) == len(study["claims"]) == 2
    for row, claim in zip(rows, study["claims"], strict=True):
        assert set(claim) - set(row) == {"compared", "is_context"}
        for name in set(row) - {"notes", "confounds", "differing"}:
            assert same(row[name], claim[name]), name
        assert (row["notes"], row["differing"]) == ("; ".join(claim["notes"]), " ".join(claim["differing"]))
    assert study["runs"] == {"planned": 12, "done": 9, "failed": 1, "missing": 2}
    assert study["is_rehearsal"]
    assert study["is_interim"]
    for arm in study["arms"]:
        errors = [
            result_of(records, run["run_id"])["test"]["ten"]["top1_error"]
            for run in arm["runs"]
            if run["counted_as"] == "done"
        ]
        assert arm["top1_error"] == pytest.approx(sum(errors) / len(errors))
    no_lrn = next(arm for arm in study["arms"] if arm["arm"] == "no_lrn")
    assert no_lrn["overrides"] == ["ablation=no_lrn"]
    assert [(run["state"], run["failure"], run["counted_as"]) for run in no_lrn["runs"]] == [
        *[("DONE", None, "done")] * 3,
        ("FAILED", "diverged", "failed"),
    ]
    assert study["problems"]


def test_report_of_a_sweep_is_its_tables(answer):
    document = answer(report.main, f"sweep={SWEEPS[0]}")
    page = Path(document["page"])
    for name, more in (("arms", {"values"}), ("runs", {"values", "failure", "data_seed"})):
        rows = table(page.with_name(f"{name}.csv"))
        assert len(rows) == len(document[name])
        for row, found in zip(rows, document[name], strict=True):
            assert set(found) - set(row) == more
            assert all(same(row[key], found[key]) for key in set(row) - {"state"})
    assert [run["state"] for run in document["runs"]].count(None) == 1
    assert [run["state"] for run in document["runs"]].count("RUNNING") == 1
    assert answer(report.main, f"sweep={SWEEPS[1]}")["arms"][1]["images_half"] > 0


@pytest.mark.slow
def test_report_of_the_kept_study(answer):
    document = answer(report.main, f"runs={PROJECT_DIR / 'results/demo/records.zip'}")
    assert {study["name"] for study in document["studies"]} == {"aa", "paper"}
    for study in document["studies"]:
        rows = table(PROJECT_DIR / "results/demo" / study["name"] / "claims.csv")
        assert all(
            same(row[name], claim[name])
            for row, claim in zip(rows, study["claims"], strict=True)
            for name in ("claim", "measured", "new_study_half")
        )


def compared(line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The document of a line of `report compare`, and its text in one line."""
    monkeypatch.setenv("COLUMNS", "200")
    assert report.main(["compare", *line, "--json"]) == 0
    document = checked(capsys.readouterr().out)
    assert report.main(["compare", *line]) == 0
    return document, " ".join(capsys.readouterr().out.split())


def test_report_compare(records: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    line = ["top1=36", "top5=0", "n=2", f"runs={records}", "--like", "recipe=demo"]
    document, text = compared(line, capsys, monkeypatch)
    results = {run_id: result_of(records, run_id) for run_id in document["own"]["runs"]}
    assert {result["labels"]["ablation"] for result in results.values()} == {"none"}
    errors = np.array([result["test"]["ten"]["top1_error"] for result in results.values()])
    first, second = document["figures"]
    assert [(one["metric"], one["value"], one["n"]) for one in (first, second)] == [
        ("top1_error", 0.36, 2),
        ("top5_error", 0.0, 2),
    ]
    placed = first["placement"]
    low, high = stats.t.interval(0.95, 3, errors.mean(), errors.std(ddof=1) * math.sqrt(1 / 2 + 1 / 4))
    assert (placed["n"], placed["below"], placed["equal"], placed["percentile"]) == (4, 4, 0, 100)
    assert (placed["mean"], placed["sd"]) == (pytest.approx(errors.mean()), pytest.approx(errors.std(ddof=1)))
    assert placed["interval"] == {"level": 0.95, "low": pytest.approx(low), "high": pytest.approx(high)}
    assert placed["difference"] == document["gap"] == pytest.approx(0.36 - errors.mean())
    assert f"(95 %: {100 * low:.1f} to {100 * high:.1f} %; 4 runs)" in text
    assert (document["reference"], first["reference"], document["published"]) == (None, None, [])

    found = {one["name"]: one for one in document["differences"]}
    lrn = found["LRN"]
    assert (lrn["key"], lrn["values"], lrn["runs"], lrn["source"], lrn["command"]) == (
        "model.lrn", [True, False], [3, 4], None, None,
    )  # fmt: skip
    assert f"LRN model.lrn=false {100 * lrn['effect']:+.1f} ±{100 * lrn['half']:.1f} 3/4 runs" in text
    assert [one["name"] for one in document["differences"]] == sorted(found, key=lambda name: text.index(f" {name} "))
    batch = found["batch size"]
    assert (batch["effect"], batch["runs"], batch["values"][1]) == (None, [], 2 * batch["values"][0])
    assert f"{batch['override']},seed=" not in batch["command"]
    assert f"data.batch_size={batch['values'][0]},{batch['values'][1]} " in batch["command"]
    assert found["centre view"]["values"] is None


def test_report_compare_without_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Figures of the paper: table 2 has 40.7 and 18.2 %; section 3.3 has 1.4 points for LRN, 4.1 over 1 for colours."""
    line = ["top1=42.9", f"paths.runs={tmp_path}", "--like", "recipe=imagenet2012"]
    document, text = compared(line, capsys, monkeypatch)
    [figure] = document["figures"]
    assert (document["own"], figure["placement"], figure["reference"]) == (None, None, pytest.approx(0.407))
    assert document["reference"]["source"] == "the paper's table 2, one net"
    assert document["reference"]["top5_error"] == pytest.approx(0.182)
    assert document["reference"] in document["published"]
    assert document["gap"] == pytest.approx(0.022)
    found = {one["name"]: one for one in document["differences"]}
    assert (found["LRN"]["effect"], found["LRN"]["source"]) == (pytest.approx(0.014), "paper, 3.3")
    assert (found["PCA colour shifts"]["effect"], found["PCA colour shifts"]["is_bound"]) == (0.01, True)
    seeds = "seed=0,1,2,3,4"
    assert document["command"] == f"python src/train.py -m recipe=imagenet2012 {seeds}"
    assert found["LRN"]["command"] == f"python src/train.py -m recipe=imagenet2012 model.lrn=true,false {seeds}"
    last = next(one for one in document["differences"] if one["command"] is not None and one["override"] is not None)
    for command in (document["command"], last["command"]):
        assert command.removeprefix("python src/train.py") in text


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forecast, "forecast", lambda configs: [((90.0, 95.0, 110.0), 1000)] * len(configs))
    line = ["-m", "model.lrn=true,false", "seed=0,1", "--dry-run", f"paths.runs={tmp_path}", "trainer.max_epochs=3"]
    assert train.main([*line, "--json"]) == 0
    printed = capsys.readouterr()
    document = checked(printed.out)
    assert "alexlab: recipe=demo" in printed.err
    assert [(run["values"], run["seed"], run["state"]) for run in document["runs"]] == [
        ({"model.lrn": lrn}, seed, None) for lrn in ("true", "false") for seed in (0, 1)
    ]
    assert document["factors"] == ["model.lrn"]
    assert document["settings"] == {"trainer.max_epochs": "3"}
    total = document["total"]
    assert (total["runs"], total["to_do"], total["seconds"], total["bytes"]) == (4, 4, 380.0, 4000)
    assert (total["seconds_low"], total["seconds_high"]) == (360.0, 440.0)
    assert train.main(line) == 0
    shown = capsys.readouterr().out
    assert all(run["run_id"] in shown for run in document["runs"])


def test_dry_run_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forecast, "forecast", lambda configs: [((360.0,) * 3, 1)] * len(configs))
    line = ["study=lrn", "study.assumed_sd=0.1", "study.budget=3h", "--dry-run", f"paths.runs={tmp_path}", "--json"]
    assert train.main(line) == 0
    document = checked(capsys.readouterr().out)
    prospect = next(one for one in document["prospects"] if one["claim"] == "paper/lrn")
    assert (prospect["effect"], prospect["sd"], prospect["unit"]) == (pytest.approx(1.4), pytest.approx(0.1), "points")
    assert document["budget"]["hours"] == 3
    assert document["budget"]["seconds"] <= 3 * 3600
    assert "study.budget=3h" not in document["budget"]["overrides"]


@pytest.mark.parametrize(
    ("main", "line", "message"),
    [
        (runs.main, ["show", "9" * 12], "there is no such run"),
        (runs.main, ["list", "paths.runs=nowhere"], "nowhere: no such folder"),
        (runs.main, ["list", "stat=DONE"], "stat=DONE: cannot be set here"),
        (report.main, ["sweep=9"], "sweep=9: there is no such sweep"),
        (report.main, ["study=nosuch"], "nosuch"),
        (report.main, ["compare", "top1=435"], "top1=435: must be an error in per cent"),
        (train.main, ["model.dorpout=1", "--dry-run"], "model.dorpout"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_with_the_same_status(
    main: Callable[[list[str]], int],
    line: list[str],
    message: str,
    records: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ALEXLAB_RUNS", str(records))
    assert main(line) == 2
    plain_error = capsys.readouterr().err
    assert main([*line, "--json"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == plain_error
    assert message in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("main", "line", "message"),
    [
        (runs.main, ["prune"], "--json: prune has no JSON output; list, show, compare and studies have"),
        (runs.main, ["export"], "--json: export has no JSON output"),
        (train.main, [], "--json: needs --dry-run"),
        (train.main, ["--dry-run", "--cfg", "job"], "--json: needs --dry-run and no other flag"),
        (train.main, ["--dry-run", "--net"], "--json: needs --dry-run and no other flag"),
        (train.main, ["--paper"], "--json: needs --dry-run and no other flag"),
    ],
)
def test_where_there_is_no_document(main, line: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main([*line, "--json"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert message in found.err


def test_help_goes_to_stdout(capsys: pytest.CaptureFixture[str]):
    assert runs.main(["list", "--json", "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_values_that_json_lacks():
    hostile = {1: math.nan, "inf": [math.inf, 0.1], "text": "a\x1b[31m\ud800b\n", "date": date(2012, 1, 2)}
    assert plain(hostile) == {"1": None, "inf": [None, 0.1], "text": "a[31mb\n", "date": "2012-01-02"}


def test_a_strangers_result(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Numbers that are no JSON, and names that no run of ours writes."""
    done = next(path.parent for path in sorted(records.glob("*/result.json")))
    shutil.copytree(done, tmp_path / done.name)
    result = {**result_of(records, done.name), "mine": [math.nan, -math.inf]}
    (tmp_path / done.name / "result.json").write_text(json.dumps(result))
    assert runs.main(["show", done.name, f"paths.runs={tmp_path}", "--json"]) == 0
    assert checked(capsys.readouterr().out)["result"]["mine"] == [None, None]


def typed(line: str, records: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which `alexlab` is this checkout's."""
    environment = {**os.environ, "ALEXLAB_RUNS": str(records), "PYTHONPATH": str(PROJECT_DIR / "src"), **more}
    prefix = f'set -o pipefail; alexlab() {{ {shlex.quote(sys.executable)} -m alexlab "$@"; }}; '
    return subprocess.run(["bash", "-c", prefix + line], capture_output=True, text=True, env=environment)


def test_through_a_pipe_in_a_narrow_coloured_terminal_without_utf8(records: Path):
    surroundings = {"COLUMNS": "12", "FORCE_COLOR": "1", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = typed(
        f"alexlab runs list --json | {shlex.quote(sys.executable)} -m json.tool --compact", records, **surroundings
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 11
    assert "is corrupt" in " ".join(done.stderr.split())


def test_a_document_that_cannot_be_written_is_an_error(records: Path):
    """Half a document on a full disk is not success; a reader that has read enough is no error."""
    done = typed("alexlab runs list --json > /dev/full", records)
    assert done.returncode == 1
    assert "error: --json: standard output: [Errno 28]" in done.stderr
    done = typed("{ alexlab runs list --json; echo $? >&2; } | true", records)
    assert done.stderr.splitlines()[-1] == "0"


def lines_with_jq() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "| jq" in line]


@pytest.mark.skipif(not shutil.which("jq"), reason="no jq")
@pytest.mark.parametrize("line", lines_with_jq())
def test_lines_with_jq(line: str, records: Path, tmp_path: Path):
    shown = line.replace("ID ", f"{next(path.parent.name for path in records.glob('*/result.json'))} ")
    if "report" in shown:
        shown = shown.replace("--json", f"--json out={tmp_path}")
    done = typed(shown, records)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_page_lists_every_schema():
    text = PAGE.read_text()
    assert len(lines_with_jq()) >= 3
    for name, schema in SCHEMAS.items():
        assert f"{name}.json" in text
        assert schema["properties"]["schema"]["const"] in text
