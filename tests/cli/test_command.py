"""The installed command `alexlab`, and `python -m alexlab`."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

import alexlab
from alexlab.cli import __main__ as command
from alexlab.config import PROJECT_DIR


def test_each_subcommand_gets_its_own_line(monkeypatch: pytest.MonkeyPatch):
    taken = []

    def find(module: str) -> SimpleNamespace:
        return SimpleNamespace(main=lambda line: taken.append((module, line)) or 75)

    monkeypatch.setattr(command, "import_module", find)
    for name in ("train", "prepare", "evaluate", "runs", "report"):
        assert command.main([name, "--help", "seed=1"]) == 75
        assert taken.pop() == (f"alexlab.cli.{name}", ["--help", "seed=1"])


def test_subcommands_are_the_scripts_of_the_checkout():
    assert {path.stem for path in (PROJECT_DIR / "src").glob("*.py")} == set(command.COMMANDS)


@pytest.mark.parametrize("line", [["--help"], ["-h"], []])
def test_help_names_every_subcommand(line: list[str], capsys: pytest.CaptureFixture[str]):
    assert command.main(line) == 0
    printed = capsys.readouterr().out
    assert all(f"alexlab {name} " in printed for name in command.COMMANDS)
    assert max(map(len, printed.splitlines())) <= 80


def test_version(capsys: pytest.CaptureFixture[str]):
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"alexlab {alexlab.__version__}\n"


def test_an_unknown_subcommand_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert command.main(["trian", "seed=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: trian: no such command; did you mean 'train'?")


def test_help_and_version_load_nothing_heavy():
    code = (
        "import runpy, sys; sys.argv = ['alexlab', '--help']\n"
        "try: runpy.run_module('alexlab', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'hydra', 'numpy', 'matplotlib', 'rich', 'loky'} & sys.modules.keys()))"
    )
    environment = {"PYTHONPATH": str(PROJECT_DIR / "src"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_mistake_in_a_subcommand_has_its_exit_status():
    line = [sys.executable, "-m", "alexlab", "report", "--nonsense"]
    environment = {"PYTHONPATH": str(PROJECT_DIR / "src"), "PATH": ""}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --nonsense: ")
