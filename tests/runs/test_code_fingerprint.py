"""Modified code gives runs of their own; comments, docstrings and formatting modify nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alexlab.cli import train
from alexlab.config import Config
from alexlab.runs import code_fingerprint, identity
from alexlab.runs.code_fingerprint import PACKAGE, fingerprint, known
from alexlab.runs.identity import RESULTS_VERSION, arm_id, run_id


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    copy = tmp_path / "alexlab"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_this_code_is_known():
    found = fingerprint()
    assert found in known(RESULTS_VERSION), (
        f"The code that decides results has changed: its fingerprint is {found}. If the golden tests pass, its results "
        f'are the same: add "{found}": "<date>" to version {RESULTS_VERSION} in src/alexlab/runs/known_code.json. If '
        "they do not, raise RESULTS_VERSION."
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from __future__ import annotations\n", "# a comment\nfrom __future__  import  annotations\n\n\n"),
        ('"""', '"""Another docstring. '),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(package: Path, before: str, after: str):
    for module in package.rglob("*.py"):
        if before in module.read_text():
            edit(module, before, after)
    assert fingerprint(package) == fingerprint()


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("training/optim.py", "-lr", "-3 * lr"),
        ("models/lrn.py", "size // 2", "size // 3"),
        ("data/sampling.py", "def ", "def another() -> None: ...\n\n\ndef "),
        ("architecture.py", "2", "3"),
    ],
)
def test_a_changed_statement_counts(package: Path, module: str, before: str, after: str):
    edit(package / module, before, after)
    assert fingerprint(package) != fingerprint()


def test_a_new_module_counts_and_one_that_only_shows_does_not(package: Path):
    for shows in ("training/progress_bar.py", "cli/tables.py"):
        with (package / shows).open("a") as file:
            file.write("another = 1\n")
    assert fingerprint(package) == fingerprint()
    (package / "models/another.py").write_text("x = 1\n")
    assert fingerprint(package) != fingerprint()


def test_modified_code_has_run_ids_of_its_own(tiny_config: Config, monkeypatch: pytest.MonkeyPatch):
    before = run_id(tiny_config), arm_id(tiny_config)
    monkeypatch.setattr(identity, "modified", lambda version: "0123456789ab")
    first = run_id(tiny_config), arm_id(tiny_config)
    monkeypatch.setattr(identity, "modified", lambda version: "ba9876543210")
    second = run_id(tiny_config), arm_id(tiny_config)
    assert len({*before, *first, *second}) == 6


def test_the_command_says_that_its_code_is_modified(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert train.main([*tiny, "--dry-run"]) == 0
    before = capsys.readouterr().out
    assert "Modified code" not in before
    for module in (train, identity):
        monkeypatch.setattr(module, "modified", lambda version: "0123456789ab")
    assert train.main([*tiny, "--dry-run"]) == 0
    assert "\nModified code 0123456789ab: its runs are kept apart" in capsys.readouterr().out


def test_only_unknown_code_is_modified(monkeypatch: pytest.MonkeyPatch):
    modified = code_fingerprint.modified.__wrapped__  # not the answer that is kept
    assert modified(RESULTS_VERSION) is None
    monkeypatch.setattr(code_fingerprint, "known", lambda version: {"0123456789ab": "another code"})
    assert modified(RESULTS_VERSION) == fingerprint()
