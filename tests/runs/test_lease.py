"""One process at a time works on a run, without locks, also where an owner dies, sleeps or lives elsewhere."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alexlab.runs import lease
from alexlab.runs.lease import EXPIRY, LeaseLost, holder, take
from alexlab.runs.record import RUNNING, Record
from support.commands import until


def age(path: Path, seconds: float) -> None:
    touched = path.stat().st_mtime - seconds
    os.utime(path, (touched, touched))


def elsewhere(path: Path) -> None:
    """Let a lease be another machine's, whose processes cannot be seen."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "other boot", "host": "other", "pid": 1}))


def test_one_owner_until_it_gives_up(tmp_path: Path):
    mine = take(tmp_path / "run")
    assert mine is not None
    assert holder(mine.folder) is not None
    assert take(mine.folder) is None
    mine.check()
    mine.release()
    assert holder(mine.folder) is None
    assert list(mine.folder.iterdir()) == []
    assert take(mine.folder) is not None


def test_a_dead_owner_is_followed_at_once(tmp_path: Path):
    code = f"from pathlib import Path; from alexlab.runs.lease import take; take(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "claim.1").exists()
    assert holder(tmp_path) is None
    mine = take(tmp_path)
    assert mine is not None
    assert [path.name for path in tmp_path.iterdir()] == ["claim.2"]


def test_a_later_process_of_the_same_id_is_not_the_owner(tmp_path: Path):
    mine = take(tmp_path)
    assert mine is not None
    content = json.loads(mine.path.read_text())
    assert content["pid"] == os.getpid()
    mine.path.write_text(json.dumps({**content, "began": "1"}))
    assert holder(tmp_path) is None


def test_another_machines_owner_is_followed_once_it_is_silent(tmp_path: Path):
    theirs = take(tmp_path)
    assert theirs is not None
    elsewhere(theirs.path)
    assert holder(tmp_path) == "other, process 1"
    age(theirs.path, EXPIRY - 20)
    assert take(tmp_path) is None
    age(theirs.path, 40)
    assert take(tmp_path) is not None


def test_silence_is_measured_by_the_file_systems_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine whose clock is a day off, to either side, sees the owner live."""
    theirs = take(tmp_path)
    assert theirs is not None
    elsewhere(theirs.path)
    now = time.time
    for hours in (-24, 24):
        monkeypatch.setattr(time, "time", lambda shift=hours: now() + 3600 * shift)
        assert take(tmp_path) is None


def test_a_paused_owner_that_wakes_writes_no_more(tmp_path: Path):
    first = take(tmp_path / "0123456789ab")
    assert first is not None
    record = Record(tmp_path, "0123456789ab", first)
    record.begin("", {})
    age(first.path, EXPIRY + 20)  # it slept
    second = take(first.folder)
    assert second is not None
    with pytest.raises(LeaseLost, match="0123456789ab was taken over"):
        record.set_status("DONE")
    with pytest.raises(LeaseLost):
        first.check()
    assert record.status()["state"] == RUNNING
    first.release()  # nothing of the other's
    second.check()


def test_an_owner_that_works_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)
    mine = take(tmp_path)
    assert mine is not None
    age(mine.path, 1000)
    with mine.heartbeat():
        until(lambda: holder(tmp_path))
    age(mine.path, 1000)
    assert holder(tmp_path) is None


def test_of_many_that_come_at_once_one_is_the_owner(tmp_path: Path):
    """Over and over: once an owner has written, none that came before it does."""
    written: list[int] = []
    failures: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        for _ in range(60):
            mine = take(tmp_path, max(written, default=0))
            if mine is None:
                continue
            try:
                for _ in range(3):
                    with lock:
                        mine.check()
                        written.append(mine.number)
                    time.sleep(0.001)
                mine.release()
            except LeaseLost:
                pass
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in set(written):  # whoever writes goes on alone
        first, last = written.index(number), len(written) - written[::-1].index(number)
        assert set(written[first:last]) == {number}
    assert len(set(written)) >= 3


def test_an_owner_that_cannot_read_its_lease_has_not_lost_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As where a network's disk does not answer for a moment."""
    mine = take(tmp_path)
    assert mine is not None
    with monkeypatch.context() as context:
        context.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(OSError, match="I/O error"):
            mine.check()
    mine.check()


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSPC])
def test_a_lease_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int):
    """Without links there is another way; without room there is no lease, and nobody is locked out."""
    with monkeypatch.context() as context:
        if error == errno.EPERM:
            context.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(error, "no links here")))
            mine = take(tmp_path)
            assert mine is not None
            mine.check()
            assert take(tmp_path) is None
            mine.release()
        else:
            context.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(error, "No space left")))
            with pytest.raises(OSError, match="No space left"):
                take(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert holder(tmp_path) is None


def test_a_lease_of_the_future_expires_too(tmp_path: Path):
    """The file server's clock was put back; its owner, on another machine, is gone."""
    theirs = take(tmp_path)
    assert theirs is not None
    elsewhere(theirs.path)
    age(theirs.path, 20 - EXPIRY)
    assert take(tmp_path) is None
    age(theirs.path, -40)
    assert take(tmp_path) is not None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        *(json.dumps({"machine": lease.machine(), "pid": pid}) for pid in (None, "1", 2**70)),
    ],
    ids=lambda content: content[:20],
)
def test_a_corrupt_lease_is_held_until_it_expires(tmp_path: Path, content: str):
    path = tmp_path / "claim.1"
    path.write_text(content)
    assert holder(tmp_path) is not None
    assert take(tmp_path) is None
    age(path, EXPIRY + 20)
    assert holder(tmp_path) is None
    assert take(tmp_path) is not None


def test_a_pipe_in_a_leases_place_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "claim.1")
    assert holder(tmp_path) is not None


def test_a_number_beyond_reason_is_no_lease(tmp_path: Path):
    (tmp_path / f"claim.{10**50}").touch()
    mine = take(tmp_path)
    assert mine is not None
    assert mine.number == 1
