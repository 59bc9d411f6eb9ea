"""Source files that are added, changed or removed after a store was made of them are noticed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from alexlab.cli.prepare import main
from alexlab.data.changes import describe_changes, input_states
from alexlab.data.store import class_difference, open_store
from support import source_files as raw
from support.source_files import WNIDS


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch):
    for name in ("alexlab.data.locate.cpu_count", "alexlab.cli.prepare.cpu_count"):
        monkeypatch.setattr(name, lambda: 1)


class Prepared:
    """A folder of class folders and the command that prepares it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = raw.class_folders(folder / "raw"), capsys
        self.line = ["data=folder", f"data.raw={self.root}", f"data.cache={folder / 'cache'}", "data.size=16"]

    def __call__(self, *options: str) -> str:
        self._capsys.readouterr()
        assert main([*self.line, *options]) == 0
        return " ".join(self._capsys.readouterr().out.split())

    @property
    def path(self) -> Path:
        return next(path.parent for path in self.root.parent.glob("cache/stores/*/manifest.json"))


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Prepared:
    found = Prepared(tmp_path, capsys)
    found()
    return found


def test_new_images_are_noticed_and_taken(prepare: Prepared):
    before = open_store(prepare.path).manifest
    assert "nothing to do" in prepare()
    raw.write_tree(prepare.root / "train" / WNIDS[0], {f"new{number}.JPEG": raw.photo(number) for number in range(37)})
    told = prepare()
    assert f"37 files are new (train/{WNIDS[0]}/new0.JPEG, train/{WNIDS[0]}/new1.JPEG, ...) since" in told
    assert "Add --refresh" in told
    assert "nothing to do" not in told
    assert open_store(prepare.path).manifest == before  # until it is asked for
    prepare("--refresh")
    after = open_store(prepare.path).manifest
    assert after["images"] == {"train": 49, "val": 5}
    assert "--refresh" not in prepare()
    assert [path.name for path in prepare.path.parent.iterdir() if path.is_dir()] == [prepare.path.name]


def test_changed_and_removed_images_are_noticed(prepare: Prepared):
    images = sorted((prepare.root / "train").rglob("*.JPEG"))
    images[0].write_bytes(raw.photo(99))
    os.utime(images[1], (1, 1))
    shutil.rmtree(prepare.root / "val" / WNIDS[0])
    told = prepare()
    assert "2 files changed (" in told
    assert "1 file is gone (val/" in told


def test_a_class_and_a_split_that_are_added(prepare: Prepared):
    raw.write_tree(prepare.root, {"train/z/1.jpg": raw.photo(1), f"test/{WNIDS[0]}/1.jpg": raw.photo(2)})
    assert f"2 files are new (test/{WNIDS[0]}/1.jpg, train/z/1.jpg)" in prepare()
    prepare("--refresh")
    assert open_store(prepare.path).manifest["images"] == {"train": 13, "val": 5, "test": 1}
    assert "z" in open_store(prepare.path).classes


def test_what_systems_add_is_no_change(prepare: Prepared):
    raw.write_tree(prepare.root / "train" / WNIDS[0], {".DS_Store": b"x", "Thumbs.db": b"x", "@eaDir/x.jpg": b"x"})
    assert "nothing to do" in prepare()


def test_without_changes_refresh_does_nothing(prepare: Prepared):
    before = (prepare.path / "manifest.json").stat().st_mtime_ns
    assert "nothing to do" in prepare("--refresh")
    assert (prepare.path / "manifest.json").stat().st_mtime_ns == before


def test_a_store_of_before_is_as_it_was(prepare: Prepared):
    """One without a list of source files has nothing to compare, and is made again only when that is asked for."""
    (prepare.path / "source_files.json").unlink()
    raw.write_tree(prepare.root / "train" / WNIDS[0], {"new.JPEG": raw.photo(1)})
    assert "nothing to do" in prepare()
    prepare("--refresh")
    assert open_store(prepare.path).manifest["images"]["train"] == 13


def test_a_format_is_kept(prepare: Prepared):
    shutil.rmtree(prepare.path)
    prepare("data.format=jpeg")
    raw.write_tree(prepare.root / "train" / WNIDS[0], {"new.JPEG": raw.photo(1)})
    prepare("--refresh")
    assert open_store(prepare.path).manifest["format"] == "jpeg"


def test_refresh_that_is_killed_between_its_renames(prepare: Prepared, monkeypatch: pytest.MonkeyPatch):
    raw.write_tree(prepare.root / "train" / WNIDS[0], {"new.JPEG": raw.photo(1)})
    path, rename = prepare.path, Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(".unfinished"):
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        assert main([*prepare.line, "--refresh"]) == 130
    assert not path.exists()
    prepare()
    assert open_store(path).manifest["images"]["train"] == 13
    assert not path.with_name(f"{path.name}.replaced").exists()


def test_a_damaged_or_strange_list_is_one_line(prepare: Prepared, capsys: pytest.CaptureFixture[str]):
    for text in ("", "[", "[" * 10**5, '{"x": 1}', '{"x": {"y": [1]}}', '{"x": {"y": [1, "2"]}}', "7"):
        (prepare.path / "source_files.json").write_text(text)
        capsys.readouterr()
        assert main(prepare.line) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_list_of_others_makes_nothing_be_read(prepare: Prepared, tmp_path: Path):
    """Only what lies in data.raw is looked at."""
    (tmp_path / "private").mkdir()
    (prepare.path / "source_files.json").write_text(json.dumps({str(tmp_path / "private"): {"x": [1, 2]}}))
    assert "nothing to do" in prepare()


def test_the_manifest_says_what_it_was_made_of(prepare: Prepared):
    found = open_store(prepare.path).manifest["source_files"]
    files = [path for path in prepare.root.rglob("*") if path.is_file()]
    assert (found["files"], found["bytes"]) == (len(files), sum(path.stat().st_size for path in files))


@pytest.mark.parametrize(
    ("make", "data", "added"),
    [
        (raw.imagenet_tars, "imagenet2012", None),
        (raw.imagenet2010_tars, "imagenet2010", "patch_images.tar"),
        (raw.parquet, "imagenet2012", "data/test-00001.parquet"),
        (raw.kaggle, "imagenet2012", "ILSVRC/Data/CLS-LOC/train/n00000001/x.JPEG"),
        (raw.cifar, "cifar10", None),
        (raw.imagenette, "imagenette", None),
        (raw.tiny_imagenet, "folder", "train/n00000001/images/x.JPEG"),
    ],
)
def test_every_layout_knows_its_files(tmp_path: Path, make, data: str, added: str | None):
    from alexlab.config import DataConfig, Dataset
    from alexlab.data.sources import recognise

    root = make(tmp_path / "raw")
    source = recognise(DataConfig(name=Dataset[data]), root, tmp_path / "scratch", 1)
    before = input_states(source.inputs)
    assert sum(len(files) for files in before.values()) > 0
    assert describe_changes(before) == ""
    if added:
        raw.write_tree(root, {added: b"x"})
        assert f"1 file is new ({Path(added).parts[-1] if added == 'patch_images.tar' else ''}" in describe_changes(
            before
        )
    path = next(Path(path) / name for path, files in before.items() for name in files)
    os.utime(path, (1, 1))
    assert "1 file changed" in describe_changes(before)
    shutil.rmtree(root)
    assert describe_changes(before) == ""  # a disk that is not mounted


def test_the_first_difference_of_classes():
    assert class_difference(["a", "b"], ["a", "b"]) == ""
    assert class_difference(["a", "b", "c"], ["b", "c", "d"]) == "class 0 is 'b', not 'a'"
    assert class_difference(["a", "b", "c"], ["a", "c", "b"]) == "class 1 is 'c', not 'b'"
    assert class_difference(["a", "b"], ["a", "b", "c"]) == "there are 3 classes, not 2"
