"""A finished record written by hand, of which a test knows every number."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from alexlab.compose import to_yaml
from alexlab.config import Config
from alexlab.runs.record import DONE, Record

RUN_ID = "0123456789ab"
LABELS = {"protocol": "paper", "recipe": "demo", "model": "alexnet", "arm": RUN_ID}
ROWS = [
    {"epoch": epoch, "step": 3 * epoch, "lr": 0.01, "train_loss": 1 / epoch, "val_top1_error": error}
    for epoch, error in ((1, 0.75), (2, 0.5), (3, ""), (4, 0.25))
]
STEPS = [row["step"] for row in ROWS]
RESULT = {
    "seconds": 12.5,
    "test": {
        "images": 37,
        "ten": {"top1_error": 0.5, "top5_error": 0.125, "loss": 1.5},
        "center": {"top1_error": 0.625, "top5_error": 0.25, "loss": 1.75},
    },
    "train": {"images": 60, "center": {"top1_error": 0.25, "top5_error": 0.0, "loss": 0.75}},
}
FINAL = {  # of RESULT
    **{"test/ten/top1_error": 0.5, "test/ten/top5_error": 0.125, "test/ten/loss": 1.5},
    **{"test/center/top1_error": 0.625, "test/center/top5_error": 0.25, "test/center/loss": 1.75},
    **{"train/center/top1_error": 0.25, "train/center/top5_error": 0.0, "train/center/loss": 0.75, "seconds": 12.5},
}


def begin(config: Config, run_id: str = RUN_ID, ablation: str = "none") -> Record:
    """A record whose run has begun, at an hour of 2001."""
    record = Record(config.paths.runs, run_id)
    record.path.mkdir(parents=True, exist_ok=True)
    record.begin(to_yaml(config), {**LABELS, "ablation": ablation}, started=1e9)
    record.write("environment.json", {"git_commit": "f" * 40, "machine": "a-machine"})
    return record


def complete(record: Record) -> None:
    """Have the run finished, with ten classes of shapes and 16 kernels of 11 x 11."""
    lines = [",".join(ROWS[0]), *(",".join(str(value) for value in row.values()) for row in ROWS)]
    record.write("metrics.csv", "\n".join(lines) + "\n")
    draw = np.random.default_rng(0)
    kernels = draw.normal(size=(16, 3, 11, 11)).astype(np.float16)
    true = draw.integers(0, 10, 37)
    top5 = np.stack([draw.permutation(10)[:5] for _ in true])
    arrays: dict[str, Any] = {"labels": true, "ten_top5": top5, "ten_log_probability": np.log(draw.random(37))}
    for name, save in (
        ("conv1.npy", lambda file: np.save(file, kernels)),
        ("predictions.npz", lambda file: np.savez(file, **arrays)),
    ):
        file = io.BytesIO()
        save(file)
        record.write(name, file.getvalue())
    record.write("result.json", RESULT)
    record.set_status(DONE, ended=1e9 + 60)
