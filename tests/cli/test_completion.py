"""Completion of command lines: the words that it offers, and the scripts of bash and zsh, in a terminal too."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from alexlab.cli import __main__ as command
from alexlab.cli import completion, evaluate, predict, prepare, report, report_compare, runs, watch
from alexlab.cli.completion import complete
from alexlab.cli.runs.request import FILTERS
from alexlab.compose import Composer, key_types
from alexlab.config import PROJECT_DIR
from alexlab.runs.record import STATES

OFFERED = {
    "alexlab tr": ["train"],
    "alexlab --c": ["--completion"],
    "alexlab --completion z": ["zsh"],
    "alexlab nonsense opt": [],
    "alexlab train optim.l": ["optim.lr="],
    "alexlab train opt": ["optim."],
    "alexlab train model": ["model=", "model."],
    "alexlab  train  -m  see": ["seed="],
    "alexlab train xyz": [],
    "alexlab train recipe=imagenet20": ["recipe=imagenet2010", "recipe=imagenet2012"],
    "alexlab train -m ablation=none,no_l": ["ablation=none,no_lrn"],
    "alexlab train study=fig": ["study=figure1"],
    "alexlab train hydra/launcher=s": ["hydra/launcher=slurm"],
    "alexlab train model.lrn=": ["model.lrn=true", "model.lrn=false"],
    "alexlab train model.lrn=true,f": ["model.lrn=true,false"],
    "alexlab train pool.kind=max": ["pool.kind=max", "pool.kind=max_average"],
    "alexlab train data.format=": ["data.format=raw", "data.format=jpeg"],
    "alexlab train model.remove=": ["model.remove=["],
    "alexlab train model.remove=[conv3,fc": ["model.remove=[conv3,fc6", "model.remove=[conv3,fc7"],
    "alexlab train trainer.precision=bf": ["trainer.precision=bf16-mixed"],
    "alexlab train optim.lr=": [],
    "alexlab train data.raw=": [],
    "alexlab train --config-dir ": [],
    "alexlab train --d": ["--dry-run"],
    "alexlab train --cfg j": ["job"],
    "alexlab train --help optim.l": ["optim.lr"],
    "alexlab train --help abl": ["ablation"],
    "alexlab train debug=": ["debug=limit", "debug=none", "debug=overfit", "debug=profile"],
    "alexlab prepare data.res": ["data.resize="],
    "alexlab prepare opt": [],
    "alexlab runs sh": ["show"],
    "alexlab runs list state=D": ["state=DONE"],
    "alexlab runs list paths": ["paths."],
    "alexlab report --n": ["--nets"],
    "alexlab report --p": ["--pictures", "--pdf"],
    "alexlab report sw": ["sweep="],
    "alexlab runs watch sweep=l": ["sweep=last"],
    "alexlab runs bundle sub": ["submitter="],
    "alexlab evaluate evaluate.checkpoint=": ["evaluate.checkpoint=last", "evaluate.checkpoint=best"],
}


@pytest.mark.parametrize(("line", "words"), OFFERED.items(), ids=OFFERED)
def test_words(line: str, words: list[str]):
    assert complete(line) == words


def test_options_of_groups_are_those_that_hydra_finds():
    composer = Composer()
    for group, options in composer.groups.items():
        assert sorted(complete(f"alexlab train {group}=")) == sorted(f"{group}={option}" for option in options)
    for name in completion._groups([]):
        assert f"{name}=" in complete(f"alexlab train {name}")


def test_every_key_is_offered_and_every_value_fits():
    composer = Composer()
    for name in key_types():
        assert f"{name}=" in complete(f"alexlab train {name}")
        for word in complete(f"alexlab train {name}="):
            lists = [f"{item}]" for item in complete(f"alexlab train {word}")] if word.endswith("[") else []
            for value in lists or [word]:
                composer.check(value)


def test_names_and_options_are_those_of_the_commands():
    assert completion.OPTIONS.keys() == command.COMMANDS.keys()
    assert completion._NAMES["runs"][: len(FILTERS)] == FILTERS
    assert complete("alexlab runs list state=") == [f"state={state}" for state in STATES]
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert set(completion.OPTIONS["train"]) - known == {"--dry-run", "--yes", "--json", "--net", "--paper"}


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        *(("prepare", prepare.USAGE), ("evaluate", evaluate.USAGE), ("predict", predict.USAGE)),
        *(("runs", runs.USAGE + watch.USAGE), ("report", report.USAGE + report_compare.USAGE)),
    ],
)
def test_what_is_offered_is_what_the_help_names(name: str, usage: str):
    options, names = completion.OPTIONS[name], completion._NAMES.get(name, ())
    assert options[-2:] == ("--config-dir", "--help")  # which all commands take
    flags = {option for option in options if option.startswith("-")}
    assert flags == {*re.findall(r"(?<![\w-])--[a-z-]+", usage), "--config-dir", "--help"}
    assert all(option in usage for option in options[:-2])
    of_others = "report.py runs="
    named = set(re.findall(r"(?<![\w.])([a-z]\w*)=", usage.replace(of_others, "")))
    assert named - {*key_types(), *Composer().groups} <= set(names)
    assert set(names) <= named | (set(FILTERS) if name == "runs" else set())


def test_options_of_ones_own(tmp_path: Path):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "no_such.yaml").touch()
    assert complete(f"alexlab train --config-dir {tmp_path} ablation=no_s") == ["ablation=no_such"]


def test_run_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALEXLAB_RUNS", str(tmp_path))
    for name in ("0123456789ab", "0ff000000000", "sweeps"):
        (tmp_path / name).mkdir()
    assert complete("alexlab runs show 01") == ["0123456789ab"]
    (tmp_path / "sweeps" / "4f1f02bb1c3d.json").touch()
    assert complete("alexlab report sweep=") == ["sweep=last", "sweep=4f1f02bb1c3d"]
    assert complete("alexlab runs compare 0123456789ab 0f") == ["0ff000000000"]
    assert complete("alexlab evaluate runs=[0123456789ab,0f") == ["runs=[0123456789ab,0ff000000000"]


def test_it_loads_nothing_heavy():
    code = (
        "import sys; from alexlab.cli.__main__ import main; main(['--complete', 'alexlab train optim.l'])\n"
        "print(sorted({'torch', 'hydra', 'omegaconf', 'yaml', 'numpy', 'rich'} & sys.modules.keys()))"
    )
    environment = {"PYTHONPATH": str(PROJECT_DIR / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["optim.lr=", "[]"], done.stderr


@pytest.mark.parametrize("line", [["--completion"], ["--completion", "fish"]])
def test_another_shell_is_a_mistake(line: list[str], capsys: pytest.CaptureFixture[str]):
    assert command.main(line) == 2
    assert "no such shell; choose one of bash, zsh" in capsys.readouterr().err


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose `alexlab` completes as the real one does, and otherwise prints its arguments."""
    script = tmp_path / "bin" / "alexlab"
    script.parent.mkdir()
    run = f'PYTHONPATH="{PROJECT_DIR / "src"}" exec "{sys.executable}" -m alexlab "$@"'
    script.write_text(f'#!/bin/sh\ncase $1 in --comp*) {run};; esac\necho "arguments: $*"\n')
    script.chmod(0o755)
    return {"PATH": f"{script.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("line", "replaced", "words"),
    [
        ("alexlab tra", "tra", ["train"]),
        ("alexlab train optim.l", "optim.l", ["optim.lr="]),
        # Bash splits words at = and replaces only the last part.
        ("alexlab train recipe=imagenet20", "imagenet20", ["imagenet2010", "imagenet2012"]),
        ("alexlab train model.lrn=", "", ["true", "false"]),
        ("alexlab train -m ablation=none,no_l", "none,no_l", ["none,no_lrn"]),
        ("alexlab train optim.lr=", "", []),
    ],
)
def test_bash_function(line: str, replaced: str, words: list[str], environment: dict[str, str]):
    """Its function, called as bash does, with a cursor that is not at the end of the line."""
    split = " ".join(f"'{word}'" for word in re.split(r"(=)| ", line) if word)
    code = (
        'eval "$(alexlab --completion bash)"\n'
        f"COMP_WORDS=({split}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMP_LINE='{line} x' COMP_POINT={len(line)}\n"
        "compopt() { :; }  # which only works while bash completes\n"
        f"_alexlab alexlab '{replaced}' ''\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout.split() == words


@pytest.mark.processes
@pytest.mark.parametrize(
    "shell",
    [
        pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"no {shell}"))
        for shell in ("bash", "zsh")
    ],
)
def test_tab_in_a_terminal(shell: str, environment: dict[str, str], tmp_path: Path):
    start = f"PS1='ready> '\neval \"$(alexlab --completion {shell})\"\n"
    (tmp_path / ".zshrc").write_text(start)
    (tmp_path / ".bashrc").write_text(start)
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(shell, [shell, "-i"], environment)
    try:
        wait_for("ready> ", terminal)
        os.write(terminal, b"alexlab tra\t-m optim.l\t0.1,1 ablation=none,no_l\t model.remove=\tconv3\t]\n")
        wait_for("arguments: train -m optim.lr=0.1,1 ablation=none,no_lrn model.remove=[conv3]", terminal)
    finally:
        os.close(terminal)  # which ends the shell
        os.waitpid(process, 0)


def wait_for(text: str, terminal: int) -> None:
    """Read until a text appears."""
    read, end = "", time.monotonic() + 120
    while text not in read:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, read
        read += os.read(terminal, 4096).decode()
