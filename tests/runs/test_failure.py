"""Runs that fail say how, keep what they have, and are taken up again or left as what failed them asks for."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from alexlab.compose import to_yaml
from alexlab.config import Config, ConfigError, Retry
from alexlab.data import build_datamodule, limits
from alexlab.data.sampling import image_order
from alexlab.data.store import BadData
from alexlab.files import open_atomic
from alexlab.models import build_model
from alexlab.runs import failure, supervisor, worker
from alexlab.runs.failure import failure_of, is_retried, message_of
from alexlab.runs.lease import Lease, take
from alexlab.runs.record import DONE, FAILED, PREEMPTED, RUNNING, Record
from alexlab.runs.supervisor import needs_work
from alexlab.training import checkpoint, preemption
from alexlab.training import module as training_module
from alexlab.training.checkpoint import DoesNotLearn, States
from alexlab.training.module import ClassificationTask, Diverged
from alexlab.training.weights import load_weights
from support.commands import TRAIN, begin, finish
from support.interrupted import raise_at
from support.records import content
from support.settings import TINY, composed


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)


def attempt(config: Config, name: str = "0123456789ab") -> Record:
    """One more attempt of a run, in this process."""
    record = Record(config.paths.runs, name)
    record.path.mkdir(parents=True, exist_ok=True)
    record.begin(to_yaml(config), {})
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    with suppress(SystemExit):
        worker.train(record.path, "run", config)
    for number, handler in handlers.items():  # of the fixtures that all tests share, too
        signal.signal(number, handler)
    return record


def states(record: Record) -> list[Path]:
    return sorted(record.file("checkpoints").glob("0*-*.ckpt"))


@pytest.fixture(scope="module")
def undisturbed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)  # as for the tests: sums in another order have other last bits
    config = composed([*TINY, f"data.cache={cache}", f"paths.runs={runs}", "trainer.max_epochs=3"])
    return content(attempt(config).path)


@pytest.fixture
def config(tiny: list[str]) -> Config:
    return composed([*tiny, "trainer.max_epochs=3", "checkpoint.every_steps=1"])


def same(record: Record, undisturbed: dict[str, Any]) -> None:
    assert record.status()["state"] == DONE, record.status()
    found = content(record.path)
    for name, value in undisturbed.items():
        assert name == "run_id" or found[name] == value, name


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of memory"),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"), "no shared memory"),
        (RuntimeError("unable to write to file </torch_7_8_9>: No space left on device (28)"), "no shared memory"),
        (RuntimeError("unable to open shared memory object </torch_7>: Too many open files"), "too many open files"),
        (RuntimeError("received 0 items of ancdata"), "too many open files"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 361 vs 331"), "disk full"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "killed"),
        (BadData("train.jpegs: image 5"), "bad data"),
        (Diverged("x"), "diverged"),
        (DoesNotLearn("x"), "does not learn"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error"),
        (ZeroDivisionError("division by zero"), "error"),
        (ConfigError("trainer.precision=tf32-true: not on this device"), "configuration"),
        (ModuleNotFoundError("No module named 'triton'"), "configuration"),
        (MisconfigurationException("No supported gpu backend found!"), "configuration"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_classes(error: BaseException, wanted: str):
    assert failure_of(error) == wanted
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = error
    assert failure_of(wrapped) == wanted
    assert "\n" not in message_of(error)
    assert failure.HINTS[wanted]


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(errno.EIO, "error"), (errno.ESTALE, "error"), (errno.EROFS, "error"), (errno.ENOSPC, "disk full")],
)
def test_a_write_that_fails_has_its_own_cause(number: int, wanted: str):
    """Whatever it was, torch says of it that its archive has an unexpected position, as on a full disk."""
    error = OSError(number, os.strerror(number))
    error.__cause__ = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 361 vs 331")
    assert failure_of(error) == wanted
    assert message_of(error) == f"OSError: [Errno {number}] {os.strerror(number)}"


def test_a_loaders_process_that_the_kernel_killed_for_memory():
    assert failure_of(RuntimeError("DataLoader worker (pid 7) exited unexpectedly"), oom_kills=1) == "out of memory"


def test_what_fails_again_is_not_to_be_run_again():
    assert "again to" not in failure.HINTS["configuration"]
    assert "fix" in failure.HINTS["configuration"]
    assert is_retried("configuration", Retry.faults)  # once it is fixed


def test_an_error_after_a_failed_import_is_not_the_imports():
    """As where a package is optional."""
    error = ZeroDivisionError()
    error.__context__ = ImportError("no such package")
    assert failure_of(error) == "error"


def test_a_loaders_error_is_told_by_its_last_line():
    text = 'Caught BadData in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "x"\n'
    assert message_of(BadData(f"{text}alexlab.data.store.BadData: a.npy: image 3 is bad")) == "a.npy: image 3 is bad"


@pytest.mark.parametrize(
    ("name", "retry", "is_tried"),
    [
        *((name, Retry.faults, name not in ("diverged", "does not learn")) for name in failure.HINTS),
        *((name, Retry.all, True) for name in failure.HINTS),
        *((name, Retry.none, False) for name in failure.HINTS),
    ],
)
def test_what_is_tried_again(name: str, retry: Retry, is_tried: bool):
    assert is_retried(name, retry) is is_tried
    status = {"state": FAILED, "failure": name, "attempt": 3}
    assert needs_work(status, retry, 3) is is_tried
    for before in (0, 2):
        assert not needs_work(status, retry, before)  # it had its turn since this command began
    for state, wanted in ((DONE, False), (PREEMPTED, True), (RUNNING, True)):
        assert needs_work({"state": state, "attempt": 3}, retry, 1) is wanted
    assert needs_work({}, retry, 0)


class TestDiverged:
    @pytest.fixture(params=["loss", "gradient"])
    def diverged(self, request: pytest.FixtureRequest, tiny, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Record]:
        """A run whose fifth step, the second of its second epoch, gives no number."""
        config = composed([*tiny, "trainer.max_epochs=3", "checkpoint.every_steps=1", "evaluate.checkpoint=best"])
        calls = [0]
        cross_entropy = torch.nn.functional.cross_entropy

        def spoiled(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            calls[0] += logits.requires_grad
            loss = cross_entropy(logits, labels)
            return loss * float("nan") if calls[0] == 5 and logits.requires_grad else loss

        def spoil(module: ClassificationTask) -> None:
            calls[0] += 1
            if calls[0] == 5:
                bias = module.network.get_submodule("conv3").bias
                assert isinstance(bias, torch.Tensor)
                assert bias.grad is not None
                bias.grad[0] = float("inf")

        with monkeypatch.context() as context:
            if request.param == "loss":
                context.setattr(training_module.F, "cross_entropy", spoiled)
            else:
                context.setattr(ClassificationTask, "on_after_backward", spoil)
            record = attempt(config)
        status = record.status()
        assert (status["state"], status["failure"]) == (FAILED, "diverged"), status
        what = "the loss is nan" if request.param == "loss" else "the gradient of conv3.bias is not finite"
        assert status["message"] == f"{what} at step 2 of epoch 2, before its update"
        return config, record

    def test_the_batch_is_kept_and_nothing_has_spread(self, diverged):
        config, record = diverged
        where = record.read("diverged.json")
        assert (where["epoch"], where["step"]) == (2, 2)
        order = image_order(config.data.seed, 1, 60)
        assert where["images"] == order[20:40].tolist()
        last = torch.load(states(record)[-1])
        assert last["global_step"] == 4
        assert all(value.isfinite().all() for value in last["state_dict"].values())
        assert last["callbacks"]["Recorder"]["best"]["epoch"] == 1
        assert not record.file("result.json").exists()
        assert not record.file("checkpoints/best.ckpt").exists()

    def test_it_is_a_result_unless_all_are_to_be_tried_again(self, diverged, tmp_path):
        config, record = diverged
        config.retry = Retry.faults
        assert not needs_work(record.status(), config.retry)
        record.forget()
        assert states(record) == []
        assert record.status()["attempt"] == 1


def test_a_net_that_does_not_learn(tiny, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHANCE_STEPS", 9)
    guessing = [*tiny, "optim.lr=1e-9", "model.init_last_std=1e-4", "trainer.max_epochs=5"]
    record = attempt(composed(guessing))
    status = record.status()
    assert (status["state"], status["failure"]) == (FAILED, "does not learn")
    assert status["message"].startswith(
        "after 3 epochs the training loss is 2.303, no better than guessing among 10 classes"
    )
    assert len(record.file("metrics.csv").read_text().splitlines()) == 4
    again = attempt(composed([*guessing, "trainer.chance_epochs=null", "retry=all"]))
    assert again.status()["state"] == DONE
    assert len(again.file("metrics.csv").read_text().splitlines()) == 6
    other = attempt(composed([*guessing, "trainer.chance_epochs=null"]), "never")
    assert content(other.path)["metrics.csv"] == content(again.path)["metrics.csv"]


class TestDamagedStates:
    @pytest.fixture
    def stopped(self, config: Config, monkeypatch) -> Record:
        with monkeypatch.context() as context:
            raise_at(context, ClassificationTask, "training_step", 6, MemoryError())
            record = attempt(config)
        assert record.status()["failure"] == "out of memory"
        assert [int(path.name.split("-")[0]) for path in states(record)] == [4, 5]
        return record

    @pytest.mark.parametrize("how", ["a byte", "cut short", "empty"])
    def test_the_one_before_is_taken(self, stopped, config, undisturbed, capsys, how):
        newest = states(stopped)[-1]
        whole = newest.read_bytes()
        middle = len(whole) // 2
        changed = {"a byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "empty": b""}
        newest.write_bytes(changed.get(how, whole[:middle]))
        same(attempt(config), undisturbed)
        assert sorted(path.name for path in stopped.file("checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
        told = capsys.readouterr().out
        assert told.count("is corrupt; the run resumes from the previous checkpoint") == 1
        assert str(newest) in told

    def test_it_does_not_count_among_the_two_that_are_kept(self, stopped, config, monkeypatch):
        newest = states(stopped)[-1]
        newest.write_bytes(b"nothing")
        newest.rename(newest.with_name("00000099-0123456789abcdef.ckpt"))  # of long behind what is to come
        with monkeypatch.context() as context:
            raise_at(context, ClassificationTask, "training_step", 4, MemoryError())
            attempt(config)
        assert [int(path.name.split("-")[0]) for path in states(stopped)] == [6, 7]
        assert len(list(stopped.file("checkpoints").glob("*.damaged"))) == 1

    def test_none_that_is_whole(self, stopped, config, undisturbed, capsys):
        for path in states(stopped):
            path.write_bytes(b"nothing")
        same(attempt(config), undisturbed)
        assert capsys.readouterr().out.count("is corrupt") == 2

    def test_a_half_written_one_is_none(self, stopped, config, undisturbed, capsys):
        ending = f"{uuid.uuid4().hex}.tmp"
        halves = [states(stopped)[-1].parent / f".00000009.{ending}", stopped.file(f".status.json.{ending}")]
        others = [stopped.file(".netrc"), stopped.file(".mine.tmp"), stopped.file("checkpoints") / ".bashrc"]
        for file in halves + others:
            file.write_bytes(b"half")
        same(attempt(config), undisturbed)
        assert "corrupt" not in capsys.readouterr().out
        assert not any(half.exists() for half in halves)
        assert all(other.exists() for other in others)  # no names of ours

    def test_it_opens_with_torchs_safe_default(self, stopped, config):
        content = torch.load(states(stopped)[-1])
        assert content["place"] == {"epoch": 1, "step": 2, "steps": 3}
        composed([f"weights={states(stopped)[-1]}"])  # its name needs no quotes
        network = build_model(config)
        load_weights(network, str(states(stopped)[-1]), fresh_last=False)
        for name, value in network.state_dict().items():
            assert torch.equal(value, content["state_dict"][f"network.{name}"]), name


_writes = [0]


@contextmanager
def failing(path: Path, check: Callable[[], None], number: int, error: Exception) -> Iterator[Any]:
    """A file of which one write fails, as numbered over all files."""
    with open_atomic(path, check) as temporary:
        write = temporary.file.write

        def counted(data: bytes) -> int:
            _writes[0] += 1
            if _writes[0] == number:
                raise error
            return write(data)

        whole, temporary.file = temporary.file, SimpleNamespace(write=counted)  # pyright: ignore[reportAttributeAccessIssue]
        yield temporary
        temporary.file = whole


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
        (OSError(errno.EIO, "Input/output error"), "error"),
        (PermissionError(errno.EACCES, "Permission denied"), "error"),
        (MemoryError(), "out of memory"),
    ],
    ids=["full", "I/O error", "not writable", "memory"],
)
def test_a_save_that_fails_loses_nothing_saved(config, undisturbed, monkeypatch, error, wanted):
    _writes[0] = 0
    with monkeypatch.context() as context:
        context.setattr(checkpoint, "open_atomic", lambda path, check: failing(path, check, 400, error))
        record = attempt(config)
    assert record.status()["failure"] == wanted, record.status()
    assert states(record)
    assert [path.name for path in record.file("checkpoints").iterdir() if path.name.startswith(".")] == []
    same(attempt(config), undisturbed)


def test_no_room_even_for_the_status(config, undisturbed, monkeypatch):
    """The exit code says it then."""
    with monkeypatch.context() as context:
        raise_at(context, States, "save_checkpoint", 4, OSError(errno.ENOSPC, "No space left on device"))
        record = Record(config.paths.runs, "0123456789ab")
        record.path.mkdir(parents=True)
        record.begin(to_yaml(config), {})
        context.setattr(Record, "set_status", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(SystemExit) as ended:
            worker.train(record.path, "run", config)
    assert isinstance(ended.value.code, int)
    status = supervisor._ended(record, ended.value.code, is_stopped=False, is_memory=False)
    assert (status["state"], status["failure"]) == (FAILED, "disk full")
    same(attempt(config), undisturbed)


@pytest.mark.parametrize("state", [RUNNING, DONE])
def test_taken_over_while_a_state_is_written(config, monkeypatch, state):
    """Its half is gone then, which is no failure; and none of the record is this process's any more."""
    folder, left = Path(config.paths.runs) / "0123456789ab", {}
    mine = take(folder)
    Record(folder.parent, folder.name, mine).begin(to_yaml(config), {})

    def files() -> dict[Path, tuple[bytes, int]]:
        found = (path for path in folder.rglob("*") if path.is_file() and path.name != "train.log")
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    def falls_asleep(lease: Lease) -> None:
        check(lease)
        if lease is mine and not left and list(folder.glob("checkpoints/.*")):
            os.utime(lease.path, (0, 0))
            other = Record(folder.parent, folder.name, take(folder))
            other.begin(to_yaml(config), {})
            other.set_status(state)
            left.update(files())

    check = Lease.check
    monkeypatch.setattr(Lease, "check", falls_asleep)
    worker.train(folder, "run", config, mine)
    assert left
    assert files() == left
    log = (folder / "train.log").read_text()
    assert "0123456789ab was taken over by another process; this process ends and writes nothing" in log
    assert "the run failed" not in log


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 KB, which root alone can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full(tiny, undisturbed, small_disk, capsys):
    """States take 180 KB each, and two with a half of a third do not fit beside what fills the rest."""
    (small_disk / "filler").write_bytes(bytes(250_000))
    config = composed([*tiny, "trainer.max_epochs=3", "checkpoint.every_steps=1", f"paths.runs={small_disk}"])
    record = attempt(config)
    status = record.status()
    assert (status["state"], status["failure"]) == (FAILED, "disk full"), status
    assert "free disk space" in status["hint"]
    assert states(record)
    (small_disk / "filler").unlink()
    same(attempt(config), undisturbed)


class TestLimits:
    """What a container may have little of: shared memory and open files."""

    def test_shared_memory_is_looked_at_before_a_run(self, tiny, small_disk, monkeypatch):
        monkeypatch.setattr(limits, "SHARED", small_disk)
        status = attempt(composed([*tiny, "data.num_workers=4"])).status()
        assert (status["state"], status["failure"]) == (FAILED, "no shared memory"), status
        told = f"data.num_workers=4: batches need 26.1 MB of shared memory, {small_disk} has 0.7 MB free"
        assert status["message"] == told  # 12 batches, of the 60 images that are evaluated at a time
        assert "--ipc=host" in status["hint"]

    @pytest.mark.long
    @pytest.mark.slow
    @pytest.mark.processes
    def test_without_shared_memory_no_batch_is_waited_for(self, tiny):
        """Where it is used up later: the loader's process says so, and does not lose the batch."""
        code = (
            "import sys, alexlab.data.datamodule as module\n"
            "from alexlab.config import load\n"
            "from alexlab.runs.failure import failure_of\n"
            "module.check_shared_memory = lambda *_: None\n"
            "data = module.StoreDataModule(load(sys.argv[1:]))\n"
            "data.setup()\n"
            "try:\n    list(data.evaluation_dataloader('train'))\n"
            "except RuntimeError as error:\n    print(failure_of(error))\n"
        )
        small = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 9; exec "$@"',
            "sh",
        ]
        line = [*small, sys.executable, "-c", code, *tiny, "data.num_workers=1"]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode == 9 or "unshare failed" in done.stderr:
            pytest.skip("no right to mount a small /dev/shm")
        assert done.stdout.splitlines()[-1] == "no shared memory", done.stdout + done.stderr

    @pytest.mark.long
    @pytest.mark.slow
    @pytest.mark.processes
    def test_too_few_open_files(self, tiny):
        line = [*TRAIN, *tiny, "data.num_workers=4"]
        status, output = finish(begin(["bash", "-c", 'ulimit -n 128 && exec "$@"', "bash", *line]))
        assert status == 1, output
        told = "FAILED (too many open files): data.num_workers=4: needs 148 open files, `ulimit -n` allows 128\n"
        assert f"{told}  raise the limit with `ulimit -n 4096` or docker run --ulimit nofile=65536:65536" in output

    def test_the_limit_is_raised_where_it_may_be(self):
        soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 112:
            pytest.skip("the limit may not be raised here")
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 100), hard))
            limits.allow_open_files(1)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (112, hard)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestBadData:
    @pytest.fixture
    def store(self, tiny: list[str], tmp_path: Path) -> tuple[list[str], Path]:
        """A jpeg store of this test's own."""
        overrides = [*tiny, f"data.cache={tmp_path / 'own'}", "data.format=jpeg"]
        data = build_datamodule(composed(overrides))
        data.prepare_data()
        data.setup()
        return overrides, data.store.path

    @pytest.mark.parametrize("workers", [0, 1])
    def test_file_and_image_are_named(self, store, workers):
        overrides, path = store
        start, length = np.load(path / "train_places.npy")[17]
        content = bytearray((path / "train.jpegs").read_bytes())
        content[start : start + length] = bytes(int(length))
        (path / "train.jpegs").write_bytes(content)
        record = attempt(composed([*overrides, f"data.num_workers={workers}"]))
        status = record.status()
        assert (status["state"], status["failure"]) == (FAILED, "bad data"), status
        assert status["message"].startswith(f"{path}/train.jpegs: image 17 cannot be read")
        assert "`alexlab prepare check`" in status["hint"]

    def test_of_a_raw_store_that_is_cut_short(self, store):
        overrides, _ = store
        overrides = [*overrides, "data.format=raw"]
        data = build_datamodule(composed(overrides))
        data.prepare_data()
        data.setup()
        file = data.store.path / "train.npy"
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size // 2)
        status = attempt(composed(overrides)).status()
        assert (status["state"], status["failure"]) == (FAILED, "bad data"), status
        assert f"{data.store.path} is corrupt (train.npy cannot be read (it is truncated))" in status["message"]


@pytest.mark.slow
@pytest.mark.processes
def test_a_child_that_the_kernel_kills_for_memory(tmp_path: Path, cache: Path):
    group = Path("/sys/fs/cgroup/memory") / f"alexlab-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("1G")
    except OSError:
        pytest.skip("no right to make a control group of version 1")
    line = [
        *TINY,
        "model.hidden=16384",
        "model.hidden_width=1",
        f"data.cache={cache}",
        f"paths.runs={tmp_path}",
    ]  # fc7 alone has 1 GiB
    try:
        inside = ["bash", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "bash"]
        process = begin([*inside, *TRAIN, *line])
        status, output = finish(process)
    finally:
        with suppress(OSError):
            group.rmdir()
    assert status == 1, output
    assert "FAILED (out of memory): the kernel killed its process" in output


def test_a_killed_child_is_out_of_memory_where_the_kernel_says_so(config, monkeypatch):
    """By the count of such kills; without one it was killed by somebody else."""
    record = Record(config.paths.runs, "0123456789ab")
    record.path.mkdir(parents=True)
    record.begin(to_yaml(config), {})
    status = supervisor._ended(record, -signal.SIGKILL, is_stopped=False, is_memory=True)
    assert status["failure"] == "out of memory"
    assert status["message"] == "the kernel killed its process because memory ran out"
    assert supervisor._ended(record, 255, False, True)["failure"] == "out of memory"  # multiprocessing's server was
    assert supervisor._ended(record, -signal.SIGKILL, False, False)["failure"] == "killed"
    assert supervisor._ended(record, -signal.SIGSEGV, False, True)["failure"] == "error"
    assert supervisor._ended(record, -signal.SIGKILL, True, False)["state"] == PREEMPTED
    assert failure.oom_kills() >= 0
