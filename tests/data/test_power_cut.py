"""A store and its copies survive a power cut at any moment, whatever the disk had not been told to keep."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from alexlab.data.build import build_store, unfinished
from alexlab.data.sources import source as listing
from alexlab.data.sources.folders import read_folders
from alexlab.data.store import find_corruption, open_store, staged
from support import source_files as raw

Tree = dict[str, bytes | None]  # {path: content; None: a folder}


class Disk:
    """What of a folder would be there after a power cut, by the calls that ask for it.

    By POSIX's rules a file's content is as it was when last synced, and a folder's names likewise. `trees` are the
    possible states before each call that changes something: with the names of that moment, which a journal keeps, or
    with the synced ones alone; `last` are those of the last moment.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.trees: list[Tree] = []
        self.last: list[Tree] = []
        self._names: dict[int, dict[str, int]] = {}  # of synced folders, by their inodes
        self._contents: dict[int, bytes] = {}  # of synced files
        self._open: dict[int, int] = {}  # every file stays open, so that no inode is used twice
        self._is_folder: dict[int, bool] = {}
        self._sync_folder(root)

    def _hold(self, path: str) -> int:
        inode = Path(path).stat().st_ino
        if inode not in self._open:
            self._open[inode] = os.open(path, os.O_RDONLY)
            self._is_folder[inode] = Path(path).is_dir()
        return inode

    def _listing(self, path: str) -> dict[str, int]:
        return {name: self._hold(f"{path}/{name}") for name in [entry.name for entry in Path(path).iterdir()]}

    def _sync_folder(self, path: Path | str) -> None:
        self._names[self._hold(str(path))] = self._listing(str(path))

    def sync(self, descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if not path.startswith(str(self._root)):
            return
        if Path(path).is_dir():
            self._sync_folder(path)
        else:
            self.sync_file(path)

    def sync_file(self, path: str) -> None:
        self._contents[self._hold(path)] = Path(path).read_bytes()

    def cut(self) -> None:
        """Add the trees of a power cut now."""
        current = {self._hold(folder): self._listing(folder) for folder, _, _ in os.walk(self._root)}
        top = self._hold(str(self._root))
        self.last = [{}, {}]
        for tree, names in zip(self.last, (self._names, current), strict=True):
            self._add(tree, "", top, names)
            if tree not in self.trees:
                self.trees.append(tree)

    def _add(self, tree: Tree, prefix: str, inode: int, names: dict[int, dict[str, int]]) -> None:
        for name, child in names.get(inode, {}).items():
            path = f"{prefix}{name}"
            if self._is_folder[child]:
                tree[path] = None
                self._add(tree, f"{path}/", child, names)
            else:
                tree[path] = self._contents.get(child, b"")

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


@contextmanager
def recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Record what the code asks of the disk below a folder."""
    disk = Disk(root)

    def cut_before(name: str) -> None:
        whole: Callable[..., object] = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            disk.cut()
            return whole(*args, **options)

        patch.setattr(os, name, call)

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "mkdir", "rmdir"):
            cut_before(name)
        fsync, flush = os.fsync, np.memmap.flush

        def sync(descriptor: int) -> None:
            fsync(descriptor)
            disk.sync(descriptor)
            disk.cut()

        def flush_map(self: np.memmap) -> None:
            flush(self)
            disk.sync_file(str(self.filename))

        patch.setattr(os, "fsync", sync)
        patch.setattr(np.memmap, "flush", flush_map)
        yield disk
        disk.cut()
    disk.close()


def restore(tree: Tree, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in tree.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_bytes(content)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "manifest.json"}


@pytest.mark.parametrize("kind", ["raw", pytest.param("jpeg", marks=pytest.mark.long)])
def test_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """After a power cut at any moment the same call gives the same bytes; once it returned, the store is there."""
    chunks = listing.chunks
    monkeypatch.setattr(listing, "chunks", lambda rows, size=6: chunks(rows, 6))
    source = read_folders(raw.class_folders(tmp_path / "raw"))
    disk_root = tmp_path / "disk"
    disk_root.mkdir()

    def build() -> None:
        path = disk_root / "cache" / "stores" / "store"
        if not (path / "manifest.json").exists():
            build_store(source, path, 8, "folder", kind, seconds_between_checkpoints=0.0)

    with recorded(disk_root, monkeypatch) as disk:
        build()
    store = disk_root / "cache" / "stores" / "store"
    expected = contents(store)
    assert len(disk.trees) > 20
    for tree in disk.trees:
        restore(tree, disk_root)
        if store.exists():
            assert find_corruption(store, 1) == []
        build()
        assert contents(store) == expected
        assert not unfinished(store).exists()


def test_a_store_is_there_when_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = read_folders(raw.class_folders(tmp_path / "raw"))
    (tmp_path / "disk").mkdir()
    with recorded(tmp_path / "disk", monkeypatch) as disk:
        build_store(source, tmp_path / "disk" / "stores" / "store", 8, "folder")
    for tree in disk.last:
        restore(tree, tmp_path / "after")
        open_store(tmp_path / "after" / "stores" / "store")


def test_a_staged_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build_store(read_folders(raw.class_folders(tmp_path / "raw")), tmp_path / "store", 8, "folder")
    monkeypatch.setattr("alexlab.data.store.cpu_count", lambda: 1)
    disk_root = tmp_path / "disk"
    disk_root.mkdir()
    with recorded(disk_root, monkeypatch) as disk:
        staged(tmp_path / "store", disk_root / "stage")
    for tree in disk.trees:
        restore(tree, disk_root)
        copy = staged(tmp_path / "store", disk_root / "stage")
        assert find_corruption(copy, 1) == []
        assert contents(copy) == contents(tmp_path / "store")
    for tree in disk.last:
        restore(tree, disk_root)
        (copy,) = (path.parent for path in (disk_root / "stage").glob("store-*/manifest.json"))
        assert find_corruption(copy, 1) == []


def test_drawn_images_that_a_power_cut_emptied_are_drawn_again(tiny: list[str], tmp_path: Path):
    from alexlab.config import load
    from alexlab.data.locate import _files, prepare

    data = load([*tiny, f"data.cache={tmp_path}"]).data
    whole = prepare(data)
    shutil.rmtree(whole.path)
    for path in list(_files(data).rglob("*.jpg"))[:5] + list(_files(data).rglob("*.png"))[:5]:
        path.write_bytes(b"")
    assert prepare(data).manifest["hash"] == whole.manifest["hash"]
