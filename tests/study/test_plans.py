"""Plans of strangers: each value has its type and its limits, and what is read can be judged."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexlab.cli import report
from alexlab.config import CONF_DIR, ConfigError
from alexlab.report.content import report_content
from alexlab.report.wording import printed
from alexlab.report.write import claims_table
from alexlab.study.claims import find_claims, is_of_net, overridden, read_claims
from alexlab.study.judge import judge
from alexlab.study.plans import read_looks
from alexlab.study.records import Archive
from alexlab.sweep.study_plan import document, make_study, register
from support.settings import composer

LINE = ["study=paper", "study.claims=[paper/lrn,paper/order_towers_lrn,paper/relu_speed,paper/table2_five]"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is written of a study that chooses its rates, which has every field."""
    folder = tmp_path_factory.mktemp("studies")
    register(document(make_study(composer(), [*LINE, "study.rate=choose", f"paths.runs={folder}"])), folder)
    [path] = folder.glob("*.json")
    return json.loads(path.read_text())


def written(folder: Path, content: Any) -> Path:
    path = folder / f"{content['looks'][0]['id'] if isinstance(content, dict) else 'lrn'}.json"
    path.write_text(json.dumps(content))
    return path


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a plan has values, of a list the first alone."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*at, name))


def changed(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for name in at[:-1]:
        inner = inner[name]
    if value is None and isinstance(inner, dict):
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return content


ODD: tuple[Any, ...] = (None, "x", "", "\x1b]52;c;aWQ=\x07", "a" * 100_000, "\ud800", -1, 3.5, 1e308, 10**400)
ODD += (math.nan, True, [], [[]], {}, {"x": "y"})


def attempt(path: Path) -> tuple[list[dict[str, Any]] | None, str]:
    """The looks, or why there are none."""
    try:
        return read_looks(path), ""
    except ConfigError as error:
        return None, str(error)


def test_whatever_a_plan_holds_it_is_refused_in_a_line_or_judged(plan: dict[str, Any], tmp_path: Path):
    """Each value in turn is gone, or of another type, size or sign."""
    read = refused = 0
    for at in places(plan):
        for value in ODD if at[:1] == ("looks",) and len(at) > 2 else ():
            content = changed(plan, at, value)
            path = tmp_path / f"{plan['looks'][0]['id']}.json"
            path.write_text(json.dumps(content))
            looks, error = attempt(path)
            if looks is None:
                refused += 1
                assert error == " ".join(error.split())
                assert len(error) < 1000
                continue
            read += 1
            judgement = judge(looks, Archive([]))
            report_content(judgement)
            claims_table(judgement)
            printed(judgement)
    assert refused > 1000
    assert read > 100


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (("claims", 0, "id"), "a" * 100_000, "claims.id is 'aaa"),
        (("claims", 0, "section"), 3.3, "claims.section is 3.3, must be text of at most 2,000 characters"),
        (("claims", 0, "arm"), "ablation=no_lrn", "claims.arm is 'ablation=no_lrn', must be a list"),
        (("claims", 0, "metric"), "top7", "claim lrn: 'top7' is not a metric"),
        (("claims", 0, "recipes"), ["demo"] * 101, "claim lrn: recipes: has 101 entries, at most 100 are allowed"),
        (("claims", 0, "lines"), ["x"], "there is no key 'lines' of a claim"),
        (("arms", 0, "runs"), {"0": "../../etc"}, "arms.runs.0 is '../../etc', must be the id of a run"),
        (("arms", 0, "runs"), {"zero": "0" * 12}, "has a seed that is not a whole number"),
        (("arms", 0, "lr"), "0.01", "arms.lr is '0.01', must be a finite number"),
        (("id",), "..", "id is '..', must be the id of a study"),
        (("id",), "lrn-demo-000000", "it is the plan of lrn-demo-000000; rename it to lrn-demo-000000.json"),
        (("rate",), "fast", "rate is 'fast', must be one of protocol"),
        (("planned",), 1e300, "planned is 1e+300, must be a time in seconds"),
        (("unmet",), [], "unmet is [], must be a mapping"),
    ],
)
def test_a_value_of_another_type_is_named(plan: dict[str, Any], tmp_path: Path, at: tuple, value: Any, why: str):
    path = tmp_path / f"{plan['looks'][0]['id']}.json"
    path.write_text(json.dumps(changed(plan, ("looks", 0, *at), value)))
    with pytest.raises(ConfigError) as error:
        read_looks(path)
    assert str(error.value).startswith(f"{path}: is corrupt (")
    assert str(error.value).endswith("; restore it from a copy")
    assert why in str(error.value)


def test_numbers_of_claims_arms_and_looks_are_limited(plan: dict[str, Any], tmp_path: Path):
    """3,000 claims kept a report busy for minutes."""
    [look] = plan["looks"]
    for content, why in (
        ({**look, "claims": look["claims"] * 750}, "has 3,000 claims, and a study at most 300"),
        ({**look, "arms": look["arms"] * 300}, "arms, and a study at most 500"),
    ):
        with pytest.raises(ConfigError, match=why):
            read_looks(written(tmp_path, {**plan, "looks": [content]}))
    with pytest.raises(ConfigError, match="needs 1 to 100 looks"):
        read_looks(written(tmp_path, {**plan, "looks": [look] * 101}))


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "\x00", "\ufeff{}", '{"version": 1, "looks": {}}']
)
def test_what_is_no_plan(tmp_path: Path, content: str):
    path = tmp_path / "lrn.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"lrn\.json: is ") as error:
        read_looks(path)
    assert "\n" not in str(error.value)


def test_a_pipe_or_a_huge_file_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "a.json")
    with (tmp_path / "b.json").open("wb") as file:
        file.truncate(2**33)
    for name, why in (("a", "is not a regular file"), ("b", "has 8,589,934,592 bytes")):
        started = time.process_time()
        with pytest.raises(ConfigError, match=why):
            read_looks(tmp_path / f"{name}.json")
        assert time.process_time() - started < 5


def test_a_plan_leads_nowhere_and_files_of_other_systems_are_no_plans(plan: dict[str, Any], tmp_path: Path):
    """The stem of `...json` is `..`: the report was written beside its folder."""
    studies = tmp_path / "runs" / "studies"
    studies.mkdir(parents=True)
    (studies / "...json").write_text(json.dumps(plan))
    (studies / f"._{plan['looks'][0]['id']}.json").write_bytes(b"\x00\x05\x16\x07")
    written(studies, plan)
    out = tmp_path / "out" / "here"
    assert report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "study.rate=choose"]) == 0
    assert [path.name for path in out.iterdir()] == [plan["looks"][0]["id"]]
    assert [path.name for path in out.parent.iterdir()] == ["here"]


# What a command to be copied may hold


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.x={_target_: os.system, command: id}",
        "hydra/job_logging=stdout",
        "hydra/launcher=slurm",
        "hydra.launcher._target_=os.system",
        "model@hydra.job=alexnet",
        "~model.lrn",
        "paths.runs=/elsewhere",
        "logger=wandb",
        "logger.entity=theirs",
        "weights=/shared/net.pth",
        "data.root=/elsewhere",
        "optim.lr=${oc.env:HOME}",
        "optim.lr=1\nrm -r x",
        "model.lnr=false",
        "--config-dir=/shared/evil",
        "-m",
    ],
)
def test_a_plans_line_is_shown_with_settings_of_the_net_alone(plan: dict[str, Any], override: str):
    assert not is_of_net(override)
    look = {**plan["looks"][0], "line": ["study=lrn", "study.seeds=3", override, "optim.lr=0.02"]}
    judgement = judge([look], Archive([]))
    assert judgement.command == "python src/train.py study=lrn study.seeds=3 optim.lr=0.02"
    assert judgement.left_out == [override.partition("=")[0][:60]]
    lines = printed(judgement)
    assert lines[lines.index(judgement.command) - 1].endswith(f" {judgement.left_out[0]}.")


def test_option_files_are_named_only_if_the_reader_named_them(plan: dict[str, Any], tmp_path: Path):
    look = {**plan["looks"][0], "line": ["study=lrn"], "config_dir": str(tmp_path)}
    assert judge([look], Archive([])).command == "python src/train.py study=lrn"
    assert judge([look], Archive([])).left_out == ["--config-dir"]
    assert judge([look], Archive([]), config_dir="/other").left_out == ["--config-dir"]
    own = judge([look], Archive([]), config_dir=str(tmp_path))
    assert (own.command, own.left_out) == (f"python src/train.py --config-dir {tmp_path} study=lrn", [])


def test_keys_and_groups_of_the_project_may_be_set(tmp_path: Path):
    for override in ("ablation=no_lrn", "model.remove=[fc6,fc7]", "++optim.lr=0.1", "data.mean=none", "recipe=demo"):
        assert is_of_net(override)
    assert overridden("paths.runs=x") == "paths.runs"
    (tmp_path / "mine").mkdir()
    assert (overridden("mine=a"), overridden("mine=a", tmp_path)) == (None, "mine")


# Files of claims


def test_a_file_of_too_many_claims(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"- id: a{i}\n  section: '1'\n  statement: s\n  not_testable: x\n" for i in range(3000)))
    with pytest.raises(ConfigError, match=r"mine\.yaml: has 3,000 claims, at most 300 are allowed"):
        read_claims(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- {id: '" + "a" * 101 + "', section: '1', statement: s, not_testable: x}", "id is 'aaa"),
        ("- {id: a, section: '1', statement: '" + "s" * 2001 + "', not_testable: x}", "a: statement is 'sss"),
        ('- {id: "a\\e]52;c;aWQ=", section: "1", statement: s, not_testable: x}', "none of them a control character"),
        ("- {id: a, section: '1', statement: s, not_testable: x, differs: [" + "x, " * 101 + "x]}", "102 entries"),
        ("- &a {id: *a}", "alias within an anchored value"),
        ("- id:\n" + "".join(f"{' ' * (i + 2)}a:\n" for i in range(900)), "mine.yaml: "),
    ],
    ids=["id", "statement", "control", "items", "alias", "deep"],
)
def test_limits_of_a_claim(tmp_path: Path, text: str, why: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_claims(path)
    assert why in str(error.value)
    assert len(str(error.value)) < 500


def test_every_claim_of_the_project_is_within_the_limits(plan: dict[str, Any], tmp_path: Path):
    """In a plan, too: those that were registered are read again."""
    names = [path.stem for path in (CONF_DIR / "claims").glob("*.yaml")]
    claims = [dataclasses.asdict(claim) for claim in find_claims(sorted(names))]
    assert len(claims) > 70
    [look] = plan["looks"]
    [read] = read_looks(written(tmp_path, {**plan, "looks": [{**look, "claims": claims}]}))
    assert read["claims"] == claims
