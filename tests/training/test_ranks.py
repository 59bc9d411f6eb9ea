"""A run over two devices: the results of one device, whatever ends it, in one record."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import signal
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import distributed as dist

from alexlab import distributed
from alexlab.architecture import bytes_sent
from alexlab.config import ConfigError
from alexlab.data import build_datamodule
from alexlab.data.datamodule import TrainingBatches
from alexlab.data.store import BadData
from alexlab.runs import supervisor
from alexlab.runs.failure import is_echo
from alexlab.runs.process import EXITS, Launch
from alexlab.runs.record import Record
from alexlab.training.fit import fit
from alexlab.training.optim import PaperSGD
from support.commands import descendants, finish, halted, is_sent, living, run, start, trainers, until
from support.interrupted import Break, left
from support.ranks import together
from support.records import content
from support.settings import TINY, Typed, composed
from support.wandb_files import read_wandb


class Training(NamedTuple):
    """A run in `folder`, broken off before an optimiser's step with a number."""

    overrides: list[str]
    folder: Path
    break_at: int | None = None


def trained(trainings: list[Training]) -> list[dict[str, Any] | None]:
    """What each leaves, one after the other; None where it was broken off."""
    return [_trained(*training) for training in trainings]


def _trained(overrides: list[str], folder: Path, break_at: int | None) -> dict[str, Any] | None:
    folder.mkdir(exist_ok=True)
    step, calls = PaperSGD.step, 0

    def counted(self: PaperSGD, closure: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if calls == break_at:
            raise Break
        return step(self, closure)

    PaperSGD.step = counted
    shown, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), io.StringIO(), io.StringIO()
    try:
        outcome = fit(composed(overrides), folder, "run")
    except Break:
        return None
    finally:
        PaperSGD.step, (sys.stdout, sys.stderr) = step, shown
    rows = rows_of(folder)
    log_probability = {kind: found.log_probability for kind, found in outcome.test.items()}
    return {
        "bits": left(folder, outcome),
        "rows": rows,
        "log_probability": log_probability,
        "sent": outcome.sent_per_step,
    }


def rows_of(record: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((record / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize(("is_on_gpu", "backend", "used"), [(False, "gloo", []), (True, "cpu:gloo,cuda:nccl", [1])])
def test_a_run_on_the_cpu_leaves_a_gpu_alone(
    is_on_gpu: bool, backend: str, used: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a machine with two of them, which may be full: choosing one takes memory there."""
    joined: list[str] = []
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **_: joined.append(name))
    distributed.connect(3, 4, tmp_path, is_on_gpu)
    assert (joined, chosen) == ([backend], used)


# Batches of 15 and last ones of 1 and of 2 images do not divide; the plateau looks at what validation gave. An epoch
# has four steps, and states are saved within the first two, or at the first one's end.
UNEVEN = [
    *(*TINY, "data.batch_size=15", "data.eval_batch_size=6", "data.val_images=31", "data.test_images=38"),
    *("trainer.max_epochs=3", "optim.schedule=plateau", "optim.patience=1", "optim.threshold=0.2", "model.dropout=0.3"),
    *("checkpoint.every_steps=3", "ablation=batch_norm_before", "trainer.devices=2"),
]
DDP, TOWERS = [*UNEVEN, "trainer.strategy=ddp"], [*UNEVEN, "trainer.strategy=towers"]


class Found(NamedTuple):
    alone: dict[str, Any]
    changed: dict[str, Any]  # begun with two devices that share batches, ended alone
    ranks: list[list[Any]]  # of each process: what each training left


@pytest.fixture(scope="module")
def found(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    torch.set_num_threads(1)
    folder, more = tmp_path_factory.mktemp("ranks"), [f"data.cache={cache}"]
    alone = [*UNEVEN, *more, "trainer.devices=1"]
    [whole, _] = trained([Training(alone, folder / "alone"), Training(alone, folder / "to ddp", 5)])
    ddp, towers = [*DDP, *more], [*TOWERS, *more]
    plan = [
        *(Training(ddp, folder / "ddp"), Training(towers, folder / "towers")),
        *(Training(ddp, folder / "to ddp"), Training(ddp, folder / "from ddp", 8)),
    ]
    by_rank = together(trained, plan)
    [changed] = trained([Training(alone, folder / "from ddp")])
    assert whole is not None
    assert changed is not None
    return Found(whole, changed, by_rank)


DDP_DONE, TOWERS_DONE, TO_DDP = 0, 1, 2


def same_but_for_rounding(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(one["rows"]) == len(other["rows"]) == 3
    for row, expected in zip(one["rows"], other["rows"], strict=True):
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), abs=2e-6), name
    for kind, values in other["log_probability"].items():
        assert one["log_probability"][kind] == pytest.approx(values, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("number", [DDP_DONE, TOWERS_DONE, TO_DDP])
def test_two_devices_give_what_one_gives(found: Found, number: int):
    """Rows and predictions, also of a run that was begun with one device."""
    for rank in found.ranks:
        same_but_for_rounding(rank[number], found.alone)


@pytest.mark.slow
def test_a_run_of_two_devices_goes_on_with_one(found: Found):
    same_but_for_rounding(found.changed, found.alone)


@pytest.mark.long
@pytest.mark.slow
def test_broken_off_and_taken_up_again_to_the_same_bits(found: Found, cache: Path, tmp_path: Path):
    """Within an epoch and at the end of one."""
    ddp, towers = ([*overrides, f"data.cache={cache}"] for overrides in (DDP, TOWERS))
    edge = [*ddp, "checkpoint.every_steps=4"]
    plan = [
        *(Training(ddp, tmp_path / "ddp", 8), Training(ddp, tmp_path / "ddp")),
        *(Training(towers, tmp_path / "towers", 8), Training(towers, tmp_path / "towers")),
        *(Training(edge, tmp_path / "edge", 6), Training(edge, tmp_path / "edge")),
    ]
    first = together(trained, plan)[0]
    for place, number in enumerate([DDP_DONE, TOWERS_DONE, DDP_DONE]):
        assert first[2 * place] is None
        undisturbed = found.ranks[0][number]
        assert undisturbed is not None
        for part, value in undisturbed["bits"].items():
            assert first[2 * place + 1]["bits"][part] == value, part


# By the command line


@pytest.fixture
def line(tmp_path: Path, cache: Path) -> list[str]:
    return [
        *(*TINY, f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"),
        *("trainer.max_epochs=8", "checkpoint.every_steps=1"),
    ]


def record_of(runs: Path) -> Path:
    [status] = runs.glob("*/status.json")
    return status.parent


def status_of(runs: Path) -> dict[str, Any]:
    return json.loads((record_of(runs) / "status.json").read_text())


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.processes
def test_a_sweep_trains_each_run_once(line: list[str], tmp_path: Path, typed: Typed):
    """One record a run, one W&B run, one log in which ranks are told apart; the same as one device's."""
    runs = tmp_path / "runs"
    sweep = [*line, "-m", "trainer=ddp2", "model.lrn=true,false", "trainer.max_epochs=2", "logger=wandb"]
    status, output = run(sweep, {"WANDB_MODE": "offline"})
    assert status == 0, output
    records = [path.parent for path in runs.glob("*/result.json")]
    assert len(records) == len(list(runs.glob("*/config.yaml"))) == 2
    for record in records:
        result = json.loads((record / "result.json").read_text())
        assert (result["attempt"], result["devices"], result["strategy"]) == (1, 2, "ddp")
        assert result["bytes_sent_per_step"] == bytes_sent(composed(TINY), 2)["ddp"]  # what DDP's buckets hold, counted
        assert [row["epoch"] for row in rows_of(record)] == ["1", "2"]
        [offline] = (record / "wandb").glob("offline-run-*/*.wandb")
        assert read_wandb(offline)["steps"] == [3, 6]
        log = (record / "train.log").read_text()
        assert "[rank 0] " in log
    assert len(re.findall(r"^run \d of 2: ", output, re.MULTILINE)) == 2
    assert "2 of 2 already done" in typed(*sweep).output
    assert typed(*line, f"paths.runs={tmp_path / 'one'}", "trainer.max_epochs=2").status == 0
    alone = record_of(tmp_path / "one")
    [mine] = [record for record in records if record.name == alone.name]
    for row, expected in zip(rows_of(mine), rows_of(alone), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(expected["train_loss"]), abs=2e-6)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.long
@pytest.mark.parametrize(("split", "victim"), [("ddp2", 1), ("towers2", 0)])
def test_a_rank_is_told_to_stop_or_dies(line: list[str], tmp_path: Path, split: str, victim: int, typed: Typed):
    """SIGKILL to one rank is a failure, SIGTERM to one stops all; the same line ends in the same bits."""
    runs = tmp_path / "runs"
    line = [*line, f"trainer={split}"]
    undisturbed = typed(*line, f"paths.runs={tmp_path / 'undisturbed'}")
    assert undisturbed.status == 0, undisturbed
    line = [*line, f"data.num_workers={victim}"]
    process = start(line)
    with halted(process, runs):
        pids, all_pids = trainers(process.pid), descendants(process.pid)  # with the loaders, where there are any
        assert len(pids) == 2
        os.kill(pids[victim], signal.SIGKILL)
    code, output = finish(process)
    assert code == 1, output
    status = status_of(runs)
    assert (status["state"], status["failure"]) == ("FAILED", "killed"), status
    assert "SIGKILL" in status["message"]
    until(lambda: not living(all_pids))

    if split == "ddp2":
        process = start(line)
        (record_of(runs) / "metrics.csv").unlink()  # so that a new row is waited for
        with halted(process, runs):
            os.kill(trainers(process.pid)[0], signal.SIGTERM)
        code, output = finish(process)
        assert code == 75, output
        assert status_of(runs)["state"] == "PREEMPTED"

    done = typed(*line)
    assert done.status == 0, done
    assert status_of(runs)["attempt"] == (3 if split == "ddp2" else 2)
    assert content(record_of(runs)) == content(record_of(tmp_path / "undisturbed"))


@pytest.mark.slow
@pytest.mark.processes
def test_the_command_is_stopped_and_goes_on_with_one_device(line: list[str], tmp_path: Path, typed: Typed):
    runs = tmp_path / "runs"
    process = start([*line, "trainer=towers2"])
    with halted(process, runs) as [last]:
        pids = trainers(process.pid)
        process.send_signal(signal.SIGTERM)
        until(lambda: is_sent(last, signal.SIGTERM), process)
    code, output = finish(process)
    assert code == 75, output
    assert status_of(runs)["state"] == "PREEMPTED"
    until(lambda: not living(pids))
    done = typed(*line)
    assert done.status == 0, done
    log = (record_of(runs) / "train.log").read_text()
    assert "the run resumes on one device instead of 2 x towers: equal up to rounding, not to the bit" in log


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.processes
def test_stopped_before_the_first_step(line: list[str], tmp_path: Path):
    """Where Lightning's own handler of SIGTERM waited for the other process."""
    process = start([*line, "trainer=ddp2", "trainer.max_epochs=2000"])
    until(lambda: len(trainers(process.pid)) == 2, process)
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    time.sleep(random.Random(seed).random())  # anywhere in their first second
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    assert status_of(tmp_path / "runs")["state"] == "PREEMPTED"


DISK_EXIT = next(code for code, failure in EXITS.items() if failure == "disk full")
TOLD = {"state": "FAILED", "failure": "disk full", "message": "no room", "hint": "make some"}
ECHO = {"is_echo": True, "status": {**TOLD, "failure": "error"}}


@pytest.mark.parametrize(
    ("before", "codes", "told", "expected"),
    [
        ("RUNNING", [DISK_EXIT, 1], {0: {"is_echo": False, "status": TOLD}, 1: ECHO}, ("disk full", "no room")),
        ("RUNNING", [DISK_EXIT, 1], {1: ECHO}, ("disk full", "no space left to write the status file")),
        ("FAILED", [0, 1], {0: ECHO, 1: {"is_echo": False, "status": TOLD}}, ("disk full", "rank 1: no room")),
        ("FAILED", [0, -9], {0: ECHO}, ("killed", "its process ended (SIGKILL)")),
        ("RUNNING", [256, -9], {}, ("killed", "its process ended (SIGKILL)")),
        ("RUNNING", [-9, 1], {1: ECHO}, ("killed", "its process ended (SIGKILL)")),
        ("FAILED", [0, 1], {0: {"is_echo": False, "status": TOLD}, 1: ECHO}, ("before", "before")),
        ("FAILED", [0, 1], {0: ECHO, 1: ECHO}, ("before", "before")),
    ],
)
def test_which_failure_counts(tmp_path: Path, before: str, codes: list[int], told: dict, expected: tuple[str, str]):
    record = Record(tmp_path, "0123456789ab")
    record.path.mkdir()
    record.begin("", {})
    record.set_status(before, failure="before", message="before")
    told = deepcopy(told)
    for status in (supervisor._settled(record, codes, told, Launch(tmp_path), False), record.status()):
        assert (status["state"], status["failure"], status["message"]) == ("FAILED", *expected)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]"),
            True,
        ),
        (dist.DistBackendError("NCCL error: remote process exited"), True),
        (dist.DistBackendError("NCCL error: out of memory"), False),
        (BadData("/images/igloo/3.jpg cannot be read"), False),
        (BrokenPipeError("Broken pipe"), False),
        (RuntimeError("a fault of /images/igloo"), False),
    ],
)
def test_what_is_an_echo(error: Exception, expected: bool):
    assert is_echo(error) is expected


@pytest.mark.slow
def test_what_a_rank_dies_of_is_told(line: list[str], tmp_path: Path, typed: Typed):
    """A damaged image in the second device's half of a batch: the file is named, not the connection that broke."""
    more = [f"data.cache={tmp_path / 'own'}", "data.format=jpeg", "trainer=ddp2"]
    data = build_datamodule(composed([*TINY, *more]))
    data.prepare_data()
    data.setup()
    split, path = data.split("train"), data.store.path
    place = int(TrainingBatches(split, data.store, composed([*TINY, *more])).images(0, 0)[-1])
    start_, length = np.load(path / "train_places.npy")[place]
    content = bytearray((path / "train.jpegs").read_bytes())
    content[start_ : start_ + length] = bytes(int(length))
    (path / "train.jpegs").write_bytes(content)
    assert typed(*line, *more).status == 1
    status = status_of(tmp_path / "runs")
    assert (status["state"], status["failure"]) == ("FAILED", "bad data"), status
    assert status["message"].startswith(f"rank 1: {path}/train.jpegs: image {place} cannot be read")
    assert "[rank 1] ERROR" in (record_of(tmp_path / "runs") / "train.log").read_text()


@pytest.mark.slow
def test_trials_of_both(line: list[str], tmp_path: Path, typed: Typed):
    done = typed(*line, "-m", "trainer=ddp2,towers2", "trainer.fast_dev_run=true")
    assert done.status == 0, done
    assert "2 of 2 ran one batch" in done.output
    assert not (tmp_path / "runs").exists()


def test_one_process_is_not_taken_for_two(tmp_path: Path, cache: Path):
    with pytest.raises(ConfigError, match=r"trainer.devices=2: this process trains with 1; src/train.py starts one"):
        fit(composed([*TINY, f"data.cache={cache}", "trainer=ddp2"]), tmp_path, "run")


def _on_gpus() -> float:
    """The sum over all processes' GPUs of their numbers from 1."""
    own = torch.tensor(distributed.rank() + 1.0, device=torch.device("cuda", distributed.rank()))
    return distributed.total(own).item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpus_find_each_other():
    """By NCCL, where CPU tensors go by gloo: as many as there are, also one alone."""
    count = torch.cuda.device_count()
    assert together(_on_gpus, count=count) == [count * (count + 1) / 2] * count


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs")
@pytest.mark.parametrize("split", ["ddp2", "towers2"])
def test_two_gpus_give_what_one_gives(line: list[str], tmp_path: Path, split: str):
    line = [word for word in line if word != "trainer.accelerator=cpu"]
    rows = []
    for trainer in ("one", split):
        status, output = run(
            [*line, f"paths.runs={tmp_path / trainer}", f"trainer={trainer}", "trainer.accelerator=gpu"]
        )
        assert status == 0, output
        rows.append(rows_of(record_of(tmp_path / trainer)))
    for one, two in zip(*rows, strict=True):
        assert float(two["train_loss"]) == pytest.approx(float(one["train_loss"]), abs=1e-4)
