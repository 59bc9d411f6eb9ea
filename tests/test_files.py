"""Private folders: temporary ones that a kill leaves, and those whose files run code when they are read."""

from __future__ import annotations

import errno
import fcntl
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexlab.errors import UserError
from alexlab.files import make_private, process_folder, temporary_folder
from support.commands import begin, told


@pytest.fixture
def tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TMPDIR, empty, with a name that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="files", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def kill_with(code: str, tmpdir: Path) -> list[Path]:
    """What a process leaves in TMPDIR that is killed once it has done something."""
    process = begin(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\nimport time; time.sleep(600)"],
        {"TMPDIR": str(tmpdir), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    told(process, "ready")
    process.send_signal(signal.SIGKILL)
    process.wait()
    return list(tmpdir.iterdir())


class TestTemporaryFolders:
    def test_only_this_user_may_enter_and_it_is_gone_at_the_end(self, tmpdir: Path):
        with temporary_folder() as folder:
            assert folder.parent == tmpdir
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "x").touch()
        assert list(tmpdir.iterdir()) == []

    @pytest.mark.parametrize(
        "code",
        [
            "from alexlab.files import process_folder; (process_folder() / 'x').touch()",
            "from alexlab.runs.process import start_server; start_server('json')",
        ],
        ids=["folder", "sockets"],
    )
    def test_one_of_a_killed_process_is_removed_by_the_next(self, code: str, tmpdir: Path):
        """A killed command left its own folder and multiprocessing's `pymp-*`, for good."""
        assert kill_with(code, tmpdir)
        with temporary_folder() as folder:
            assert list(tmpdir.iterdir()) == [folder]

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_fork_does_not_remove_it(self, tmpdir: Path):
        """A forked worker of a loader forgot the finalizers, which ended the context: the sockets were gone."""
        folder = process_folder()
        child = multiprocessing.get_context("fork").Process(target=gc.collect)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert folder.is_dir()

    def test_a_living_one_and_those_of_others_stay(self, tmpdir: Path, monkeypatch: pytest.MonkeyPatch):
        """An older version's, a link, a file, another user's, and one that only resembles them, such as a clone."""
        living = process_folder()
        for name in ("alexlab-12345678", "pymp-x", "alexlab-tmp.abandone", "alexlab.git", "alexlab-tmp.of-mine"):
            (tmpdir / name).mkdir()
        (tmpdir / "alexlab-tmp.aaaafile").touch()
        (tmpdir / "alexlab-tmp.aaaalink").symlink_to(tmpdir / "pymp-x")
        before = set(tmpdir.iterdir())
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        with temporary_folder():
            pass
        assert set(tmpdir.iterdir()) == before
        monkeypatch.undo()
        monkeypatch.setattr(tempfile, "tempdir", str(tmpdir))
        with temporary_folder():
            pass
        assert set(tmpdir.iterdir()) == before - {tmpdir / "alexlab-tmp.abandone"}
        assert living in before

    def test_where_there_are_no_locks(self, tmpdir: Path, monkeypatch: pytest.MonkeyPatch):
        """Then nothing tells which are in use, so all of them stay."""

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSYS, "no locks here")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with temporary_folder() as one, temporary_folder() as other:
            assert set(tmpdir.iterdir()) == {one, other}
        assert list(tmpdir.iterdir()) == []

    def test_wandbs_folders_lie_in_it(self, tmpdir: Path):
        """It makes two when it is imported, which a worker process left in TMPDIR after every run."""
        code = "from alexlab.runs import process, wandb_copy; process.start_server('json'); wandb_copy.wandb_mode()"
        [folder] = kill_with(f"import os; os.environ['WANDB_MODE'] = 'offline'; {code}", tmpdir)
        names = {path.name for path in folder.iterdir()}
        assert sum(name.endswith(("wandb-media", "wandb-artifacts")) for name in names) == 2, names


class TestPrivateFolders:
    @pytest.fixture
    def runs(self, tmp_path: Path) -> Path:
        folder = tmp_path / "runs"
        folder.mkdir(mode=0o755)
        return folder

    def test_it_is_made_for_this_user_alone(self, runs: Path):
        folder = runs / "sweeps" / "0123456789ab.x" / "slurm"
        make_private(folder, runs)
        assert folder.stat().st_mode & 0o777 == 0o700
        make_private(folder, runs)

    @pytest.mark.parametrize("at", ["", "sweeps", "sweeps/x"])
    @pytest.mark.parametrize("mode", [0o777, 0o757])
    def test_where_others_may_write_it_is_refused(self, runs: Path, at: str, mode: int):
        """They could put a pickle of theirs in the place of a job's."""
        (runs / "sweeps" / "x").mkdir(parents=True)
        (runs / at).chmod(mode)
        with pytest.raises(UserError, match="other users may write there, so they could run code") as error:
            make_private(runs / "sweeps" / "x", runs)
        assert str(error.value).startswith(f"{runs / at}: ")

    def test_a_sticky_folder_lets_nobody_replace_what_is_in_it(self, runs: Path):
        """As /tmp; but not the folder itself, where others can still add files."""
        (runs / "sweeps" / "x").mkdir(parents=True)
        runs.chmod(0o1777)
        make_private(runs / "sweeps" / "x", runs)
        (runs / "sweeps" / "x").chmod(0o1777)
        with pytest.raises(UserError, match="other users may write"):
            make_private(runs / "sweeps" / "x", runs)

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user, which only root can")
    @pytest.mark.parametrize("at", ["", "sweeps", "sweeps/x"])
    def test_another_users_folder_is_refused(self, runs: Path, at: str):
        """Who foresees the name of a sweep's folder could make it first."""
        (runs / "sweeps" / "x").mkdir(parents=True)
        os.chown(runs / at, 1234, -1)
        with pytest.raises(UserError, match="user 1234 owns it"):
            make_private(runs / "sweeps" / "x", runs)

    def test_what_is_above_the_runs_is_not_looked_at(self, runs: Path):
        runs.parent.chmod(0o777)
        make_private(runs / "sweeps", runs)
