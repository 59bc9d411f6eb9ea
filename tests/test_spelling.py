"""What is said of names and words that are no keys: one line that has what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alexlab import spelling
from alexlab.cli import evaluate, report, runs, train
from alexlab.compose import Composer, to_yaml
from alexlab.config import ConfigError, load
from alexlab.runs.record import DONE, Record
from support.settings import TINY, composed

# What people type first, and what the answer must have in it.
FIRST = {
    ("lr=0.1",): "optim.lr=0.1",
    ("optim.learning_rate=0.1",): "optim.lr=0.1",
    ("model.lr=0.1",): "optim.lr=0.1",
    ("epochs=3",): "trainer.max_epochs=3",
    ("max_epochs=3",): "trainer.max_epochs=3",
    ("batch_size=8",): "data.batch_size=8",
    ("trainer.gpus=2",): "trainer.devices=2 or trainer=ddp2",
    ("+trainer.gpus=2",): "trainer.devices=2 or trainer=ddp2",
    ("gpus=2",): "trainer.devices=2 or trainer=ddp2",
    ("optimizer=adam",): "the paper's SGD",
    ("optim.name=adam",): "the paper's SGD",
    ("optimizer.lr=0.1",): "optim.lr=0.1",
    ("trainer.accelerator=mps",): "Apple's GPUs are not supported; write cpu",
    ("data=mnist",): "data=folder takes images of your own",
    ("logger=comet",): "metrics.csv is in each record",
    ("mlflow=true",): "write logger.mlflow=true",
    ("experiment_name=mine",): "write logger.project=mine",
    ("dataset=cifar10",): "write data=cifar10",
    ("name=wandb",): "logger=wandb",
    ("resume=true",): "run the same command again to resume; weights=FILE",
    ("--resume",): "run the same command again to resume; weights=FILE",
    ("ckpt_path=last.ckpt",): "run the same command again to resume; weights=FILE",
    ("model.lrn", "true"): "write model.lrn=true",
    ("model.lrn", "seed=3"): "write model.lrn=...",
    ("help",): "write --help",
    ("results/demo",): "is not KEY=VALUE",
    ("-m", "seed=0,", "1"): "no space after a comma; write seed=0,1",
    ("-m", "hydra/sweeper=optuna", "seed=0,1"): "only 'basic' is supported",
    ("--lr", "0.1"): "write optim.lr=0.1",
    ("-lr", "0.1"): "write optim.lr=0.1",
    ("--epochs=3",): "write trainer.max_epochs=3",
    ("--batch-size", "8"): "write data.batch_size=8",
    ("--model.lrn=true",): "write model.lrn=true",
    ("--study", "lrn"): "write study=lrn",
    ("--gpus", "seed=1"): "write trainer.devices=...",
    ("--dryrun",): "did you mean '--dry-run'?",
    ("--xyzzy",): "--help lists all",
    ("--config-name", "mine"): "--config-dir DIR adds options of your own",
    ("--config-dir",): "expected one argument",
    ("data.size=32",): "crops of 96 that data.map_size=23 requires; name a recipe for such images",
    ("ablation=nolrn",): "did you mean 'no_lrn'? (--help ablation lists all",
    ("trainer.gradient_clip_val=0",): "must be above 0",
    ("gradient_clip=1",): "write trainer.gradient_clip_val=1",
    ("trainer.accumulate_grad_batches=4",): "a step is one batch of data.batch_size",
    ("+trainer.max_time=00:12:00",): "a run that ends by a clock has no reproducible result",
    ("+trainer.overfit_batches=1",): "write debug=overfit",
    ("+trainer.profiler=simple",): "write debug=profile",
    ("debug=default",): "write debug=limit",
    ("study.foo=1",): "study",
}


@pytest.mark.parametrize(("line", "answer"), FIRST.items(), ids=map(" ".join, FIRST))
def test_what_people_type_first(line: tuple[str, ...], answer: str, capsys: pytest.CaptureFixture[str]):
    assert train.main(list(line)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert answer in printed.err
    assert "mismatched input" not in printed.err


def test_what_it_says_to_write_is_accepted():
    """Each `write KEY=` of the table is a key or a group, and no name in it is one already."""
    composer = Composer()
    keys = {name for name, _, _ in spelling.walk(spelling.Config())}
    for name, advice in spelling._BY_NAME.items():
        assert name not in {*keys, *composer.groups}, name
        for written in re.findall(r"\b([a-z]+(?:[./][a-z_]+)*)=", advice):
            assert written in {*keys, *composer.groups, "hydra/launcher"}, advice
    for name, option in re.findall(r"\b(trainer|study|logger|debug)=(\w+)", " ".join(spelling._ADVICE)):
        assert option in composer.groups[name]


def test_each_name_has_one_answer():
    names = [name for all_names in spelling._ADVICE.values() for name in all_names.split()]
    assert len(set(names)) == len(names)


def test_a_text_is_no_list_of_overrides():
    with pytest.raises(ConfigError) as caught:
        load("model.lrn=false")  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == 'load("model.lrn=false"): takes a list; write load(["model.lrn=false"])'


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path / "runs", "4018eb608f84")
    record.path.mkdir(parents=True)
    record.begin(to_yaml(composed(TINY)), {"ablation": "none"})
    record.set_status(DONE)
    return record


def test_other_commands(record: Record, capsys: pytest.CaptureFixture[str]):
    folder = record.path.parent
    assert report.main([str(folder)]) == 2
    assert capsys.readouterr().err == f"error: {folder}: write runs={folder}\n"
    assert report.main(["--seed", "3"]) == 2
    assert capsys.readouterr().err == "error: --seed 3: keys have no dashes; write seed=3\n"
    assert evaluate.main(["runs=[4018]", f"paths.runs={folder}"]) == 2
    assert "there is no run '4018' in" in (printed := capsys.readouterr().err)
    assert "write it in full, 4018eb608f84" in printed
    assert runs.main(["list", "state=done", f"paths.runs={folder}"]) == 0
    assert "4018eb608f84" in capsys.readouterr().out
