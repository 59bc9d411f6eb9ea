"""Display names of runs: by a record's label, with and without its configuration."""

from __future__ import annotations

import pytest

from alexlab.config import flat
from alexlab.runs.names import run_name
from alexlab.sweep.plan import make_plan
from support.settings import composer


@pytest.mark.parametrize(
    ("label", "arm", "noted"),
    [
        ("none", "none", ""),
        ("six_convs", "six_convs", ""),
        (
            "data.train_images=300 model.lrn=false trainer.max_epochs=2",
            "no_lrn",
            "data.train_images=300 trainer.max_epochs=2",
        ),
        ("model.lrn=false pool.overlap=false", "no_lrn no_overlap", ""),
        ("optim.lr=0.02 trainer.max_epochs=2", "optim.lr=0.02", "trainer.max_epochs=2"),
        ("trainer.max_epochs=2", "none", "trainer.max_epochs=2"),
        (
            "model.init_stds=[conv1:0.01, conv2:0.02] data.size=64",
            "model.init_stds=[conv1:0.01, conv2:0.02]",
            "data.size=64",
        ),
        ("an_ablation_of_ones_own", "an_ablation_of_ones_own", ""),
    ],
)
def test_by_the_label(label: str, arm: str, noted: str):
    name = run_name(label)
    assert (name.arm, name.noted) == (arm, noted)


@pytest.mark.parametrize("ablation", ["no_lrn", "six_convs", "half_net", "no_conv3_conv4_fc6_fc7", "no_crops_no_flips"])
def test_an_ablation_keeps_its_name_in_a_shorter_recipe(ablation: str):
    line = [f"ablation={ablation}", "trainer.max_epochs=2", "data.train_images=300"]
    [run] = make_plan(line, composer=composer()).runs
    assert run.labels["ablation"] != ablation  # the record spells all changes
    name = run_name(run.labels["ablation"], flat(run.config))
    assert name.ablations == (ablation,)
    assert name.settings == {"data.train_images": "300", "trainer.max_epochs": "2"}


def test_what_no_ablation_does_is_not_called_one():
    [run] = make_plan(["model.lrn=false", "model.dropout=0.25", "trainer.max_epochs=2"], composer=composer()).runs
    assert run.name.arm == "no_lrn model.dropout=0.25"
