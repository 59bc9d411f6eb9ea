"""Reports as plain data: the counts of an arm are those of its runs, one by one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from jsonschema import Draft202012Validator

from alexlab.config import PROJECT_DIR
from alexlab.report.documents import study_document
from alexlab.study.judge import judge
from alexlab.study.plans import read_looks
from alexlab.study.records import read_archive
from support.judging import fail
from support.studies import made_study

SCHEMA = json.loads((PROJECT_DIR / "src/alexlab/schemas/report-study-1.json").read_text())


def test_failed_and_partly_trained_runs_are_counted_apart(tmp_path: Path):
    study = made_study(tmp_path, ["study=lrn", "study.seeds=6", "study.base_seeds=6"], {"none": 0.3, "no_lrn": 0.4})
    looks = read_looks(tmp_path / "studies" / f"{study.id}.json")
    failed, stuck, *_ = next(arm["runs"] for arm in looks[-1]["arms"] if arm["name"] == "no_lrn").values()
    fail(tmp_path / failed, "diverged")
    path = tmp_path / stuck / "result.json"
    result = json.loads(path.read_text())
    result["test"]["ten"]["top1_error"] = 0.85  # above the midpoint of .4 and chance, .9
    path.write_text(json.dumps(result))
    archive = read_archive([tmp_path])
    document = study_document(judge(looks, archive), archive, Path("report.html"))
    Draft202012Validator(SCHEMA["$defs"]["study"] | {"$defs": SCHEMA["$defs"]}).validate(document)
    arm = next(one for one in document["arms"] if one["arm"] == "no_lrn")
    counts = Counter(run["counted_as"] for run in arm["runs"])
    assert counts == {"done": 4, "partly_trained": 1, "failed": 1}
    assert (arm["done"], arm["partly_trained"], arm["failed"]) == (5, 1, 1)  # partly trained runs are done too
    assert document["runs"] == {"planned": 18, "done": 17, "failed": 1, "missing": 0}
