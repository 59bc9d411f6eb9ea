"""`alexlab predict` and `alexlab.load_run`: what a run's network says of images is what its evaluation said."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import alexlab
from alexlab.cli import predict, train
from alexlab.config import PROJECT_DIR
from alexlab.data import build_datamodule
from alexlab.errors import UserError
from alexlab.runs.trained import TrainedRun
from alexlab.training import ClassificationTask
from support.settings import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("predict") / "runs"
    assert train.main([*TINY, f"data.cache={cache}", f"paths.runs={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(runs: Path, cache: Path) -> TrainedRun:
    [record] = runs.glob("*/result.json")
    return alexlab.load_run(record.parent.name[:6], runs, cache)


def source_files(run: TrainedRun) -> list[Path]:
    """The files of the test images, in their stored order."""
    names = (run.member.data.store.path / "test_names.txt").read_text().splitlines()
    folder = Path(run.config.data.cache) / "files" / "shapes-v1-10-60+30+37-seed0" / "test"
    by_name = {path.name: path for path in folder.rglob("*.JPEG")}
    return [by_name[Path(name).name] for name in names]


def test_files_get_the_classes_of_the_evaluation(run: TrainedRun):
    """The record's predictions were made by the evaluation's loader; these come from the source files."""
    found = run.predict([*source_files(run)])
    with np.load(run.record.file("predictions.npz")) as arrays:
        expected = [[run.classes[label] for label in row] for row in arrays["ten_top5"]]
        log_probability, labels = arrays["ten_log_probability"], arrays["labels"]
    assert [[name for name, _ in row] for row in found] == expected
    chances = run.probabilities(np.stack([run.stored(path) for path in source_files(run)]))
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(np.log(chances[np.arange(len(labels)), labels]), log_probability, atol=1e-4)


def test_every_form_of_an_image_is_the_same_image(run: TrainedRun):
    path = source_files(run)[0]
    with Image.open(path) as image:
        forms = [str(path), path, path.read_bytes(), image.convert("RGB"), np.asarray(image.convert("RGB"))]
    stored = [run.stored(form) for form in forms]
    assert all(np.array_equal(stored[0], other) for other in stored[1:3])  # the decoder of preparing
    for other in stored[3:]:  # Pillow's
        assert np.abs(stored[0].astype(int) - other.astype(int)).max() <= 3
    assert run.predict([]) == []


def test_inputs_are_the_crop_less_the_mean(run: TrainedRun):
    """Section 2, and 4.1's centre: computed here in float64."""
    images = np.stack([run.stored(path) for path in source_files(run)[:3]])
    [found] = run.preprocessed(images)
    data, store = run.config.data, run.member.data.store
    assert data.crop_size is not None
    start = (data.size - data.crop_size) // 2
    part = slice(start, start + data.crop_size)
    expected = (images[:, part, part].astype(float) - store.mean[part, part]) * data.pixel_scale
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert len(run.preprocessed(images, "ten")) == 10


def test_the_page(run: TrainedRun, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its Python block, in a folder that has the run and an image."""
    page = (PROJECT_DIR / "docs" / "how-to" / "classify-images.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXLAB_CACHE", run.config.data.cache)
    (tmp_path / "runs").symlink_to(runs)
    shutil.copy(source_files(run)[0], tmp_path / "photo.jpg")
    names: dict = {}
    exec(block.replace("4018eb608f84", run.record.run_id), names)
    assert names["run"].predict(["photo.jpg"]) == run.predict([source_files(run)[0]])


def test_a_plain_lightning_trainer_predicts(run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The task by its checkpoint alone; probabilities are those of the centre view."""
    monkeypatch.setenv("ALEXLAB_CACHE", run.config.data.cache)
    checkpoint = run.record.file("checkpoints/last.ckpt")
    task = ClassificationTask.load_from_checkpoint(checkpoint)
    data = build_datamodule(task.config)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    found = trainer.predict(task, datamodule=data)
    assert found is not None
    images = np.stack([data.split("test").image(index) for index in range(len(data.split("test")))])
    np.testing.assert_allclose(
        np.concatenate([np.asarray(batch) for batch in found]), run.probabilities(images, "center"), atol=1e-6
    )
    with pytest.raises(UserError, match="not cropped yet; pass datamodule= instead"):
        trainer.predict(task, data.test_dataloader())

    alone = tmp_path / "last.ckpt"
    shutil.copy(checkpoint, alone)
    with pytest.raises(UserError, match="is not two folders up"):
        ClassificationTask.load_from_checkpoint(alone)
    again = ClassificationTask.load_from_checkpoint(alone, config=task.config)
    assert torch.equal(again.network.state_dict()["fc8.weight"], task.network.state_dict()["fc8.weight"])
    alone.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="of a finished run"):
        ClassificationTask.load_from_checkpoint(alone)


def test_the_history_is_the_epochs(run: TrainedRun):
    assert list(run.history["epoch"]) == [1, 2]
    assert {"train_loss", "val_top1_error"} <= set(run.history.columns)


def test_the_command(run: TrainedRun, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = source_files(run)[:2]
    broken = tmp_path / "broken\x1b]0;t\x07.jpg"  # a name out of anyone's archive, which sets a terminal's title
    broken.write_bytes(b"")
    line = [
        f"run={run.record.run_id}",
        f"paths.runs={runs}",
        f"data.cache={run.config.data.cache}",
        *map(str, files),
        "--top",
        "3",
    ]
    assert predict.main([*line, "--json", str(broken)]) == 1
    printed = capsys.readouterr()
    rows = [json.loads(row) for row in printed.out.splitlines()]
    assert [row["file"] for row in rows] == [str(path) for path in files]
    for row, expected in zip(rows, run.predict(files, top=3), strict=True):
        assert [one["class"] for one in row["classes"]] == [name for name, _ in expected]
        assert [one["name"] for one in row["classes"]] == [name for name, _ in expected]
        assert [one["probability"] for one in row["classes"]] == pytest.approx([p for _, p in expected], abs=1e-6)
    assert printed.err == f"error: {tmp_path / 'broken]0;t.jpg'}: empty\n"

    assert predict.main([*line, "--png", str(tmp_path / "out.png")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for row in run.predict(files, top=3) for name, _ in row)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 400


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jpg"], "a.jpg: no such file or folder"),
        (["run=x"], "name one or more image files or folders"),
        ([".", "run=x"], ".: no image files in this folder"),
        (["run=x", "view=three", "."], "no image files"),
        (["--jsn"], "--jsn: no such option; --help lists them"),
        (["run=x", "run=y"], "run=x run=y: run is given twice; remove one"),
        (["--top", "0"], "--top 0: must be at least 1"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert predict.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("script", "spelled"), [("src/predict.py", "python src/runs.py"), ("x", "alexlab runs")])
def test_a_command_is_spelled_as_this_one(
    script: str, spelled: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(PROJECT_DIR)
    monkeypatch.setattr(sys, "argv", [script])
    assert predict.main([str(PROJECT_DIR / "README.md")]) == 2
    assert capsys.readouterr().err.endswith(f"; `{spelled} list` lists them\n")


def test_a_run_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match="abc: there is no such run in"):
        alexlab.load_run("abc", tmp_path)


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # the exporter's own
def test_the_onnx_file_gives_the_networks_probabilities(run: TrainedRun, runs: Path, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxscript onnxruntime")
    path = tmp_path / "net.onnx"
    assert (
        predict.main(
            [
                f"run={run.record.run_id}",
                f"paths.runs={runs}",
                f"data.cache={run.config.data.cache}",
                "--onnx",
                str(path),
            ]
        )
        == 0
    )
    session = onnxruntime.InferenceSession(path)
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["run_id"], json.loads(metadata["classes"])) == (run.record.run_id, run.classes)
    for count in (1, 5):
        images = np.stack([run.stored(path) for path in source_files(run)[:count]])
        start = (run.config.data.size - 96) // 2
        part = slice(start, start + 96)
        pixels = images[:, part, part].astype(np.float32).transpose(0, 3, 1, 2)
        [found] = session.run(None, {"images": pixels})
        np.testing.assert_allclose(found, run.probabilities(images, "center"), atol=1e-4)
