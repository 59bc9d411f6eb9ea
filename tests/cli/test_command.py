"""The installed command `alexlab`, and `python -m alexlab`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
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


@pytest.mark.parametrize("line", [["--help", "optim"], ["lr=0.1"]])
def test_help_and_mistakes_of_train_load_no_numerics(line: list[str]):
    code = (
        f"import sys; from alexlab.cli.train import main; main({line!r})\n"
        "print(sorted({'torch', 'lightning', 'scipy', 'matplotlib', 'pandas'} & sys.modules.keys()))"
    )
    environment = {"PYTHONPATH": str(PROJECT_DIR / "src"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_mistake_in_a_subcommand_has_its_exit_status():
    line = [sys.executable, "-m", "alexlab", "report", "--nonsense"]
    environment = {"PYTHONPATH": str(PROJECT_DIR / "src"), "PATH": ""}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --nonsense: ")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", ">&-"])
def test_streams_that_are_closed_from_the_start_lead_nowhere(closed: str, tmp_path: Path):
    """No file that is opened later has the number of one, to which libraries write."""
    code = (
        "import os, sys; from alexlab.output import survive_closed; survive_closed(); print(1, file=sys.stderr);"
        "print(2, flush=True); os.write(2, b'from a library');"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); print(file.fileno() > 2, os.get_inheritable(2), file=file)"
    )
    subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], check=True, capture_output=True)
    assert (tmp_path / "file").read_text() == "True True\n"


def test_a_temporary_folder_whose_path_is_too_long_for_sockets(tmp_path: Path):
    (long := tmp_path / ("x" * 100)).mkdir()
    code = (
        "from alexlab.runs.process import start_server; import tempfile; start_server('json');"
        "print(tempfile.gettempdir(), end='')"
    )
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, str(long), "")


def test_a_matplotlib_backend_that_there_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from alexlab.cli.__main__ import run; sys.argv[1:] = ['--help'];"
            "run('report'); import matplotlib",
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
