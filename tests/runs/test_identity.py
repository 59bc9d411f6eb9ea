"""What makes two runs the same run, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alexlab.config import Config, ConfigError
from alexlab.runs.identity import arm_id, result_keys, run_id, silent_values
from alexlab.sweep.plan import make_plan
from support.settings import composed


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["optim.lr=1e-2"], ["optim.lr=0.01"]),
        (["optim.lr=0.1", "seed=1"], ["seed=1", "optim.lr=1e-1"]),
        (["ablation=no_lrn"], ["model.lrn=false"]),
        (["model.remove=[conv3,fc6]"], ["model.remove=[fc6,conv3]"]),
        (["seed=2"], ["seed=2", "data.seed=2"]),
        (["model.dropout=0"], ["model.dropout=0.0"]),
        ([], ["paths.runs=elsewhere", "data.num_workers=2", "logger=wandb", "trainer.enable_progress_bar=false"]),
        ([], ["logger.tracking_uri=http://host", "logger.project=mine", "logger.entity=us", "logger.wandb=true"]),
        ([], ["data.cache=elsewhere", "trainer.accelerator=cpu", "data.eval_batch_size=7"]),
        ([], ["trainer=towers2", "trainer.devices=4", "model.groups=2", "trainer.strategy=ddp"]),
        ([], ["recipe=demo", "protocol=paper", "ablation=none"]),
        ([], ["debug=none", "trainer.gradient_clip_val=null"]),
        ([], ["retry=all", "checkpoint.every_steps=7", "checkpoint.keep=all", "trainer.chance_epochs=null"]),
    ],
)
def test_the_same_run(one, two):
    assert run_id(composed(one)) == run_id(composed(two))


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1"],
        ["data.seed=1"],
        ["model.lrn=false"],
        ["optim.lr=0.0100001"],
        ["data.files_seed=1"],
        ["data.train_images=2999"],
        ["trainer.precision=bf16-mixed"],
        ["evaluate.checkpoint=best"],
        ["trainer.max_epochs=21"],
    ],
)
def test_another_run(overrides):
    assert run_id(composed(overrides)) != run_id(composed())


def test_a_changed_default_makes_another_run():
    """A key is silent at one value for ever, whatever the schema's default becomes."""
    keys = result_keys(Config())
    assert silent_values().keys() == keys.keys()  # a new key needs its entry, or every id changes
    assert run_id(composed()) == "4018eb608f84"  # what the README shows, and users have
    config = composed()
    config.optim.momentum = 0.95  # as it would be, were that the default
    assert run_id(config) != run_id(composed())


def test_an_arm_is_all_but_the_seeds():
    assert arm_id(composed(["seed=1"])) == arm_id(composed(["seed=2", "data.seed=9"])) == arm_id(composed())
    assert arm_id(composed(["model.lrn=false"])) != arm_id(composed())


def test_weights_count_by_content(tmp_path: Path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (run_id(composed([f"weights={tmp_path / name}"])) for name in "abc")
    assert a == b
    assert a != c
    assert a != run_id(composed())


def test_an_id_is_twelve_hex_digits():
    assert len(run_id(composed())) == 12
    assert int(run_id(composed()), 16) >= 0


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ([], "none"),
        (["seed=4"], "none"),
        (["model.lrn=false"], "no_lrn"),
        (["model.dropout=0"], "no_dropout"),
        (["model.remove=[conv4,conv3]"], "no_conv3_conv4"),
        (["model.lrn=false", "pool.overlap=false"], "model.lrn=false pool.overlap=false"),
        (["optim.lr=0.02"], "optim.lr=0.02"),
    ],
)
def test_labels_derive_from_the_configuration(overrides, label):
    [run] = make_plan(overrides).runs
    assert run.labels == {"protocol": "paper", "recipe": "demo", "model": "alexnet", "ablation": label, "arm": run.arm}


def test_a_plan_says_what_varies():
    plan = make_plan(["model.lrn=true,false", "pool.overlap=true,false", "seed=0,1"], multirun=True)
    assert [run.varied for run in plan.runs[::2]] == [
        "model.lrn=true pool.overlap=true",
        "model.lrn=true pool.overlap=false",
        "model.lrn=false pool.overlap=true",
        "model.lrn=false pool.overlap=false",
    ]
    assert len({run.arm for run in plan.runs}) == 4
    assert plan.sweep_id == make_plan(["model.lrn=true,false", "pool.overlap=true,false", "seed=0,1"], True).sweep_id


def test_a_plan_holds_each_run_once():
    plan = make_plan(["model.dropout=0,0.0", "seed=1,1"], multirun=True)
    assert len(plan.runs) == 1


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path):
    (tmp_path / "file").touch()
    for name in ("paths.runs", "data.cache"):
        with pytest.raises(ConfigError, match=f"{name}=.*file/runs: .*file is a file; name a folder"):
            make_plan([f"paths.runs={tmp_path / 'new'}", f"{name}={tmp_path / 'file' / 'runs'}"])
    make_plan([f"paths.runs={tmp_path / 'new' / 'runs'}"])
    assert not (tmp_path / "new").exists()


def test_a_folder_without_the_right_to_write_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (closed := tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)  # root may write anywhere
    for name in ("paths.runs", "data.cache"):
        with pytest.raises(ConfigError) as caught:
            make_plan([f"{name}={closed / 'new'}"])
        assert str(caught.value) == f"{name}={closed / 'new'}: {closed} is not writable; name another folder"
    assert not list(closed.iterdir())


def test_a_path_with_spaces_and_signs(tmp_path: Path):
    folder = tmp_path / "my runs = lr=0.1"
    [run] = make_plan([f'paths.runs="{folder}"']).runs
    assert run.config.paths.runs == str(folder)


def test_a_limit_of_one_step_is_not_the_whole():
    """1 == 1.0 in Python; here the one is a step an epoch and the other all of them."""
    assert run_id(composed(["trainer.limit_train_batches=1"])) != run_id(composed(["trainer.limit_train_batches=1.0"]))
    assert run_id(composed(["trainer.limit_val_batches=1"])) != run_id(composed([]))
    [run] = make_plan(["trainer.limit_train_batches=1"]).runs
    assert run.labels["ablation"] == "trainer.limit_train_batches=1"


@pytest.mark.parametrize("content", ["model:\n  remove: [fc6, conv3]", "model:\n  conv1_padding: none"])
def test_a_users_own_ablation_keeps_its_name(tmp_path: Path, content: str):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    [run] = make_plan(["ablation=mine"], config_dir=str(tmp_path)).runs
    assert run.labels["ablation"] == "mine"


def test_jobs_that_are_one_run_are_told():
    plan = make_plan(["ablation=none,biases_0,no_lrn,dropout_20", "seed=0,1"], multirun=True)
    assert len(plan.runs) == 4
    assert plan.merged == [("ablation=biases_0", "ablation=none"), ("ablation=dropout_20", "ablation=none")]
