"""A study in which LRN is worth ten points, its judgement, and ways to change its records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.study.judge import judge
from alexlab.study.judgement import Judgement, Row
from alexlab.study.plans import read_looks
from alexlab.study.records import read_archive

LRN = {
    **{"id": "lrn", "section": "3.3", "statement": "LRN helps.", "against": ["ablation=no_lrn"]},
    **{"published": {"top1_error": -10.0, "top5_error": -1.0}, "recipes": ["demo"], "differs": ["model.lrn"]},
}


CLAIMS: list[dict[str, Any]] = [
    LRN,
    {**LRN, "id": "views", "against": [], "against_view": "center", "published": {"top1_error": -3.0}, "differs": []},
    {**LRN, "id": "level", "against": [], "is_level": True, "published": {"top1_error": 40.0}, "differs": []},
    {**LRN, "id": "sooner", "metric": "epochs_to_25", "ratio": True, "published": {"epochs_to_25": 0.5}},
    {**LRN, "id": "elsewhere", "recipes": ["imagenet2012"]},
    {**LRN, "id": "needs", "requires": ["optim.schedule=plateau"]},
    {**LRN, "id": "context", "is_context": True, "published": {}, "recipes": []},
    {"id": "never", "section": "6", "statement": "Words.", "not_testable": "needs WordNet"},
]


LINE = ["study=lrn", "study.claims=[mine]", "study.base_seeds=15"]


def judged(*folders: Path) -> Judgement:
    [path] = (folders[0] / "studies").glob("*.json")
    return judge(read_looks(path), read_archive(list(folders)))


def rejudged(folder: Path, *changed: dict[str, Any], **plan: Any) -> list[Row]:
    """The study's rows for other claims: each the first one with some keys changed."""
    [path] = (folder / "studies").glob("*.json")
    [look] = read_looks(path)
    claims = [{**look["claims"][0], **change} for change in changed]
    return judge([{**look, **plan, "claims": claims}], read_archive([folder])).rows


def row(judgement: Judgement, name: str) -> Row:
    return next(row for row in judgement.rows if row.claim.id == name)


def planned(folder: Path) -> dict[str, list[str]]:
    """Run ids by arm, in the seeds' order."""
    [path] = (folder / "studies").glob("*.json")
    return {arm["name"]: list(arm["runs"].values()) for arm in read_looks(path)[-1]["arms"]}


def errors(folder: Path, run_ids: list[str], view: str = "ten") -> np.ndarray:
    """Top-1 errors from the predictions themselves, float64 [runs, images]."""
    found = []
    for run_id in run_ids:
        with np.load(folder / run_id / "predictions.npz") as arrays:
            found.append(arrays[f"{view}_top5"][:, 0] != arrays["labels"])
    return np.array(found, dtype=float)


def fail(record: Path, failure: str) -> None:
    status = json.loads((record / "status.json").read_text())
    told = {"state": "FAILED", "failure": failure, "message": "", "hint": ""}
    (record / "status.json").write_text(json.dumps({**status, **told}))


def copied(record: Path, to: Path) -> None:
    """The same as the record of another run."""
    shutil.copytree(record, to)
    status = json.loads((to / "status.json").read_text())
    (to / "status.json").write_text(json.dumps({**status, "run_id": to.name}))
