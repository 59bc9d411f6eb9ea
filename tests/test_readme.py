"""Every command in README.md and docs/ that can run here does, on the shrunken demo."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexlab.cli.prepare import main as prepare_main
from alexlab.cli.train import main
from alexlab.compose import to_yaml
from alexlab.config import PROJECT_DIR, load
from alexlab.runs.record import DONE, Record
from alexlab.sweep.plan import make_plan
from support import source_files as raw_data
from support.settings import last_of_each

README = (PROJECT_DIR / "README.md").read_text()
PAGES = {path: path.read_text() for path in sorted((PROJECT_DIR / "docs").rglob("*.md"))}
ALL = "\n".join([README, *PAGES.values()])
TUTORIAL = PAGES[PROJECT_DIR / "docs" / "tutorial.md"]


def commands(text: str) -> list[str]:
    """The lines of its bash blocks, continued ones joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]


# Once each: comments aside, pages repeat one another's lines.
BASH = list({line.partition("  #")[0].strip(): line for line in reversed(commands(ALL))}.values())[::-1]
LAUNCHED = [line for line in BASH if "hydra/launcher=" in line and "study=" not in line]
TRAIN = ("alexlab train", "python src/train.py")
TRAINING = [line for line in BASH if line.startswith(TRAIN) and line not in LAUNCHED]
PREPARING = [line for line in BASH if line.startswith("alexlab prepare")]
RAW = {  # what DIR stands for, by the set's name in the line
    "imagenet128": raw_data.imagenet_tars,
    "imagenet2012": raw_data.imagenet_tars,
    "imagenet2010": raw_data.imagenet2010_tars,
    "imagenette": raw_data.imagenette,
    "imagenette_cpu": raw_data.imagenette,
    "cifar10": raw_data.cifar,
    "folder": raw_data.class_folders,
}
# What the tests do not run: they are running in what these make, or there is no such program in a test's machine.
OTHERS = (
    *("make demo", "make test", "source .venv", "python3 -m venv", "uv venv", "mkdir"),
    *("docker build", "docker stop", "docker run", "alexlab() {"),  # tests/container.py
    *("docker logs", "docker wait", "docker save", "apptainer", "nvidia-smi", "rsync", "python -m pip", "python -c"),
    "docs/spot.sh",  # tests/test_spot.py
    "python verify.py",  # tests/runs/test_bundle.py
    "sbatch",  # tests/sweep/test_slurm.py
    "eval",  # tests/cli/test_completion.py
    "alexlab evaluate",  # of runs that the demo made
    *("alexlab predict", "pip install '.[onnx]'"),  # likewise: tests/cli/test_predict.py
    "alexlab runs",  # likewise: tests/cli/test_runs.py
    "alexlab report",  # tests/cli/test_report.py
    "tensorboard --logdir",  # what it shows: tests/runs/test_tensorboard_copy.py
)


def test_every_line_is_known():
    assert [line for line in BASH if line not in TRAINING + PREPARING + LAUNCHED and not line.startswith(OTHERS)] == []
    assert [line.split()[:2] for line in commands(README)[:2]] == [["make", "demo"], ["make", "test"]]
    assert "python src/train.py -m model.lrn=true,false pool.overlap=true,false" in commands(README)


def test_the_readme_is_read_in_a_minute():
    assert len(README.splitlines()) <= 150
    for notebook in (PROJECT_DIR / "notebooks").glob("*.ipynb"):
        assert f"](notebooks/{notebook.name})" in README


def test_the_demos_ids_are_those_that_it_will_have():
    """In README's table, and in the lines that evaluate some of them."""
    runs = make_plan(["model.lrn=true,false", "pool.overlap=true,false"], multirun=True).runs
    assert re.findall(r"\b[0-9a-f]{12}\b", README)[:4] == [run.run_id for run in runs]
    lines = [line for line in BASH if line.startswith("alexlab evaluate")]
    assert set(re.findall(r"[0-9a-f]{12}", " ".join(lines))) == {run.run_id for run in runs[:1] + runs[2:]}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `mine` of the tutorial and of own-net.md, from the files as a reader copies them."""
    folder = tmp_path_factory.mktemp("tutorial")
    own_net = PAGES[PROJECT_DIR / "docs" / "how-to" / "own-net.md"]
    block = r"```(?:yaml|python)\n((?:# @package _global_\n)?# (mine/\S+)\n.*?)```"
    for content, name in re.findall(block, TUTORIAL + own_net, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder / "mine"


def shortened(line: str, tiny: list[str]) -> list[str]:
    """The words of a line, of small runs on the embedded images."""
    words = shlex.split(line, comments=True)[2:]
    words = [re.sub(r"^(seed|optim\.lr)=([^,]+),.*", r"\1=\2", word) for word in words]  # one is enough
    is_short = "--dry-run" in words or "seed=3" in words or any(word.startswith("debug=") for word in words)
    trial = [] if is_short else ["trainer.fast_dev_run=true"]
    words = [word for word in words if not word.startswith("hydra")]
    if any(word.startswith("recipe=") or word == "study=figure1" for word in words):  # on the embedded images
        trial += ["data=shapes", "data.holdout=0"]
        words = [word for word in words if not word.startswith("data.")]
    if any(word.startswith("study=") for word in words):  # one claim is enough, too
        trial += ["study.seeds=1", "study.base_seeds=1"]
        trial += [] if "study=shapes" in words else ["study.claims=[paper/lrn]"]
    if any("mynet" in word for word in words):  # AlexNet's keys are refused there
        tiny = [word for word in tiny if not word.startswith("model.")]
    if any(word.startswith("study.budget=") for word in words):  # it chooses the seeds, for which tiny runs are too few
        return [*words, *(word for word in trial if "seeds=" not in word)]
    given = [word for word in tiny if word.split("=")[0] not in {w.split("=")[0] for w in words}]
    return [*words, *given, *trial]


NAMED = pytest.mark.parametrize(
    "line",
    # All ablations at once are composed, and timed, in half a minute.
    [pytest.param(line, marks=[pytest.mark.long] if "glob" in line else []) for line in TRAINING],
    ids=lambda line: " ".join(line.split()[2:])[:40],
)


@NAMED
def test_line_is_planned(line: str, tiny: list[str], mine: Path):
    words = shortened(line, tiny)
    config_dir = None
    if "--config-dir" in words:
        at = words.index("--config-dir")
        assert words[at : at + 2] == ["--config-dir", mine.name]
        del words[at : at + 2]
        config_dir = str(mine)
    flags = {word for word in words if word.startswith("-")}
    if flags - {"-m", "--dry-run"}:  # which only show something
        assert main(words) == 0
        return
    overrides = [word for word in words if word not in flags]
    assert make_plan(overrides, multirun="-m" in flags, config_dir=config_dir).runs


@pytest.mark.long
@pytest.mark.slow
@NAMED
def test_line_trains(
    line: str, tiny: list[str], mine: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(mine.parent)
    assert main(shortened(line, tiny)) == 0, capfd.readouterr()


@pytest.mark.parametrize("line", LAUNCHED, ids=lambda line: line.partition("hydra/launcher=")[2][:40])
def test_launched_line(line: str):
    """Its plan; that launchers do what they are told: tests/sweep/test_launchers.py, tests/sweep/test_cluster.py."""
    words = [*shlex.split(line, comments=True)[3:], "data=shapes", "data.holdout=0"]
    assert "-m" in line.split()
    assert len(make_plan(words, multirun=True).runs) in (3, 4, 5, 6)


@pytest.mark.parametrize("line", PREPARING, ids=lambda line: " ".join(line.split()[2:])[:30])
def test_preparing_line(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr("alexlab.data.locate.cpu_count", lambda: 1)
    monkeypatch.setattr("alexlab.cli.prepare.cpu_count", lambda: 1)
    words = shlex.split(line, comments=True)[2:]
    name = next(word.partition("=")[2] for word in words if word.startswith(("data=", "recipe=")))
    root = RAW[name](tmp_path / "raw")
    given = [word for word in words if word != "data.raw=DIR"]
    made = [f"data.raw={root}", f"data.cache={tmp_path}"]
    if "check" in words:
        assert prepare_main([*given[1:], *made]) == 0
    assert prepare_main([*given, *made]) == 0, capfd.readouterr()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize("more", ["--dry-run", pytest.param("", marks=pytest.mark.long)])
def test_make_demo(tiny: list[str], more: str):
    """Its line is trained by tests/cli/test_train.py, with another launcher."""
    installed = Path(sys.prefix) / "installed"
    arguments = " ".join(last_of_each([*tiny, "trainer.max_epochs=1", more]))
    done = subprocess.run(
        ["make", "demo", f"VENV={sys.prefix}", f"--assume-old={installed}", f"ARGS={arguments}"],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("4 runs" if more else "1 seed: no conclusion") in done.stdout
    assert "Next: " in done.stdout


def test_the_mistake_shown_is_the_one_reported(capsys: pytest.CaptureFixture[str]):
    [(command, message)] = re.findall(r"\$ (alexlab train .*)\n(error: .*)\n", ALL)
    assert main(shlex.split(command)[2:]) == 2
    assert capsys.readouterr().err == message + "\n"


def test_the_net_shown_is_the_one_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    [(line, shown)] = re.findall(r"`alexlab train (--net [^`]+)`.*?```text\n(.*?)```", ALL, re.DOTALL)
    assert main(line.split()) == 0
    printed = [row.rstrip() for row in capsys.readouterr().out.strip("\n").splitlines()]
    assert shown.splitlines() == printed


WITH_PYTHON = [page for page, text in PAGES.items() if "```python" in text]


# Two pages' blocks need a trained run, or another tracker: tests/cli/test_predict.py, tests/runs/test_trackers.py.
@pytest.mark.parametrize(
    "page",
    [page for page in WITH_PYTHON if page.stem not in ("classify-images", "trackers")],
    ids=lambda page: page.stem,
)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The blocks of a page, one after another, next to a folder with two records."""
    monkeypatch.chdir(tmp_path)
    for seed, error in ((0, 0.1), (1, 0.3)):
        record = Record(tmp_path / "runs", f"{seed:012}")
        record.path.mkdir(parents=True)
        record.begin(to_yaml(load([f"seed={seed}"])), {"ablation": "none"})
        record.file("result.json").write_text(json.dumps({"test": {"ten": {"top1_error": error}}}))
        record.file("metrics.csv").write_text(f"epoch,val_top1_error\n1,0.5\n2,{error}\n")
        center, ten = np.array([[1], [1], [0]]), np.array([[1], [2], [1]])
        np.savez(record.file("predictions.npz"), labels=np.array([1, 2, 0]), center_top5=center, ten_top5=ten)
        record.set_status(DONE)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        exec(block, names)
    if "network" in names:
        import torch

        assert names["network"](torch.zeros(2, 3, 96, 96)).shape == (2, 10)
    if "runs" in names:
        out = capsys.readouterr().out
        assert re.search(r"none\s+0\.2\s+0\.141421\s+2", out)  # mean, standard deviation and count of the errors
        assert "[1]" in out  # the second image: right by ten views alone
        assert re.search(r"^2 +0\.2$", out, re.MULTILINE)  # the mean of both curves after the second epoch


def test_python_blocks_are_those_of_six_pages():
    assert sorted(page.stem for page in WITH_PYTHON) == [
        "classify-images",
        "interface",
        "json",
        "own-net",
        "read-results",
        "trackers",
    ]
    assert "```python" not in README
