"""`make compat` names the first thing that differs between two commits' results, and leaves nothing behind."""

from __future__ import annotations

import copy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import compat
from alexlab.config import PROJECT_DIR
from alexlab.data.datamodule import TrainingBatches
from alexlab.data.sampling import image_order
from alexlab.runs import identity
from compat import HALF, Findings, conclude, findings, first_difference, id_differences, not_resumed
from support.commands import begin, finish, until
from support.recording import digest, record
from support.repositories import commit_all, git
from support.settings import composed

Recording = dict[str, Any]
COMPAT = [sys.executable, str(PROJECT_DIR / "tests" / "compat.py")]


def recording(start: int = 0, stop: int = 12) -> Recording:
    """A hand-made recording of the steps after `start` up to `stop`; with errors if that is the run's end."""

    def state(step: int) -> dict[str, dict[str, str]]:
        names = ("conv1.weight", "conv1.bias")
        return {kind: {name: f"{kind} {name} {step}" for name in names} for kind in ("weights", "velocities")}

    steps = {
        str(step): {"draws": {kind: f"{kind} {step}" for kind in compat.DRAWS}, "loss": str(3 / step), **state(step)}
        for step in range(start + 1, stop + 1)
    }
    found: Recording = {"results_version": 2, "run_id": "a", "keys": {"seed": 0}, "unknown_code": None, "steps": steps}
    found["start"] = {"step": start, **state(start)}
    if stop == 12:
        found["errors"] = {"val_loss of epoch 1": "2.5", "test top1_error (ten)": "0.5"}
    return found


def changed(found: Recording, *paths: tuple[str, ...], value: str = "another") -> Recording:
    """A copy with another value at each of these paths."""
    found = copy.deepcopy(found)
    for path in paths:
        place = found
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
    return found


def at(step: int, *path: str) -> tuple[str, ...]:
    return ("steps", str(step), *path)


WEIGHT, BIAS = ("weights", "conv1.weight"), ("weights", "conv1.bias")
VELOCITY = ("velocities", "conv1.weight")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], None),
        ([at(10, "draws", "crops"), at(10, "draws", "flips"), at(11, "draws", "images")], "crops of step 10"),
        ([at(3, "draws", "images"), at(3, "draws", "labels")], "images of step 3"),
        ([at(2, "draws", "colours"), at(2, "draws", "inputs")], "colours of step 2"),
        # Draws follow from no weight: they are named even if a weight differs earlier.
        ([at(9, "draws", "flips"), ("start", *WEIGHT), at(1, "loss")], "flips of step 9"),
        ([("start", *BIAS), at(1, "loss")], "initial weights: conv1.bias"),
        ([("start", *WEIGHT), ("start", *BIAS)], "initial weights: conv1.weight and 1 more"),
        ([at(10, "loss"), at(10, *WEIGHT)], "loss of step 10: 0.3 on BASE, another here"),
        ([at(2, *WEIGHT), at(2, *VELOCITY), at(3, "loss")], "weights after step 2: conv1.weight; velocities, too"),
        ([at(2, *WEIGHT), at(2, *BIAS), at(3, *VELOCITY)], "weights after step 2: conv1.weight and 1 more"),
        ([at(2, *VELOCITY), at(3, *WEIGHT)], "velocities after step 2: conv1.weight"),
        ([("errors", "test top1_error (ten)")], "test top1_error (ten): 0.5 on BASE, another here"),
    ],
)
def test_the_first_difference_is_named(paths: list[tuple[str, ...]], expected: str | None):
    assert first_difference(recording(), changed(recording(), *paths)) == expected


def test_lengths_and_names_that_differ():
    longer = recording()
    longer["steps"]["13"] = longer["steps"]["12"]
    assert first_difference(recording(), longer) == "length: 12 steps on BASE, 13 here"
    renamed = recording()
    renamed["start"]["weights"]["conv1.gain"] = renamed["start"]["weights"].pop("conv1.bias")
    assert first_difference(recording(), renamed) == "initial weights: conv1.bias and 1 more"


def judge(**runs: Recording) -> Findings:
    given = {"whole": recording(), "half": recording(stop=6), "now": recording(), "resumed": recording(start=6)}
    return findings(**{**given, **runs})


def test_equal_bits_are_no_difference():
    found = judge()
    assert found == Findings()
    assert not found.is_wrong([])


@pytest.mark.parametrize(
    ("resumed", "expected"),
    [
        (recording(), f"starts at step 0 instead of {HALF}"),
        ({"steps": {}, "refused": "ValueError: no"}, "ValueError: no"),
        (changed(recording(start=6), at(8, *WEIGHT)), "weights after step 8: conv1.weight"),
        (
            changed(recording(start=6), ("start", *VELOCITY)),
            "velocities as read from BASE's state of step 6: conv1.weight",
        ),
        (changed(recording(start=6), ("errors", "val_loss of epoch 1")), "val_loss of epoch 1: 2.5 on BASE, another"),
    ],
)
def test_a_resumed_run_that_differs(resumed: Recording, expected: str):
    found = judge(resumed=resumed)
    assert found.bits is None
    assert (found.resumed or "").startswith(expected)
    assert found.is_wrong([])


def test_a_line_that_one_of_them_does_not_train():
    refused = {"steps": {}, "refused": "ConfigError: model.new: no such key"}
    found = judge(whole=refused)
    assert found.refused == "ConfigError: model.new: no such key"
    assert not found.is_wrong([])
    found = judge(now=refused)
    assert found.problem == "this tree does not train what BASE does: ConfigError: model.new: no such key"
    assert found.is_wrong([])


def test_a_base_that_does_not_repeat_its_bits_is_no_reference():
    found = judge(half=changed(recording(stop=6), at(4, "loss")))
    assert found.problem == "BASE does not repeat its own bits here: loss of step 4: 0.75 on BASE, another here"
    assert found.is_wrong([])


def test_run_ids_that_differ_name_their_keys_and_may_be_intended():
    now = changed(recording(), ("run_id",))
    now["keys"] = {"seed": 1, "conv1_freeze": 2, "results_version": 2}
    found = judge(now=now)
    assert found.keys == ["seed: 0 -> 1", "conv1_freeze: none -> 2"]
    assert found.is_wrong([])
    assert found.is_wrong(["seed"])
    assert not found.is_wrong(["seed", "conv1_freeze"])
    assert id_differences(recording(), changed(recording(), ("run_id",))) == ["how it is computed"]


def test_another_results_version_explains_other_bits_and_ids():
    now = changed(recording(), ("run_id",), at(2, "loss"))
    now["results_version"] = 3
    found = judge(now=now, resumed={"steps": {}, "refused": "not tried"})
    assert found == Findings(bits="loss of step 2: 1.5 on BASE, another here")


@pytest.mark.parametrize(
    ("base", "now", "is_wrong", "expected"),
    [
        ({}, {}, False, None),
        ({}, {}, True, "not tried"),
        ({}, {"unknown_code": "0123456789ab"}, False, "0123456789ab is not in runs/known_code.json"),
        ({"unknown_code": "ba9876543210"}, {}, False, "BASE did not know its own code (ba9876543210)"),
        ({}, {"run_id": "b"}, True, "its run id differs"),
    ],
)
def test_a_run_that_is_not_resumed_by_design_is_explained(
    base: Recording, now: Recording, is_wrong: bool, expected: str | None
):
    reason = not_resumed({**recording(), **base}, {**recording(), **now}, is_wrong)
    assert reason == expected if expected is None else expected in (reason or "")


def test_what_concerns_all_run_ids_is_printed_once():
    found = {
        "demo": Findings(keys=["seed: 0 -> 1"]),
        "caffe": Findings(bits="loss of step 1", keys=["seed: 0 -> 1", "optim.lr: 1 -> 2"]),
        "towers": Findings(refused="ConfigError: no"),
        "bf16": Findings(resumed="starts at step 0 instead of 6", keys=["seed: 0 -> 1"]),
    }
    assert compat.report(found).splitlines() == [
        "demo        same bits",
        "caffe       FIRST DIFFERENCE loss of step 1",
        "            ANOTHER RUN ID optim.lr: 1 -> 2",
        "towers      not compared, BASE does not train it: ConfigError: no",
        "bf16        same bits",
        "            RESUMED HERE starts at step 0 instead of 6",
        "all         ANOTHER RUN ID seed: 0 -> 1",
    ]
    assert compat.report({"demo": found["demo"]}).splitlines() == [
        "demo        same bits",
        "            ANOTHER RUN ID seed: 0 -> 1",
    ]


def test_the_end_says_what_to_do(capsys: pytest.CaptureFixture[str]):
    assert conclude([], {"demo": Findings()}) == 0
    assert capsys.readouterr().out == "Nothing differs that should not.\n"
    bits, ids = Findings(bits="loss of step 1"), Findings(bits="loss of step 1", keys=["seed: 0 -> 1"])
    for wrong, words in (
        (["demo"], ("raise RESULTS_VERSION",)),
        (["command"], ("raise RESULTS_VERSION",)),
        (["bf16"], ("--intended KEY",)),
        (["demo", "bf16"], ("raise RESULTS_VERSION", "--intended KEY")),
    ):
        assert conclude(wrong, {"demo": bits, "bf16": ids}) == 1
        first, *rest = capsys.readouterr().out.splitlines()
        assert first == f"Differs where RESULTS_VERSION is equal: {', '.join(wrong)}."
        assert len(rest) == len(words)
        assert all(any(word in line for line in rest) for word in words)


# Commits


needs_git = pytest.mark.skipif(not shutil.which("git"), reason="no git")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, of another project."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README").write_text("another project\n")
    commit_all(folder)
    return folder


@needs_git
@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("nowhere", "error: BASE=nowhere: no such commit, tag or branch here; git log --oneline lists them\n"),
        ("HEAD:README", "error: BASE=HEAD:README: no such commit, tag or branch here"),
        ("HEAD", "has no src/alexlab/config.py, so this command cannot run its code\n"),
    ],
)
def test_a_base_that_cannot_be_compared_is_one_line(
    repository: Path, base: str, expected: str, capsys: pytest.CaptureFixture[str]
):
    assert compat.main(["--tree", str(repository), base]) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert len(errors.splitlines()) == 1


@needs_git
def test_no_repository_and_no_git_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert compat.main(["--tree", str(tmp_path), "HEAD"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: is no git repository")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compat.main(["HEAD"]) == 2
    assert capsys.readouterr().err == "error: git is not installed; it is what reads the other commit\n"


@needs_git
def test_the_last_release_is_the_last_tag_and_a_clone_without_one_skips(
    repository: Path, capsys: pytest.CaptureFixture[str]
):
    assert compat.main(["--tree", str(repository), "--release"]) == 0
    assert capsys.readouterr().out.startswith("compat: skipped: no tag v* here")
    git(repository, "tag", "v1.0.0")
    git(repository, "tag", "another")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert compat.release(repository) == "v1.0.0"


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_asks_for_a_commit():
    installed = Path(sys.prefix) / "installed"
    line = ["make", "compat", f"VENV={sys.prefix}", f"--assume-old={installed}", "BASE="]
    done = subprocess.run(line, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: no commit given; make compat BASE=main, or make compat-release"


# Recordings


def test_a_recording_has_the_draws_of_each_step_and_resumes(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(identity, "modified", identity.modified)  # a recording replaces it
    line = [*tiny, "checkpoint.every_steps=1", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    plain = TrainingBatches.__getitem__
    half = record(line, tmp_path / "run", stop_after=1)
    assert "errors" not in half
    assert half["start"]["step"] == 0
    seed = composed(line).data.seed
    assert seed is not None
    assert half["steps"].keys() == {"1"}
    assert half["steps"]["1"]["draws"]["images"] == digest(image_order(seed, 0, 60)[:20])
    assert half["steps"]["1"]["draws"].keys() == set(compat.DRAWS)
    assert half["start"]["velocities"] == {}
    assert half["steps"]["1"]["velocities"].keys() == half["steps"]["1"]["weights"].keys()

    resumed = record(line, tmp_path / "run", stop_after=None)
    assert resumed["start"] == {"step": 1, **{kind: half["steps"]["1"][kind] for kind in ("weights", "velocities")}}
    assert resumed["steps"].keys() == {"2", "3"}
    assert resumed["errors"]["step of epoch 1"] == "3"
    assert TrainingBatches.__getitem__ is plain
    assert "model.no=1" in record([*line, "model.no=1"], tmp_path / "none", None)["refused"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose only commit is this code, to be changed."""
    folder = tmp_path / "project"
    for name in ("src", "conf"):
        shutil.copytree(PROJECT_DIR / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    commit_all(folder)
    return folder


def temporary(folder: Path) -> dict[str, str]:
    """The environment for temporary files in a folder, but for the one that torch makes and leaves."""
    return {"TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": f"{folder}-inductor"}


@needs_git
@pytest.mark.processes
def test_an_interrupted_comparison_leaves_nothing_behind(project: Path, tmp_path: Path):
    (scratch := tmp_path / "scratch").mkdir()
    line = [*COMPAT, "HEAD", "--only", "demo", "--tree", str(project)]
    process = begin(line, temporary(scratch))
    until(lambda: len(list(scratch.glob("alexlab-compat-*/*/recording.log"))) == 2, process)
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 130, output
    assert "Stopped; nothing is left behind." in output
    assert list(scratch.iterdir()) == []
    assert git(project, "status", "--porcelain") == ""
    assert len(git(project, "worktree", "list").splitlines()) == 1


# Real comparisons


def compared(project: Path, *more: str) -> tuple[int, str]:
    folder = project.parent / "scratch"
    folder.mkdir()
    found = finish(begin([*COMPAT, "HEAD", "--tree", str(project), *more], temporary(folder)))
    assert list(folder.iterdir()) == []
    return found


@needs_git
@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.long
def test_a_commit_has_its_own_bits(project: Path):
    status, output = compared(project)
    assert status == 0, output
    assert output.count("same bits") == len(compat.CONFIGURATIONS) + 1, output
    assert "stopped on BASE, it resumes here: same bits" in output


SAMPLING, OPTIM, ALEXNET = ("data/sampling.py", "training/optim.py", "models/alexnet.py")


@needs_git
@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "before", "after", "expected"),
    [
        (SAMPLING, "rng.random((batch_size, 2))", "rng.random((batch_size, 2))[::-1]", "crops of step 1\n"),
        (SAMPLING, 'stream_seed(seed, "order", epoch)', 'stream_seed(seed, "order", epoch // 2)', "images of step 5\n"),
        # The first velocity is the same without momentum.
        (OPTIM, '{"momentum": rule["momentum"],', '{"momentum": rule["momentum"] / 2,', "weights after step 2: conv1"),
        (ALEXNET, "bias.fill_(model.init_bias if", "bias.fill_(2 * model.init_bias if", "initial weights: conv2.bias"),
    ],
)
def test_a_changed_rule_is_named(project: Path, module: str, before: str, after: str, expected: str):
    path = project / "src" / "alexlab" / module
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    status, output = compared(project, "--only", "demo")
    assert status == 1, output
    assert "with uncommitted changes): RESULTS_VERSION 2" in output
    assert f"demo        FIRST DIFFERENCE {expected}" in output
    assert "raise RESULTS_VERSION" in output
