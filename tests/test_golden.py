"""A result's bits: when this fails, a change altered results; raise RESULTS_VERSION, say so, and renew the numbers."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from alexlab.config import load
from alexlab.data.shapes import CLASSES, GENERATOR_VERSION, draw_image
from alexlab.runs.identity import RESULTS_VERSION
from alexlab.training.fit import fit

# RESULTS_VERSION -> training loss and validation loss of four epochs of the shrunken demo; 1 and 2 differ in rounding
GOLDEN = {2: [2.660079, 2.301071, 2.324824, 2.320588, 2.303210, 2.322512, 2.310540, 2.320371]}


def test_losses(tiny: list[str], tmp_path: Path):
    fit(
        load([*tiny, "model.width=0.125", "model.hidden=512", "model.init_last_std=0.5", "trainer.max_epochs=4"]),
        tmp_path,
        "run",
    )
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row[name]) for row in csv.DictReader(file) for name in ("train_loss", "val_loss")]
    # Machines and releases of torch differ in the last digits, a change of the method in the first ones.
    assert losses == pytest.approx(GOLDEN[RESULTS_VERSION], rel=2e-4), losses


# GENERATOR_VERSION -> SHA-256 of the pixels of three images of each class, before they are encoded
PIXELS = {1: "2580f66a496fa2a3a338676125ffb353360437a414824a65ab52d5a45fbb5ab0"}


def test_drawn_images():
    found = hashlib.sha256()
    for index in range(30):
        image = draw_image(list(CLASSES)[index % 10], np.random.default_rng([0, 0, index]))
        found.update(image.tobytes())
    assert found.hexdigest() == PIXELS[GENERATOR_VERSION]
