"""Records of whole studies, made up: what the report reads, without any training."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.compose import Composer, to_yaml
from alexlab.runs.identity import arm_id, run_id
from alexlab.runs.record import RECORD_VERSION
from alexlab.study.claims import Claim
from alexlab.sweep.study_plan import Study, document, make_study, register
from support.settings import composer

EPOCHS = 4


def claim(name: str, **keys: Any) -> Claim:
    """One that compares the base with an ablation of its name."""
    return Claim(id=name, source="x", against=[f"ablation={name}"], **keys)


def made_study(
    folder: Path,
    line: list[str],
    errors: dict[str, float] | None = None,
    *,
    images: int = 400,
    run_sd: float = 0.01,
    seed: int = 0,
    failed: dict[str, int] | None = None,
    missing: dict[str, int] | None = None,
    environment: dict[str, dict[str, Any]] | None = None,
    registered: bool = True,
    config_dir: Path | None = None,
) -> Study:
    """Write a study's plan and the records of its runs below `folder`.

    `errors`: an arm's top-1 error, by its name, .4 where it has none. `failed`, `missing`: how many of an arm's last
    runs diverged, or are not there. `environment`: what an arm's environment.json has besides.
    """
    folder_of_own = None if config_dir is None else str(config_dir)
    composer_ = composer() if config_dir is None else Composer(folder_of_own)
    line = [*(one for one in line if not one.startswith("paths.runs=")), f"paths.runs={folder}"]
    study = make_study(composer_, line, folder_of_own)
    if registered:
        register(document(study), folder / "studies")
    random = np.random.default_rng(seed)
    hard = random.normal(0, 1.5, images)
    labels = random.integers(0, 10, images)
    for arm in study.arms:
        bad, absent = (failed or {}).get(arm.name, 0), (missing or {}).get(arm.name, 0)
        jobs = arm.jobs()
        for place, (number, job) in enumerate(jobs[: len(jobs) - absent]):
            text = to_yaml(job.config)
            status = {"labels": {"protocol": "paper", "recipe": "demo", "model": "alexnet", "ablation": arm.name}}
            status["labels"]["arm"] = arm_id(job.config)
            path = folder / run_id(job.config)
            error = (errors or {}).get(arm.name, 0.4) + random.normal(0, run_sd)
            diverged = place >= len(jobs) - absent - bad
            made_record(path, text, status["labels"], number, labels, hard, error, random, diverged)
            if environment and arm.name in environment:
                made = json.loads((path / "environment.json").read_text())
                (path / "environment.json").write_text(json.dumps({**made, **environment[arm.name]}))
    return study


def made_record(
    path: Path,
    config: str,
    labels: dict[str, str],
    seed: int,
    true: np.ndarray,
    hard: np.ndarray,
    error: float,
    random: np.random.Generator,
    diverged: bool = False,
) -> None:
    """One record: finished, with a ten-view top-1 error of about `error`, or diverged."""
    path.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {"run_id": path.name, "version": RECORD_VERSION, "attempt": 1, "labels": labels}
    (path / "config.yaml").write_text(config)
    environment = {"packages": {"torch": "2.14.1"}, "git_commit": "0123456789abcdef", "git_dirty": False}
    (path / "environment.json").write_text(json.dumps(environment))
    if diverged:
        told = {"state": "FAILED", "failure": "diverged", "message": "the loss is nan", "hint": "it is a result"}
        (path / "status.json").write_text(json.dumps({**kept, **told}))
        return
    arrays: dict[str, np.ndarray] = {"labels": true}
    test: dict[str, Any] = {"images": len(true)}
    for view, more in (("center", 0.03), ("ten", 0.0)):
        chance = np.clip(1 / (1 + np.exp(-hard - np.log(max(error + more, 1e-3) / max(1 - error - more, 1e-3)))), 0, 1)
        wrong = random.random(len(true)) < chance * (error + more) / chance.mean()
        others = np.stack([(true + 1 + place) % 10 for place in range(5)], 1)
        first = np.stack([true, *others.T[:4]], 1)
        arrays[f"{view}_top5"] = np.where(wrong[:, None], np.roll(first, 1, axis=1), first)
        far = wrong & (random.random(len(true)) < 0.2)
        arrays[f"{view}_top5"][far] = others[far]
        arrays[f"{view}_log_probability"] = np.log(np.where(wrong, 0.2, 0.7)).astype(np.float32)
        hits = arrays[f"{view}_top5"] == true[:, None]
        test[view] = {"top1_error": float(1 - hits[:, 0].mean()), "top5_error": float(1 - hits.any(1).mean())}
    arrays["ten_by_view"] = np.repeat(arrays["center_top5"][:, :1], 10, axis=1).astype(np.int16)  # alike by each view
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    (path / "predictions.npz").write_bytes(buffer.getvalue())
    np.save(path / "conv1.npy", random.normal(0, 0.1, (24, 3, 11, 11)).astype(np.float16))
    train = {"top1_error": max(0.0, error - 0.1), "top5_error": 0.01, "loss": 2 * error}
    text = io.StringIO()
    names = ("epoch", "step", "lr", "train_loss", "train_top1_error", "val_loss", "val_top1_error", "val_top5_error")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(names)
    for epoch in range(1, EPOCHS + 1):
        now = error + 0.4 * (1 - epoch / EPOCHS) + random.normal(0, 0.01)
        rows.writerow([epoch, 90 * epoch, 0.01, 2 * now, now - 0.1, 2 * now, now, now / 5])
    (path / "metrics.csv").write_text(text.getvalue())
    result = {
        **kept,
        **{"status": "DONE", "seed": seed, "epochs": EPOCHS, "steps": 90 * EPOCHS, "seconds": 60 + random.normal()},
        **{"device": "cpu", "devices": 1, "precision": "32-true", "checkpoint": "last"},
        "data": {"store": "shapes-made"},
        "test": test,
        "train": {"images": 3000, "center": train},
    }
    (path / "result.json").write_text(json.dumps(result))
    (path / "status.json").write_text(json.dumps({**kept, "state": "DONE"}))
