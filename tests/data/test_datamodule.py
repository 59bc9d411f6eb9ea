"""From files to batches: the embedded data, the store, the data module."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from alexlab.config import Config, Resize
from alexlab.data import build_datamodule
from alexlab.data.build import build_store
from alexlab.data.datamodule import TrainingBatches, _ignore_signals
from alexlab.data.decode import square
from alexlab.data.locate import prepare, store_path
from alexlab.data.prefetch import DevicePrefetcher
from alexlab.data.shapes import CLASSES, draw_shapes
from alexlab.data.sources.folders import read_folders
from alexlab.data.store import BadData, open_store, staged
from alexlab.distributed import Share
from support.commands import PATIENCE, until
from support.settings import composed, stacked


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def flat(*colour: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def tree(root: Path, train: str = "abc", val: str = "abc", test: str = "abc") -> Path:
    """Class folders of PNG files in one colour a class: a red, b green, c blue."""
    colours = {"a": (200, 40, 40), "b": (40, 180, 60), "c": (40, 60, 200)}
    for split, classes in (("train", train), ("val", val), ("test", test)):
        for name in classes:
            for i in range(2):
                save(root / split / name / f"{i}.png", flat(*colours[name]))
    return root


@pytest.mark.parametrize(
    ("limit", "chosen"),
    [
        ("1", [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),
        ("2", [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25, 27, 28]),
        ("0.4", [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),  # 1.2 of 3 batches
        ("0.1", [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),  # at least one
        ("1.0", range(30)),
        ("7", range(30)),
    ],
)
def test_a_limited_validation_is_spread_over_all_images(tiny: list[str], limit: str, chosen: list[int]):
    data = build_datamodule(composed([*tiny, "data.eval_batch_size=10", f"trainer.limit_val_batches={limit}"]))
    data.setup()
    images = np.concatenate([batch.images.numpy() for batch in data.val_dataloader()])
    assert (images == stacked(data.split("val"))[list(chosen)]).all()


class TestShapes:
    def test_layout_balance_and_variety(self, tmp_path: Path):
        draw_shapes(tmp_path, list(CLASSES), {"train": 40, "val": 20, "test": 10}, seed=0)
        for split, count in (("train", 4), ("val", 2), ("test", 1)):
            assert {d.name: len(list(d.iterdir())) for d in (tmp_path / split).iterdir()} == dict.fromkeys(
                CLASSES, count
            )
        sizes = set()
        for file in tmp_path.rglob("*.JPEG"):
            with Image.open(file) as image:
                assert image.format == "JPEG"
                assert image.mode == "RGB"
                assert min(image.size) >= 110
                sizes.add(image.size)
        assert len(sizes) > 30
        assert {w > h for w, h in sizes} == {True, False}

    def test_an_image_follows_from_seed_split_and_index(self, tmp_path: Path):
        for name, counts, seed in (("one", 12, 0), ("two", 20, 0), ("three", 12, 1)):
            draw_shapes(
                tmp_path / name,
                list(CLASSES),
                {"train": counts, "val": 10, "test": 10},
                seed,
                processes=2 if name == "two" else 1,
            )
        files = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.JPEG")}
        assert len(files) == 32
        assert all((tmp_path / "two" / path).read_bytes() == content for path, content in files.items())
        assert all((tmp_path / "three" / path).read_bytes() != content for path, content in files.items())
        assert len(set(files.values())) == len(files)


class TestStore:
    def test_statistics_follow_numpy(self, tmp_path: Path):
        rng = np.random.default_rng(0)
        for split, count in (("train", 7), ("val", 3), ("test", 2)):
            for i in range(count):
                save(tmp_path / split / "ab"[i % 2] / f"{i}.png", rng.integers(0, 256, (30, 34, 3), dtype=np.uint8))
        build_store(read_folders(tmp_path), tmp_path / "store", 24, "test", processes=2)
        store = open_store(tmp_path / "store")
        images = stacked(store.split("train")).astype(np.float64)
        assert images.shape == (7, 24, 24, 3)
        np.testing.assert_allclose(store.mean, images.mean(0), rtol=1e-6)
        covariance = np.cov(images.reshape(-1, 3).T / 255, bias=True)
        np.testing.assert_allclose(store.components * store.variances @ store.components.T, covariance, rtol=1e-10)
        assert (np.diff(store.variances) <= 0).all()

    def test_statistics_are_the_training_splits(self, tmp_path: Path):
        for name, val in (("one", "abc"), ("two", "a")):
            build_store(read_folders(tree(tmp_path / name, val=val)), tmp_path / f"{name}-store", 16, "test")
        one, two = (open_store(tmp_path / f"{name}-store") for name in ("one", "two"))
        assert np.array_equal(one.mean, two.mean)
        assert np.array_equal(one.components, two.components)

    def test_labels_follow_the_training_classes(self, tmp_path: Path):
        """A class missing in validation shifts no label, hidden files and folders are no classes."""
        root = tree(tmp_path / "files", val="ac")
        save(root / "train" / ".ipynb_checkpoints" / "x.png", flat(0, 0, 0))
        (root / "train" / ".DS_Store").write_bytes(b"\0")
        (root / "train" / "a" / "._0.png").write_bytes(b"\0")
        build_store(read_folders(root), tmp_path / "store", 16, "test")
        store = open_store(tmp_path / "store")
        assert store.classes == ["a", "b", "c"]
        assert store.split("val").labels.tolist() == [0, 0, 2, 2]
        assert store.split("val").image(2)[8, 8].tolist() == [40, 60, 200]

    def test_a_class_unknown_in_training_is_refused(self, tmp_path: Path):
        with pytest.raises(ValueError, match="class 'c' is not among the training classes"):
            build_store(read_folders(tree(tmp_path / "files", train="ab")), tmp_path / "store", 16, "test")

    def test_a_broken_file_is_named(self, tmp_path: Path):
        root = tree(tmp_path / "files")
        (root / "train" / "b" / "1.png").write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"b/1.png of train: not an image of a known format"):
            build_store(read_folders(root), tmp_path / "store", 16, "test", stop_on_bad=True)

    @pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (41, 40), (20, 20), (7, 300)])
    def test_shorter_side_resized_and_centre_cut_out(self, height: int, width: int):
        """Against a resize of the whole image and a cut at whole pixels, on a smooth image."""
        rows, columns = np.mgrid[0:height, 0:width]
        smooth = np.stack([rows * 200 / height, columns * 200 / width, 100 + 0 * rows], -1).astype(np.uint8)
        actual = square(Image.fromarray(smooth), 32)
        scale = 32 / min(height, width)
        resized = Image.fromarray(smooth).resize(
            (round(width * scale), round(height * scale)), Image.Resampling.BILINEAR
        )
        left, top = (resized.width - 32) // 2, (resized.height - 32) // 2
        expected = np.asarray(resized.crop((left, top, left + 32, top + 32))).astype(int)
        assert np.abs(actual.astype(int) - expected).mean() < 4

    def test_both_sides_resized_where_stretched(self):
        rows, columns = np.mgrid[0:40, 0:90]
        smooth = np.stack([rows * 5, columns * 2, 100 + 0 * rows], -1).astype(np.uint8)
        actual = square(Image.fromarray(smooth), 32, Resize.stretch).astype(float)
        centres = (np.arange(32) + 0.5) / 32
        np.testing.assert_allclose(actual[..., 0], np.outer(centres * 40 - 0.5, np.ones(32)) * 5, atol=3)
        np.testing.assert_allclose(actual[..., 1], np.outer(np.ones(32), centres * 90 - 0.5) * 2, atol=3)
        data = composed(["data.resize=stretch"]).data
        assert store_path(data) != store_path(composed([]).data)

    def test_a_folder_that_is_no_store_is_named(self, tmp_path: Path):
        with pytest.raises(ValueError, match="not a finished store"):
            open_store(tmp_path)


class TestPrepare:
    def test_two_processes_at_once_make_it_once(self, tmp_path: Path):
        data = composed(
            ["data.train_images=40", "data.val_images=20", "data.test_images=20", f"data.cache={tmp_path}"]
        ).data
        with ThreadPoolExecutor(2) as pool:  # the lock is one of open files, so threads meet it as processes do
            one, two = pool.map(prepare, [data, data])
        assert np.array_equal(one.mean, two.mean)
        assert len(one.split("train").labels) == 40
        assert [path.name for path in (tmp_path / "stores").iterdir() if path.suffix != ".lock"] == [
            "shapes-v1-10-40+20+20-seed0-110px-raw"
        ]
        assert [path.name for path in (tmp_path / "files").iterdir()] == ["shapes-v1-10-40+20+20-seed0"]

    def test_files_that_went_missing_are_told(self, tmp_path: Path):
        data = composed(
            ["data.train_images=20", "data.val_images=10", "data.test_images=10", f"data.cache={tmp_path}"]
        ).data
        store = prepare(data)
        next((tmp_path / "files").rglob("train/disc/*.JPEG")).unlink()
        shutil.rmtree(store.path)
        with pytest.raises(ValueError, match=r"holds .*'train': 19.*: remove it and"):
            prepare(data)

    def test_goes_on_after_an_interruption(self, tmp_path: Path):
        data = composed(
            ["data.train_images=20", "data.val_images=10", "data.test_images=10", f"data.cache={tmp_path}"]
        ).data
        store = prepare(data)
        unfinished = store.path.with_suffix(".unfinished")
        store.path.rename(unfinished)  # as a kill in the middle would leave it
        (unfinished / "manifest.json").unlink()
        again = prepare(data)
        assert again.path == store.path
        assert not unfinished.exists()
        assert len(again.split("train").labels) == 20


class TestDataModule:
    def test_another_epoch_has_other_crops(self, tiny: list[str]):
        data = build_datamodule(composed([*tiny, "data.num_workers=0"]))
        data.setup()
        loader, crops = data.train_dataloader(), []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
            crops.append(torch.cat([batch.crops for batch in loader]))
        assert len(crops[0]) == len(crops[1]) == 60
        assert not torch.equal(*crops)

    def test_colours_can_end_before_the_run_does(self, tiny: list[str]):
        """Shifts and the division behind them, in the first six of eight epochs."""
        config = composed(
            [
                *tiny,
                "augment.pca_until=0.7",
                "augment.pca_divisor=1.1",
                "optim.schedule=constant",
                "trainer.max_epochs=8",
            ]
        )
        store = prepare(config.data)
        batches = TrainingBatches(store.split("train"), store, config)
        found = [batches[epoch, 0] for epoch in range(8)]
        assert [batch.divisor for batch in found] == [1.1] * 6 + [1.0] * 2
        assert [bool(batch.shifts.abs().max() > 0) for batch in found] == [True] * 6 + [False] * 2

    def test_an_epoch_is_every_image_once(self, tiny_config: Config):
        store = prepare(tiny_config.data)
        split = store.split("train")
        batches = TrainingBatches(split, store, tiny_config)
        labels = torch.cat([batches[0, step].labels for step in range(batches.num_steps)])
        assert sorted(labels.tolist()) == sorted(split.labels.tolist())

    def test_evaluation_counts_every_image_once(self, tiny: list[str]):
        data = build_datamodule(composed([*tiny, "data.eval_batch_size=8"]))
        data.setup()
        sizes = [len(batch.labels) for batch in data.test_dataloader()]
        assert sizes == [8, 8, 8, 8, 5]
        images = torch.cat([batch.images for batch in data.test_dataloader()])
        assert np.array_equal(images.numpy(), stacked(data.store.split("test")))
        assert sum(len(batch.labels) for batch in data.evaluation_dataloader("train", 25)) == 25

    @pytest.mark.parametrize("images", [10, 13])
    def test_fewer_images_than_a_batch(self, tmp_path: Path, images: int):
        overrides = [f"data.train_images={images}", "data.batch_size=20", "data.val_images=1", "data.test_images=1"]
        config = composed([*overrides, f"data.cache={tmp_path}"])
        data = build_datamodule(config)
        data.setup()
        assert [len(batch.labels) for batch in data.train_dataloader()] == [images]

    def test_pca_switch_leaves_the_crops(self, tiny: list[str]):
        with_pca, without = (build_datamodule(composed([*tiny, f"augment.pca={value}"])) for value in ("true", "false"))
        for data in (with_pca, without):
            data.setup()
        a, b = next(iter(with_pca.train_dataloader())), next(iter(without.train_dataloader()))
        assert torch.equal(a.crops, b.crops)
        assert a.shifts.abs().max() > 0.1
        assert b.shifts.abs().max() == 0


SPAWNED = pytest.param(2, "spawn", marks=pytest.mark.long)  # each loads torch anew


class TestFormats:
    """Whatever the store's format, loader processes and devices: the same batches."""

    @pytest.fixture(params=["raw", "jpeg"])
    def config(self, request: pytest.FixtureRequest, tiny: list[str]) -> Config:
        return composed([*tiny, f"data.format={request.param}"])

    def batches(self, config: Config, epochs: int = 2, context: str | None = None) -> list[torch.Tensor]:
        data = build_datamodule(config)
        data.setup()
        loader = data.train_dataloader()
        assert isinstance(loader, DataLoader)
        if context is not None:
            loader.multiprocessing_context = context
        found = []
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
            found += [part for batch in loader for part in (batch.crops, batch.labels, batch.shifts)]
        return found

    @pytest.mark.parametrize(("workers", "context"), [(1, "fork"), (2, "fork"), (2, "forkserver"), SPAWNED])
    def test_workers_change_nothing(self, config: Config, workers: int, context: str):
        alone = self.batches(config)
        config.data.num_workers = workers
        assert all(torch.equal(a, b) for a, b in zip(alone, self.batches(config, context=context), strict=True))

    def test_devices_change_nothing(self, config: Config):
        store = prepare(config.data)
        split = store.split("train")
        whole = TrainingBatches(split, store, config)
        for world_size in (2, 3):
            ranks = [TrainingBatches(split, store, config, Share(rank, world_size)) for rank in range(world_size)]
            for epoch, step in [(0, 0), (0, 2), (1, 1)]:
                parts = [batches[epoch, step] for batches in ranks]
                expected = whole[epoch, step]
                assert torch.equal(torch.cat([part.crops for part in parts]), expected.crops)
                assert torch.equal(torch.cat([part.labels for part in parts]), expected.labels)
                assert torch.equal(torch.cat([part.shifts for part in parts]), expected.shifts)
                assert torch.equal(torch.cat([part.windows for part in parts]), expected.windows)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_ahead_of_time_they_are_the_same(self, config: Config, workers: int):
        """On a CPU, whose streams wait for nothing: what comes, in which order; tests/test_gpu.py has the rest."""
        config.data.num_workers = workers
        data = build_datamodule(config)
        data.setup()
        loader = data.train_dataloader()
        assert isinstance(loader, DataLoader)
        ahead = DevicePrefetcher(loader, torch.device("cpu"))
        assert len(ahead) == len(loader)
        assert ahead.sampler is loader.sampler
        assert ahead._iterator is loader._iterator  # by which Lightning ends a loader's processes
        for epoch in (0, 1):
            ahead.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
            for own, expected in zip(list(ahead), list(loader), strict=True):
                assert torch.equal(own.crops, expected.crops)
                assert torch.equal(own.labels, expected.labels)
                assert own.divisor == expected.divisor

    def test_a_split_in_another_process_is_small(self, config: Config):
        """Pickled it is its labels and places, not its images."""
        split = prepare(config.data).split("train")
        image = split.image(3).copy()
        content = pickle.dumps(split)
        assert len(content) < 5000
        assert np.array_equal(pickle.loads(content).image(3), image)

    def test_jpegs_are_near_the_pixels(self, tiny: list[str]):
        raw, jpeg = (prepare(composed([*tiny, f"data.format={kind}"]).data) for kind in ("raw", "jpeg"))
        assert np.array_equal(raw.mean, jpeg.mean)  # of the pixels before they are packed
        assert np.array_equal(raw.variances, jpeg.variances)
        one, two = (stacked(store.split("train")).astype(float) for store in (raw, jpeg))
        assert 0 < np.abs(one - two).mean() < 4
        assert np.array_equal(raw.split("train").labels, jpeg.split("train").labels)


def test_the_images_held_out_are_chosen_once_and_not_in_each_step(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    module = build_datamodule(composed([*tiny, "data.batch_size=16"]))
    module.prepare_data()
    module.setup("fit")
    asked: list[str] = []
    role = type(module.store).role
    monkeypatch.setattr(type(module.store), "role", lambda self, *of: (asked.append(of[0]), role(self, *of))[1])
    assert [module.train_batch_size for _ in range(5)] == [16] * 5
    assert asked == ["train"]


@pytest.mark.parametrize(("accelerator", "is_pinned"), [("auto", True), ("cpu", False)])
def test_a_run_on_the_cpu_pins_no_memory(
    tiny: list[str], accelerator: str, is_pinned: bool, monkeypatch: pytest.MonkeyPatch
):
    """Pinning needs memory of a GPU, which may be full."""
    module = build_datamodule(composed([*tiny, f"trainer.accelerator={accelerator}"]))
    module.prepare_data()
    module.setup("fit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.test_dataloader().pin_memory is is_pinned


def test_crops_differ_by_epoch_and_place_and_are_whole(tmp_path: Path):
    """Case A04: one image eight times; each crop is a contiguous window of it, and the numbers are never the same."""
    ramp = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="xy"), -1).astype(np.uint8)
    ramp = np.concatenate([ramp, np.zeros((256, 256, 1), np.uint8)], -1)
    for index in range(8):
        save(tmp_path / "raw" / "train" / "ab"[index % 2] / f"{index}.png", ramp)
        save(tmp_path / "raw" / "val" / "ab"[index % 2] / f"{index}.png", ramp)
    build_store(read_folders(tmp_path / "raw"), tmp_path / "store", 256, "folder")
    given = ["recipe=imagenet2012", "data=folder", f"data.root={tmp_path / 'store'}", "data.batch_size=4"]
    config = composed([*given, "data.num_workers=2", "augment.flip=false", "model.width=0.1", "model.hidden=8"])
    data = build_datamodule(config)
    data.setup()
    loader, seen = data.train_dataloader(), []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        for batch in loader:
            for crop in batch.crops.numpy().astype(int):
                x, y = crop[0, 0, :2]
                assert np.array_equal(crop[..., 0], np.broadcast_to(np.arange(x, x + 224), (224, 224)))
                assert np.array_equal(crop[..., 1], np.broadcast_to(np.arange(y, y + 224)[:, None], (224, 224)))
                seen.append((x, y))
    assert len(seen) == 16
    assert len(set(seen)) > 12


def test_a_loader_hears_sigterm_from_its_parent_alone():
    """A cluster sends it to every process of a job; from its parent it ends the loader, which is waited for."""
    processes = multiprocessing.get_context("fork")
    waits = processes.Semaphore(0)
    loader = processes.Process(target=_load_for_long, args=(waits,), daemon=True)
    loader.start()
    assert waits.acquire(timeout=PATIENCE)
    subprocess.run(
        ["sh", "-c", f"kill -INT {loader.pid}; kill -USR1 {loader.pid}; kill -TERM {loader.pid}"], check=True
    )
    until(lambda: waits.acquire(block=False) or not loader.is_alive())  # for the next SIGTERM
    assert loader.is_alive()
    loader.terminate()
    loader.join(PATIENCE)
    assert loader.exitcode == 0


def _load_for_long(waits: Any) -> None:
    """Report each wait for a SIGTERM."""
    wait = signal.sigwaitinfo

    def reported(numbers: Any) -> Any:
        waits.release()
        return wait(numbers)

    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)  # which ends it at once
    with patch.object(signal, "sigwaitinfo", reported):
        _ignore_signals(0)
        time.sleep(PATIENCE)


class TestChangedStores:
    """What is trained on is what the store's hash, which records name, was made of."""

    @pytest.fixture
    def store(self, tiny: list[str], tmp_path: Path) -> Path:
        made = prepare(composed([*tiny, f"data.cache={tmp_path / 'changed'}"]).data).path
        open_store(made)
        return made

    @pytest.mark.parametrize(
        ("name", "change", "said"),
        [
            ("train_labels.npy", lambda a: a[:30], "the manifest has 60 images of train, its lists 30"),
            ("train_labels.npy", lambda a: a * 0, "its lists"),
            ("train_labels.npy", lambda a: a[::-1], "its lists"),
            ("test_places.npy", lambda a: a - 1, "an image of test lies outside of .*test.npy"),
            ("test_places.npy", lambda a: a * 0, "its lists of positions"),
            ("test_places.npy", lambda a: a[::-1], "its lists of positions"),
            ("test_places.npy", lambda a: a[:3], "the manifest has 37 images of test, its lists"),
            ("mean.npy", lambda a: a * 0, "its lists or its mean image"),
        ],
        ids=["fewer labels", "one class", "other labels", "shifted", "one image", "swapped", "fewer images", "mean"],
    )
    def test_a_changed_list_is_no_store(self, store: Path, name: str, change: Any, said: str):
        np.save(store / name, np.ascontiguousarray(change(np.load(store / name))))
        with pytest.raises(BadData, match=rf"{re.escape(str(store))} is corrupt \({said}.* remove it to have it made"):
            open_store(store)

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("images", {"train": 30, "val": 30, "test": 37}, "is corrupt"),
            ("hash", "/../../elsewhere", "manifest.s hash is missing or not valid"),
            ("hash", "0" * 64, "its lists"),
            ("classes", ["a"], "a label of .* has no class"),
        ],
    )
    def test_a_changed_manifest_is_none(self, store: Path, key: str, value: Any, said: str):
        path = store / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        with pytest.raises(BadData, match=said):
            open_store(store)

    def test_a_damaged_copy_is_made_again(self, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        copy = staged(store, tmp_path / "local")
        labels = np.load(copy / "train_labels.npy")
        assert staged(store, tmp_path / "local") == copy
        assert "copying it again" not in capsys.readouterr().err
        np.save(copy / "train_labels.npy", np.ascontiguousarray(labels[::-1]))
        assert staged(store, tmp_path / "local") == copy
        assert "is corrupt; copying it again" in capsys.readouterr().err
        np.testing.assert_array_equal(np.load(copy / "train_labels.npy"), labels)

    def test_another_users_copy_is_used_if_all_of_it_is_right(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Without a lock, which may be the other's alone; pixels that were changed are noticed, which no list shows."""
        copy = staged(store, tmp_path / "local")
        copy.with_suffix(".lock").unlink()
        before = {path: path.read_bytes() for path in (tmp_path / "local").rglob("*") if path.is_file()}
        monkeypatch.setattr(os, "getuid", lambda: copy.stat().st_uid + 1)
        assert staged(store, tmp_path / "local") == copy
        assert {path: path.read_bytes() for path in (tmp_path / "local").rglob("*") if path.is_file()} == before
        pixels = np.load(copy / "train.npy", mmap_mode="r+")
        pixels[7] = 255 - pixels[7]
        pixels.flush()
        with pytest.raises(
            BadData, match=f"{re.escape(str(copy))}: is another user's copy and is corrupt; set data.stage"
        ):
            staged(store, tmp_path / "local")
