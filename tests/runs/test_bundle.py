"""Bundles: a folder's plans and records as one file, without a path of the machine, and nothing else out of one."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alexlab.cli import report
from alexlab.cli import runs as runs_command
from alexlab.compose import read_config
from alexlab.config import PROJECT_DIR
from alexlab.errors import UserError
from alexlab.evidence import load_runs
from alexlab.runs import arrays, verify
from alexlab.runs.bundle import pack, source, unpacked
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
    folder = unpacked(tmp_path / "b.zip")
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
    pack(tmp_path / "2.zip", unpacked(tmp_path / "1.zip"), list(reversed(ids(runs))))
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


def test_load_runs_reads_it_as_it_reads_the_folder(runs: Path, tmp_path: Path):
    pack(tmp_path / "lrn.zip", runs, ids(runs))
    folder, file = load_runs(runs), load_runs(tmp_path / "lrn.zip")
    assert sorted(file.run_id) == ids(runs)
    machine = [f"config.{name}" for name in ("data.cache", "data.raw", "data.root", "data.stage", "paths.runs")]
    pd.testing.assert_frame_equal(file.drop(columns=machine), folder.drop(columns=machine))
    (tmp_path / "no.zip").write_text("no bundle")
    with pytest.raises(UserError, match=r"no\.zip: is not a bundle"):
        load_runs(tmp_path / "no.zip")


@pytest.mark.parametrize(
    "name",
    [
        "../out.json",
        "/tmp/out.json",
        "0123456789ab/../../out.json",
        "0123456789ab/last.ckpt",
        "0123456789ab/setup.py",
        "notes.txt",
        "studies/x.py",
    ],
)
def test_nothing_else_is_unpacked(name: str, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(UserError, match=r"b\.zip: contains .*, which does not belong in a bundle"):
        unpacked(tmp_path / "b.zip")


def member(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr, found.compress_type = mode << 16, zipfile.ZIP_DEFLATED
    return found


class TestHostileArchives:
    """One line, before a file of it is read to the end."""

    RESULT = "0123456789ab/result.json"

    def refused(self, path: Path) -> str:
        with pytest.raises(UserError) as raised:
            unpacked(path)
        assert len(str(raised.value).splitlines()) == 1
        return str(raised.value)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_twice(self, tmp_path: Path):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for content in ("{}", "{ }"):
                archive.writestr(self.RESULT, content)
        assert f"{self.RESULT}: is duplicated" in self.refused(tmp_path / "b.zip")

    @pytest.mark.parametrize(
        "one", [member("0123456789ab/", 0o40755), member(RESULT, 0o120777), member(RESULT, 0o10644)]
    )
    def test_what_is_no_plain_file(self, tmp_path: Path, one: zipfile.ZipInfo):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr(one, "/etc/passwd")
        assert f"{one.filename}: is not a regular file" in self.refused(tmp_path / "b.zip")

    def test_nothing_in_it(self, tmp_path: Path):
        zipfile.ZipFile(tmp_path / "b.zip", "w").close()
        assert "is an empty archive" in self.refused(tmp_path / "b.zip")

    def test_more_files_than_any_bundle_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(verify, "MOST", 3)
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for number in range(4):
                archive.writestr(f"{number:012x}/result.json", "{}")
        assert "contains 4 files, more than 3" in self.refused(tmp_path / "b.zip")

    def test_more_bytes_than_any_bundle_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(verify, "ALL", 2**20)
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for number in range(3):
                archive.writestr(member(f"{number:012x}/result.json"), bytes(2**19))
        assert (tmp_path / "b.zip").stat().st_size < 4000
        assert "unpacks to more than" in self.refused(tmp_path / "b.zip")

    def test_a_file_larger_than_any(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(verify, "LARGEST", 1000)
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr(member(self.RESULT), bytes(1001))
        assert f"{self.RESULT} unpacks to 1,001 bytes" in self.refused(tmp_path / "b.zip")

    @pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_compression_whose_output_has_no_limit(self, tmp_path: Path, way: int):
        with zipfile.ZipFile(tmp_path / "b.zip", "w", way) as archive:
            archive.writestr(self.RESULT, bytes(1000))
        assert "a compression method whose output size cannot be limited" in self.refused(tmp_path / "b.zip")

    @pytest.mark.parametrize("said", [100, 10_000_000])
    def test_a_file_that_lies_about_its_size(self, tmp_path: Path, said: int):
        # 64 MiB that the archive calls smaller: no more than what it says may be held.
        size = 2**26
        path = tmp_path / "b.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member(self.RESULT), bytes(size))
        path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), said.to_bytes(4, "little")))
        tracemalloc.start()
        try:
            assert "is not a bundle" in self.refused(path)
            assert tracemalloc.get_traced_memory()[1] < 2 * said + 2**21
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("name", ["A\nB", "x" * 201, " ", "\x1b[31m"])
    def test_a_submitter_that_fits_no_line(self, bundle: Path, tmp_path: Path, name: str):
        with zipfile.ZipFile(bundle) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        manifest["submitter"] = name
        path = changed(bundle, tmp_path / "c.zip", {"manifest.json": json.dumps(manifest).encode()})
        assert "submitter is" in self.refused(path)


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
            unpacked(tmp_path / name)


def test_the_commands_mistakes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert runs_command.main(["bundle", f"paths.runs={runs}"]) == 2
    assert runs_command.main(["bundle", "a.zip", "b.zip", f"paths.runs={runs}"]) == 2
    (tmp_path / "empty").mkdir()
    assert runs_command.main(["bundle", str(tmp_path / "a.zip"), f"paths.runs={tmp_path / 'empty'}"]) == 2
    assert capsys.readouterr().err.count("error: bundle: ") == 3
    assert not (tmp_path / "a.zip").exists()


def changed(path: Path, out: Path, content: dict[str, bytes | None]) -> Path:
    """A copy of a bundle with other contents of some files; None leaves one out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in dict.fromkeys([*source.namelist(), *content]):
            data = content[name] if name in content else source.read(name)
            if data is not None:
                target.writestr(name, data)
    return out


@pytest.fixture(scope="module")
def bundle(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "b.zip"
    pack(path, runs, ids(runs))
    return path


class TestVerifier:
    """With bare Python: no site-packages, no project."""

    def run(self, bundle: Path) -> tuple[int, str]:
        """Check a bundle with the verifier that it holds; the exit status and what is printed."""
        script = bundle.parent / "verify.py"
        with zipfile.ZipFile(bundle) as archive:
            script.write_bytes(archive.read("verify.py"))
        done = subprocess.run(
            [sys.executable, "-I", "-S", script, bundle], capture_output=True, text=True, cwd=bundle.parent
        )
        assert not done.stderr
        return done.returncode, done.stdout

    def test_a_whole_bundle(self, runs: Path, bundle: Path):
        status, output = self.run(bundle)
        assert status == 0, output
        assert f"{len(ids(runs))} finished runs, errors computed" in output
        with zipfile.ZipFile(bundle) as archive:
            assert hashlib.sha256(archive.read("manifest.json")).hexdigest() in output
            crate = json.loads(archive.read("ro-crate-metadata.json"))
            parts = {part["@id"] for part in crate["@graph"][1]["hasPart"]}
            assert parts | {"ro-crate-metadata.json"} == set(archive.namelist())

    def test_a_changed_file(self, runs: Path, bundle: Path, tmp_path: Path):
        name = f"{ids(runs)[0]}/metrics.csv"
        path = changed(bundle, tmp_path / "c.zip", {name: b"epoch\n"})
        status, output = self.run(path)
        assert (status, f"WRONG: {name}: has another hash than in the manifest" in output) == (1, True)
        with pytest.raises(UserError, match=f"{name} was modified after packing"):
            unpacked(path)

    def test_an_error_that_is_not_that_of_the_predictions(self, runs: Path, bundle: Path, tmp_path: Path):
        # A forger who makes the manifest anew is found by the predictions.
        run = ids(runs)[0]
        with zipfile.ZipFile(bundle) as archive:
            result = json.loads(archive.read(f"{run}/result.json"))
            manifest = json.loads(archive.read("manifest.json"))
        result["test"]["ten"]["top1_error"] /= 2
        content = json.dumps(result).encode()
        manifest["files"][f"{run}/result.json"] = hashlib.sha256(content).hexdigest()
        path = changed(
            bundle,
            tmp_path / "c.zip",
            {f"{run}/result.json": content, "manifest.json": json.dumps(manifest).encode()},
        )
        status, output = self.run(path)
        assert status == 1
        assert f"WRONG: {run}: top1_error of view ten is" in output

    def test_an_error_without_its_predictions(self, runs: Path, bundle: Path):
        # A forger who leaves the ten views' predictions out may write any error for them.
        run = ids(runs)[0]
        with zipfile.ZipFile(bundle) as archive:
            files = {name: archive.read(f"{run}/{name}") for name in ("result.json", "predictions.npz")}
        less = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(files["predictions.npz"])) as source, zipfile.ZipFile(less, "w") as target:
            for name in source.namelist():
                if name != "ten_top5.npy":
                    target.writestr(name, source.read(name))
        assert verify.check_run(run, files) == []
        found = verify.check_run(run, {**files, "predictions.npz": less.getvalue()})
        assert found == [f"{run}: has no predictions for view ten"]

    def test_arrays_that_unpack_to_more_than_any(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        bomb = io.BytesIO()
        np.savez_compressed(bomb, labels=np.zeros(1000, np.int8))
        (tmp_path / "predictions.npz").write_bytes(bomb.getvalue())
        monkeypatch.setattr(verify, "LARGEST_ARRAY", 1000)
        monkeypatch.setattr(arrays, "MAX_BYTES", 1000)
        with pytest.raises(ValueError, match=r"labels\.npy unpacks to 1,128 bytes"):
            verify.errors_of(bomb.getvalue())
        with pytest.raises(ValueError, match=r"labels\.npy unpacks to 1,128 bytes"):
            arrays.read_arrays(tmp_path / "predictions.npz", ("labels",))

    @pytest.mark.parametrize("name", ["predictions.npz", "result.json"])
    def test_a_missing_file(self, runs: Path, bundle: Path, tmp_path: Path, name: str):
        missing = f"{ids(runs)[0]}/{name}"
        path = changed(bundle, tmp_path / "c.zip", {missing: None})
        status, output = self.run(path)
        assert (status, f"WRONG: {missing}: is missing" in output) == (1, True)
        with pytest.raises(UserError, match=f"its files and its manifest differ in {missing}"):
            unpacked(path)

    def test_missing_runs_are_named_and_not_wrong(self, runs: Path, tmp_path: Path):
        pack(tmp_path / "few.zip", runs, ids(runs)[1:])
        status, output = self.run(tmp_path / "few.zip")
        assert (status, f"planned runs that are missing: 1 ({ids(runs)[0]})" in output) == (0, True)

    def test_an_added_file(self, bundle: Path, tmp_path: Path):
        path = changed(bundle, tmp_path / "c.zip", {"012345678901/status.json": b"{}"})
        status, output = self.run(path)
        assert (status, "WRONG: 012345678901/status.json: is not in the manifest" in output) == (1, True)

    @pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"version": 1, "files": 3}'])
    def test_a_damaged_manifest(self, bundle: Path, tmp_path: Path, content: bytes):
        path = changed(bundle, tmp_path / "c.zip", {"manifest.json": content})
        assert self.run(path)[0] == 2
        with pytest.raises(UserError, match="is not a bundle"):
            unpacked(path)

    def test_a_bundle_of_another_version(self, bundle: Path, tmp_path: Path):
        with zipfile.ZipFile(bundle) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        content = json.dumps({**manifest, "version": 2}).encode()
        path = changed(bundle, tmp_path / "c.zip", {"manifest.json": content})
        status, output = self.run(path)
        assert (status, "a bundle of version 2, but this verifier is for version 1" in output) == (2, True)
        with pytest.raises(UserError, match=r"c\.zip: is a bundle of version 2, but this code reads version 1"):
            unpacked(path)

    @pytest.mark.parametrize("names", [("predictions.npz",), ("predictions.npz", "result.json")])
    def test_a_finished_run_without_its_files(self, runs: Path, bundle: Path, tmp_path: Path, names: tuple[str, ...]):
        # With a manifest made anew, so that no hash shows it.
        gone = [f"{ids(runs)[0]}/{name}" for name in names]
        with zipfile.ZipFile(bundle) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        for name in gone:
            del manifest["files"][name]
        content = json.dumps(manifest).encode()
        path = changed(bundle, tmp_path / "c.zip", {**dict.fromkeys(gone), "manifest.json": content})
        status, output = self.run(path)
        assert (status, f"WRONG: {ids(runs)[0]}: has no predictions" in output) == (1, True)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_twice(self, runs: Path, bundle: Path, tmp_path: Path):
        name = f"{ids(runs)[0]}/status.json"
        path = changed(bundle, tmp_path / "c.zip", {})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, archive.read(name))
        status, output = self.run(path)
        assert (status, f"WRONG: {name}: is duplicated" in output) == (1, True)

    def test_two_submitters(self, runs: Path, tmp_path: Path):
        first, both, other = ids(runs)[:3]
        copy = Path(shutil.copytree(runs, tmp_path / "runs"))
        arrays = dict(np.load(copy / other / "predictions.npz"))
        arrays["ten_log_probability"] += 0.5  # the same errors by other bits
        np.savez(copy / other / "predictions.npz", **arrays)
        pack(tmp_path / "a.zip", runs, [first, both, other], "A")
        pack(tmp_path / "b.zip", copy, [both, other, *ids(runs)[3:]], "B")
        script = Path(verify.__file__)
        line = [sys.executable, "-I", "-S", script, "a.zip", "b.zip"]
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "submitted by A" in done.stdout
        assert "submitted by B" in done.stdout
        assert done.stdout.endswith(
            f"2 runs are in a.zip and in b.zip: 1 with the same predictions, 1 with different ones: {other}\n"
        )
        (tmp_path / "b.zip").write_bytes(b"PK")
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (2, "")
        assert "Everything checks out." in done.stdout

    def test_a_reader_that_has_read_enough(self, bundle: Path):
        line = f"'{sys.executable}' -I -S '{verify.__file__}' '{bundle}' | true"
        done = subprocess.run(["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("0\n", "")

    def test_no_bundle(self, tmp_path: Path, bundle: Path):
        other = tmp_path / "x.zip"
        other.write_bytes(b"PK")
        script = bundle.parent / "verify.py"
        script.write_bytes(Path(verify.__file__).read_bytes())
        done = subprocess.run([sys.executable, "-I", "-S", script, other], capture_output=True, text=True)
        assert (done.returncode, "cannot be read as a bundle" in done.stdout) == (2, True)

    def test_a_bundle_of_before_there_were_manifests(self, tmp_path: Path):
        with (
            zipfile.ZipFile(PROJECT_DIR / "results" / "figure1" / "records.zip") as kept,
            zipfile.ZipFile(tmp_path / "older.zip", "w") as older,
        ):
            for name in set(kept.namelist()) - {"manifest.json", "verify.py", "ro-crate-metadata.json"}:
                older.writestr(name, kept.read(name))
        lines, status = verify.report([str(tmp_path / "older.zip")])
        assert status == 2
        assert "it has no manifest.json; to add one to an older bundle: alexlab runs bundle" in lines[0]


def test_who_submits_is_in_the_manifest(runs: Path, tmp_path: Path):
    line = ["bundle", str(tmp_path / "b.zip"), "submitter=Somebody's Lab", f"paths.runs={runs}"]
    assert runs_command.main(line) == 0
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert json.loads(archive.read("manifest.json"))["submitter"] == "Somebody's Lab"
        crate = json.loads(archive.read("ro-crate-metadata.json"))
    assert [one["name"] for one in crate["@graph"] if one["@type"] == "Organization"] == ["Somebody's Lab"]


@pytest.fixture(scope="module")
def both(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two studies, one of which is not complete."""
    folder = Path(shutil.copytree(runs, tmp_path_factory.mktemp("both") / "runs"))
    made_study(folder, ["study=aa", "study.seeds=4"], images=200, missing={"none": 1})
    return folder


class TestOneStudy:
    def run(self, *line: str) -> int:
        return runs_command.main([*line])

    def test_its_plan_and_runs_alone_and_what_is_missing(
        self, runs: Path, both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        out = tmp_path / "aa.zip"
        assert self.run("bundle", "study=aa", str(out), f"paths.runs={both}") == 0
        text = " ".join(capsys.readouterr().out.split())
        [plan] = (both / "studies").glob("aa-*.json")
        arms = json.loads(plan.read_text())["looks"][-1]["arms"]
        planned = [run for arm in arms for run in arm["runs"].values()]
        missing = [run for run in planned if not (both / run).is_dir()]
        folder = unpacked(out)
        assert [path.name for path in (folder / "studies").iterdir()] == [plan.name]
        assert ids(folder) == sorted(set(planned) - set(missing))
        assert len(missing) == 1
        assert f"{plan.stem}: 1 of {len(planned)} planned runs not in it: " in text
        assert "replacing" not in text
        assert self.run("bundle", "study=aa", str(out), f"paths.runs={both}") == 0
        assert "replacing the previous bundle" in " ".join(capsys.readouterr().out.split())
        # By the start of its id and several values, as filters are.
        assert self.run("bundle", "study=aa,lrn-*", str(out), f"paths.runs={both}") == 0
        assert set(ids(unpacked(out))) == set(ids(both))

    def test_list_selects_it(self, runs: Path, both: Path, capsys: pytest.CaptureFixture[str]):
        assert self.run("list", "study=lrn", f"paths.runs={both}") == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"{len(ids(runs))} runs in" in text

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (["bundle", "study=lnr", "x.zip"], "study=lnr: no such study in"),
            (["bundle", "study=lrn", "seed=99", "x.zip"], "no finished run in"),
            (["bundle", "nowhere/x.zip"], "there is no folder nowhere"),
            (["bundle", "folder"], "folder exists and is not a bundle"),
            (["bundle", "notes.txt"], "notes.txt exists and is not a bundle"),
            (["bundle", "weights.zip"], "weights.zip exists and is not a bundle"),
            (["bundle", "x.zip", "submitter=A\nB"], "must be one line of 1 to 200 printable characters"),
            (["bundle", "x.zip", f"submitter={'x' * 10_000}"], "must be one line of 1 to 200 printable characters"),
            (["bundle", "x.zip", "submitter="], "must be one line of 1 to 200 printable characters"),
            (["bundle", "x.zip", "submitter=A", "submitter=B"], "submitter= is given twice; a bundle has one"),
            (["bundle", "x.zip", "study=lrn", "study=aa"], "study= is given twice; write study=lrn,aa"),
        ],
    )
    def test_mistakes_are_one_line_and_write_nothing(
        self,
        both: Path,
        line: list[str],
        said: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        (tmp_path / "notes.txt").write_text("notes")
        with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:  # as torch.save and numpy.savez write them
            archive.writestr("archive/data.pkl", "weights")
        assert self.run(*line, f"paths.runs={both}") == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert len(error) < 500
        assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "notes.txt", "weights.zip"]
        assert (tmp_path / "notes.txt").read_text() == "notes"
        with zipfile.ZipFile(tmp_path / "weights.zip") as archive:
            assert archive.namelist() == ["archive/data.pkl"]


def test_uncommitted_changes_that_go_along_are_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A diff has whatever its author wrote, also in files that were never meant to be published."""
    monkeypatch.setenv("COLUMNS", "80")
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    first, second, third, *_ = ids(folder)
    diff = (
        "diff --git a/src/net.py b/src/net.py\n--- a/src/net.py\n+++ b/src/net.py\n@@ -1 +1 @@\n-a\n+b\n"
        'diff --git "a/docs/gr\\303\\266\\303\\237e b/x" "b/docs/gr\\303\\266\\303\\237e b/x"\n'
        "--- a/docs/a b/x\n+++ b/docs/a b/x\n@@ -1 +1 @@\n-diff --git a/no b/no\n+password\n"
    )
    untracked = {"src/own\nkeys.py": {"sha256": "0", "content": "x"}, "src/huge.py": {"sha256": "a large file"}}
    for run, changes in (
        (first, {"sha256": "1", "diff": diff, "untracked": {}}),
        (second, {"sha256": "2", "diff": "", "untracked": untracked}),
        (third, {}),
    ):
        path = folder / run / "environment.json"
        path.write_text(json.dumps({"git_commit": "1234", "changes": changes}))
    assert runs_command.main(["bundle", str(tmp_path / "b.zip"), f"paths.runs={folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    said = " ".join(" ".join(lines).split())
    assert "contains uncommitted changes as text (`changes` in environment.json of 2 runs)" in said
    assert said.endswith(r"publish it: src/net.py, docs/gr\303\266\303\237e b/x, src/own keys.py")
    assert runs_command.main(["bundle", str(tmp_path / "b.zip"), f"paths.runs={runs}"]) == 0
    assert "uncommitted changes" not in capsys.readouterr().out


def test_the_code_of_a_net_of_ones_own_goes_along(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    net = "def build(num_classes, crop_size): ...\n"
    (folder / ids(folder)[0] / "net.py").write_text(net)
    assert runs_command.main(["bundle", str(tmp_path / "b.zip"), f"paths.runs={folder}"]) == 0
    assert "It contains the code of your own net (net.py of 1 run)" in capsys.readouterr().out
    assert (unpacked(tmp_path / "b.zip") / ids(folder)[0] / "net.py").read_text() == net
    assert runs_command.main(["bundle", str(tmp_path / "b.zip"), f"paths.runs={runs}"]) == 0
    assert "net.py" not in capsys.readouterr().out


class TestCommandsOnABundle:
    def obey(self, capsys: pytest.CaptureFixture[str], *line: str, status: int = 0) -> str:
        assert runs_command.main([*line]) == status
        found = capsys.readouterr()
        return " ".join((found.err if status else found.out).split())

    def test_list_show_compare_and_studies(
        self, runs: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("COLUMNS", "160")
        place = f"paths.runs={bundle}"
        first, second = ids(runs)[:2]
        text = self.obey(capsys, "list", place)
        assert all(run in text for run in ids(runs))
        assert f"{len(ids(runs))} runs in {bundle}" in text
        assert f"{bundle}/{first}/" in self.obey(capsys, "show", first, place)
        folder, file = (self.obey(capsys, "compare", first, second, one) for one in (f"paths.runs={runs}", place))
        assert file == folder
        assert f"1 study in {bundle}" in self.obey(capsys, "studies", place)

    def test_what_changes_records_or_needs_a_sweep_refuses_it(
        self, runs: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
    ):
        before = bundle.read_bytes()
        place = f"paths.runs={bundle}"
        lines = (["prune", "--yes"], ["wandb"], ["forget", "lrn"], ["export", "sweep=last", "x.csv"])
        for line in lines:
            assert "only list, show, compare, studies, bundle read a bundle" in self.obey(
                capsys, *line, place, status=2
            )
        assert bundle.read_bytes() == before
        error = self.obey(capsys, "show", "9" * 12, place, status=2)
        assert f"there is no such run in {bundle}" in error

    def test_the_submitter_stays_when_it_is_bundled_again(
        self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        first, second = tmp_path / "1.zip", tmp_path / "2.zip"
        pack(first, runs, ids(runs), "Lab A")
        self.obey(capsys, "bundle", str(second), f"paths.runs={first}")
        assert second.read_bytes() == first.read_bytes()
        error = self.obey(capsys, "bundle", str(second), "submitter=B", f"paths.runs={first}", status=2)
        assert "already has a submitter" in error
        assert source(second).submitter == "Lab A"
