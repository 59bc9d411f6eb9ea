"""Bundles: a folder's plans and records as one file, without a path of the machine, and nothing else out of one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from alexlab.cli import report
from alexlab.cli import runs as runs_command
from alexlab.compose import read_config
from alexlab.errors import UserError
from alexlab.runs.bundle import opened, pack
from alexlab.runs.identity import run_id
from support.studies import made_study

HOME = "/home/somebody"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's records, made where a user's folders are in them, and what a bundle leaves out."""
    folder = tmp_path_factory.mktemp("runs")
    made_study(
        folder, ["study=lrn", "study.seeds=3", f"data.stage={HOME}/stage", f"data.cache={HOME}/cache"], images=200
    )
    for record in folder.glob("*/status.json"):
        (record.parent / "train.log").write_text(f"{HOME}/log")
        (record.parent / "train_error.csv").write_text("epoch,step,train_top1_error\n0.25,3,0.5\n")  # figure 1's
        (record.parent / "neighbours.json").write_text('{"precision": {"layer": 0.5, "pixels": 0.25}}\n')
        (record.parent / "checkpoints").mkdir()
        (record.parent / "checkpoints" / "last.ckpt").write_text("weights")
    return folder


def ids(runs: Path) -> list[str]:
    return [path.parent.name for path in sorted(runs.glob("*/status.json"))]


def test_what_comes_out_is_what_went_in(runs: Path, tmp_path: Path):
    pack(tmp_path / "b.zip", runs, ids(runs))
    folder = opened(tmp_path / "b.zip")
    assert ids(folder) == ids(runs)
    for name in ids(runs):
        found = {path.name for path in (folder / name).iterdir()}
        assert found == {path.name for path in (runs / name).iterdir()} - {"train.log", "checkpoints"}
        for file in found - {"config.yaml"}:
            assert (folder / name / file).read_bytes() == (runs / name / file).read_bytes()
        assert run_id(read_config(folder / name / "config.yaml", stored=False)) == name
    everything = b"".join(path.read_bytes() for path in folder.rglob("*.*") if path.is_file())
    assert HOME.encode() not in everything
    assert str(runs).encode() not in everything


def test_the_same_records_give_the_same_bytes(runs: Path, tmp_path: Path):
    pack(tmp_path / "1.zip", runs, ids(runs))
    pack(tmp_path / "2.zip", opened(tmp_path / "1.zip"), list(reversed(ids(runs))))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_a_report_reads_it_as_it_reads_the_folder(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "100")
    assert runs_command.main(["bundle", str(tmp_path / "lrn.zip"), f"paths.runs={runs}"]) == 0
    assert "runs in" in capsys.readouterr().out
    for place, out in ((runs, "folder"), (tmp_path / "lrn.zip", "file")):
        assert report.main([f"runs={place}", f"out={tmp_path / out}"]) == 0
    found = {path.relative_to(tmp_path / "folder") for path in (tmp_path / "folder").rglob("*") if path.is_file()}
    assert Path("claims.csv") in {path.relative_to(path.parts[0]) for path in found}
    for path in found:
        if path.suffix in (".csv", ".png"):
            assert (tmp_path / "file" / path).read_bytes() == (tmp_path / "folder" / path).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../out.json",
        "/tmp/out.json",
        "0123456789ab/../../out.json",
        "0123456789ab/last.ckpt",
        "notes.txt",
        "studies/x.py",
    ],
)
def test_nothing_else_is_unpacked(name: str, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(UserError, match=r"b\.zip: holds .*, which no bundle does"):
        opened(tmp_path / "b.zip")


def test_a_damaged_file(runs: Path, tmp_path: Path):
    pack(tmp_path / "b.zip", runs, ids(runs))
    whole = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.zip").write_text("no zip")
    changed = bytearray(whole)
    changed[len(whole) // 3] ^= 0xFF
    (tmp_path / "changed.zip").write_bytes(changed)
    for name in ("cut.zip", "other.zip", "changed.zip"):
        with pytest.raises(UserError, match="is not a bundle"):
            opened(tmp_path / name)


def test_the_commands_mistakes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert runs_command.main(["bundle", f"paths.runs={runs}"]) == 2
    assert runs_command.main(["bundle", "a.zip", "b.zip", f"paths.runs={runs}"]) == 2
    (tmp_path / "empty").mkdir()
    assert runs_command.main(["bundle", str(tmp_path / "a.zip"), f"paths.runs={tmp_path / 'empty'}"]) == 2
    assert capsys.readouterr().err.count("error: bundle: ") == 3
    assert not (tmp_path / "a.zip").exists()
