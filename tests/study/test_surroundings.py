"""What else differs between runs: named once, in a line each, if it can change their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alexlab.runs.record import Record
from alexlab.study.records import RunData
from alexlab.study.surroundings import between_arms, between_runs, between_two

# As a machine with a GPU records itself, and as older versions of this code did.
GPU: dict[str, Any] = {
    **{"implementation": "CPython", "git_commit": "0123456789abcdef", "git_dirty": False, "changes": {}},
    **{"cpu": "EPYC", "threads": 8, "gpus": ["NVIDIA H200"], "driver": "580.65", "cuda": "13.0", "cudnn": "91002"},
    "libc": "glibc 2.36",
    "packages": {"alexlab": "0.2.0", "torch": "2.14.1", "numpy": "2.4.6", "nvidia-cublas": "13.1", "rich": "15.0.0"},
}
OLDER: dict[str, Any] = {
    **{"git_commit": "0123456789abcdef", "git_dirty": False, "cpu": "EPYC", "threads": 8, "gpus": ["NVIDIA H200"]},
    **{"cuda": "13.0", "driver": "580.65", "packages": {"alexlab": "0.2.0", "torch": "2.14.1", "numpy": "2.4.6"}},
}


@pytest.fixture
def run(tmp_path: Path):
    """A finished run whose environment.json has given changes."""
    number = iter(range(100))

    def made(environment: dict[str, Any] = GPU, **changes: Any) -> RunData:
        record = Record(tmp_path, f"{next(number):012x}")
        record.path.mkdir()
        result = {"data": {"store": "s"}, "device": "cuda", "precision": "32-true", "checkpoint": "last"}
        record.file("result.json").write_text(json.dumps(result))
        packages = {**environment["packages"], **changes.pop("packages", {})}
        packages = {name: version for name, version in packages.items() if version is not None}
        content = {**environment, **changes, "packages": packages}
        record.file("environment.json").write_text(json.dumps(content))
        return RunData(record, {"state": "DONE"})

    return made


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"cudnn": "90800"}, "cuDNN differs between the arms: 91002 against 90800"),
        ({"cuda": "12.8"}, "CUDA differs between the arms: 13.0 against 12.8"),
        ({"driver": "570.1"}, "the driver differs between the arms: 580.65 against 570.1"),
        ({"cpu": "Xeon"}, "the CPU differs between the arms: EPYC against Xeon"),
        ({"gpus": ["NVIDIA A100"]}, "the GPU differs between the arms: NVIDIA H200 against NVIDIA A100"),
        ({"threads": 4}, "the number of threads differs between the arms: 8 against 4"),
        ({"libc": "glibc 2.40"}, "the C library differs between the arms: glibc 2.36 against glibc 2.40"),
        ({"packages": {"torch": "2.11.0"}}, "packages differ between the arms: torch 2.14.1 against 2.11.0"),
        ({"packages": {"triton": "3.8"}}, "packages differ between the arms: triton none against 3.8"),
        ({"packages": {"numpy": None}}, "packages differ between the arms: numpy 2.4.6 against none"),
        (
            {"packages": {"torch": "2.11.0", "nvidia-cublas": "12", "nvidia-nccl": "2", "rich": "1", "wandb": "1"}},
            "packages differ between the arms: torch 2.14.1 against 2.11.0; 2 of CUDA's libraries; 2 other packages "
            "that compute nothing",
        ),
        (
            {"git_dirty": True, "changes": {"sha256": "abcdef0123456789"}},
            "the code differs between the arms: 0123456789 against 0123456789 with changes abcdef01",
        ),
        ({"packages": {"rich": "1", "wandb": "1"}}, None),
        ({"git_dirty": True, "changes": {"sha256": None, "diff": "of a page"}}, None),
        ({"kernel": "6.1", "os": "Debian"}, None),
    ],
)
def test_each_difference_between_two_arms_has_a_line(changes: dict[str, Any], line: str | None, run):
    apart, mixed = between_arms([[run(), run()], [run(**changes), run(**changes)]])
    assert apart == ([line] if line else [])
    assert mixed == []
    if line is None:
        assert between_runs({"a": [run()], "b": [run(**changes)]}) == []


def test_what_differs_within_both_arms_is_no_confound(run):
    arms = [[run(), run(cudnn="90800"), run(packages={"torch": "2.11.0"})] for _ in range(2)]
    apart, mixed = between_arms(arms)
    assert apart == []
    assert mixed == [
        "cuDNN differs within each arm: 91002, 90800",
        "packages differ within each arm: torch 2.14.1, 2.11.0",
    ]


def test_two_different_changes_of_one_commit_are_different_code(run):
    one, other = ({"git_dirty": True, "changes": {"sha256": 8 * digit}} for digit in "ab")
    [line] = between_arms([[run(**one)], [run(**other)]])[0]
    assert line == "the code differs between the arms: 0123456789 with changes aaaaaaaa against " + (
        "0123456789 with changes bbbbbbbb"
    )


def test_the_runs_of_a_study_are_grouped(run):
    old = {"packages": {"torch": "2.11.0", "rich": "1"}, "driver": "570.1"}
    arms = {"none": [run() for _ in range(5)], "no_lrn": [run(), run(**old)], "no_pca": [run(**old)]}
    assert between_runs(arms) == [
        "the driver differs between the runs: 580.65 in 6 runs, 570.1 in 2 (no_lrn, no_pca)",
        "packages differ between the runs: torch 2.14.1 in 6 runs, 2.11.0 in 2 (no_lrn, no_pca); 1 other package that "
        "computes nothing",
    ]


def test_without_a_gpu_its_driver_decides_nothing(run):
    of_cpu = {"gpus": [], "cudnn": None}
    assert between_arms([[run(**of_cpu)], [run(**of_cpu, driver="570.1")]]) == ([], [])


def test_an_older_record_says_nothing_of_what_it_lacks(run):
    assert between_arms([[run()], [run(OLDER)]]) == ([], [])
    assert between_runs({"a": [run()], "b": [run(OLDER)]}) == []
    assert between_two(run(), run(OLDER)) == []
    apart, _ = between_arms([[run()], [run(OLDER, packages={"torch": "2.11.0"})]])
    assert apart == ["packages differ between the arms: torch 2.14.1 against 2.11.0"]


def test_two_runs_side_by_side(run):
    assert between_two(run(), run(threads=4, packages={"rich": "1", "torch": "2.11.0"})) == [
        ("the number of threads", "8", "4"),
        ("rich", "15.0.0", "1"),
        ("torch", "2.14.1", "2.11.0"),
    ]
