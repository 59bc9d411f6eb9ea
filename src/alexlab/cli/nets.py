"""Measure what claims need from the nets themselves: ensembles of five, and the nearest training images.

A run does not record these, since they need weights and images. They are stored with the records: an ensemble in
`averages/<id>/`, as by `alexlab evaluate`, and a run's `neighbours.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alexlab.cli.evaluate import evaluate_ensemble
from alexlab.compose import Composer
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.report import neighbours
from alexlab.runs.record import Record
from alexlab.study.claims import GROUPED
from alexlab.study.judgement import Judgement
from alexlab.study.metrics import groups
from alexlab.study.records import RunData

NEIGHBOURS = "neighbours.json"
NEAREST = 6  # as figure 4 shows


def measure(judgement: Judgement, cache: str, composer: Composer, console: Console) -> None:
    """Measure what the claims of a study need and is still missing; print a line for each failure.

    `cache`: the folder of the stores.
    """
    for runs in _groups(judgement):
        ids = [run.run_id for run in runs]
        folder = runs[0].record.path.parent
        try:
            evaluate_ensemble(ids, composer, [f'paths.runs="{folder}"', f'data.cache="{cache}"'], console)
        except UserError as error:
            console.print(f"no ensemble: {error}", soft_wrap=True, highlight=False)
    for run in _alone(judgement):
        if run.record.file(NEIGHBOURS).is_file():
            continue
        try:
            run.record.write(NEIGHBOURS, precision(run.record, cache))
        except (UserError, ValueError) as error:
            console.print(f"{run.run_id}: no neighbours measured: {error}", soft_wrap=True, highlight=False)
        else:
            console.print(f"{run.run_id}: neighbours measured", highlight=False)


def precision(record: Record, cache: str | None = None) -> dict[str, Any]:
    """The precision of a run's nearest training images by its last hidden layer and by pixels, with standard errors."""
    found = neighbours.neighbours(record, queries=1, nearest=NEAREST, cache=cache)
    return {
        "layer": found.layer,
        "nearest": NEAREST,
        "queries": found.queries,
        "pool": found.pool,
        "precision": {"layer": found.by_layer.precision, "pixels": found.by_pixels.precision},
        "standard_error": {"layer": found.by_layer.standard_error, "pixels": found.by_pixels.standard_error},
    }


def _groups(judgement: Judgement) -> list[Sequence[RunData]]:
    """The groups of runs that form ensembles, each once."""
    rows = [row for row in judgement.rows if row.claim.metric in GROUPED]
    found = [each for row in rows for arm in row.arms for each in groups(arm.runs, GROUPED[row.claim.metric][0])]
    return list({tuple(run.run_id for run in group): group for group in found}.values())


def _alone(judgement: Judgement) -> list[RunData]:
    runs = [run for row in judgement.rows if row.claim.metric == "retrieval" for arm in row.arms for run in arm.runs]
    return list({run.run_id: run for run in runs}.values())
