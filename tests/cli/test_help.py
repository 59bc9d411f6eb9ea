"""`--help`: every key with what it takes, and what concerns a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexlab.cli.help import GROUPS, range_of
from alexlab.cli.train import main
from alexlab.compose import Composer
from alexlab.config import Activation, Config, walk

ENTRIES = {name: entry for name, _, entry in walk(Config())}


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--help", *words]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    return printed


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("ALEXLAB_RUNS", "runs")  # a path of its own could be longer than a line
    monkeypatch.setenv("ALEXLAB_CACHE", "cache")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.activation", " | ".join(member.name for member in Activation)),
        ("model.lrn", "true | false"),
        ("optim.momentum", "number at least 0 and below 1"),
        ("optim.drops", "list of numbers above 0 and below 1"),
        ("data.seed", "whole number at least 0, or null"),
        ("model.remove", "list of conv2 | conv3 | conv4 | conv5 | conv6 | fc6 | fc7"),
        ("model.init_stds", "list of layer:number above 0"),
        ("pool.kinds", "list of layer:option, max | average | max_average"),
        ("trainer.precision", "32-true | tf32-true | 16-mixed | bf16-mixed | 64-true"),
        ("trainer.limit_train_batches", "whole number or fraction above 0"),
        ("weights", "text, or null"),
        ("study.claims", "list of names"),
        ("data.format", "raw | jpeg, or null"),
    ],
)
def test_range(name: str, words: str):
    assert range_of(ENTRIES[name]) == words


def test_all_of_it(capsys: pytest.CaptureFixture[str]):
    printed = shown(capsys)
    for name in ENTRIES:
        assert f"\n  {name}=" in printed
    assert "model.activation=relu  relu | tanh | sigmoid | elu | prelu\n" in printed
    assert "model.dropout=0.2  number at least 0 and below 1; protocol=paper has 0.5\n" in printed
    assert "trainer.limit_train_batches=1.0  whole number or fraction above 0\n" in printed  # 1 is one step
    assert printed.startswith("usage: ")


def test_a_section_and_its_group(capsys: pytest.CaptureFixture[str]):
    printed = shown(capsys, "model")
    named = [line.split("=")[0].strip() for line in printed.splitlines() if line.startswith("  m")]
    assert [name for name in named if "." in name] == [name for name in ENTRIES if name.startswith("model.")]
    assert "  model=alexnet*\n" in printed
    assert "usage" not in printed
    assert "optim.lr" not in shown(capsys, "pool")


def test_a_key_alone_and_with_a_recipe(capsys: pytest.CaptureFixture[str]):
    assert "  data.size=110  " in (printed := shown(capsys, "data.size"))
    assert printed.count("=") == 3  # its value, the heading's KEY=VALUE, and the protocol's
    assert "  data.size=146  " in shown(capsys, "data.size", "recipe=imagenet128")


def test_a_word(capsys: pytest.CaptureFixture[str]):
    printed = shown(capsys, "LRN")
    for found in ("model.lrn_alpha=", "trainer.fused_lrn=", "ablation=no_lrn\n", "study=lrn\n"):
        assert f"  {found}" in printed
    assert "model.width" not in printed
    assert "seed=0" in (printed := shown(capsys, "initial"))  # in its meaning
    assert "optim.momentum" not in printed


def test_options_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text("# @package _global_\n# My own change.\nmodel:\n  lrn: false\n")
    printed = shown(capsys, "ablation", "--config-dir", str(tmp_path))
    assert "  ablation=mine\n      My own change." in printed
    assert "ablation=none*" in printed


def test_a_word_that_nothing_has(capsys: pytest.CaptureFixture[str]):
    assert main(["--help", "dorpout"]) == 2
    error = capsys.readouterr().err
    assert error == "error: --help dorpout: matches no key or option; did you mean 'dropout'?\n"


def test_every_group_has_its_meaning():
    assert GROUPS.keys() == Composer().groups.keys()
