"""What a network says of images, and their neighbours, against networks and distances computed at once."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexlab.data.locate import store_path
from alexlab.errors import UserError
from alexlab.models import build_model
from alexlab.report.figures.images import answers_figure, neighbours_figure
from alexlab.report.neighbours import _Nearest, _Queries, answers, neighbours
from alexlab.runs.process import Launch
from alexlab.runs.record import DONE, Record
from alexlab.runs.supervisor import execute
from alexlab.sweep.plan import make_plan
from support.figures import texts
from support.settings import TINY, composed


def test_the_nearest_come_batch_by_batch(rng: np.random.Generator):
    """As from all distances at once; of equal ones, of which there are many here, the first."""
    queries, others = (rng.integers(0, 4, (count, 5)).astype(np.uint8) for count in (70, 40))
    squared = ((queries[:, None].astype(int) - others.astype(int)) ** 2).sum(2)
    found, of_queries = _Nearest(70, 6), _Queries(torch.from_numpy(queries))
    places = np.arange(100, 140)
    for part in np.split(np.arange(40), [3, 5, 30]):
        found.add(of_queries.squared_to(torch.from_numpy(others[part])), places[part])
    order = np.argsort(squared, 1, kind="stable")[:, :6]
    np.testing.assert_array_equal(found.places, places[order])
    np.testing.assert_array_equal(found.squared, np.take_along_axis(squared, order, 1))


def trained(overrides: list[str]) -> Record:
    [run] = make_plan(overrides).runs
    with tempfile.TemporaryDirectory() as folder:
        assert execute(run.config, run.labels, "run", Launch(Path(folder)))["state"] == DONE
    return run.record


@pytest.fixture(
    scope="module",
    params=[[], ["model.hidden_layers=0", "model.dropout_after=[conv5]", "trainer.precision=64-true", "seed=1"]],
    ids=str,
)
def looked_at(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run of some seconds, and its command line."""
    runs = tmp_path_factory.mktemp("look") / "runs"
    overrides = [*TINY, "trainer.max_epochs=1", f"data.cache={cache}", f"paths.runs={runs}", *request.param]
    return trained(overrides), overrides


@pytest.fixture(autouse=True)
def _prepared(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the images are, whatever a record says."""
    monkeypatch.setenv("ALEXLAB_CACHE", str(cache))


@pytest.mark.slow
class TestLook:
    def views(self, overrides: list[str], split: str, place: tuple[int, int] | None = None) -> np.ndarray:
        """Crops [N, H, W, 3] of all images in grey levels, less the mean: the centre, or one from a corner."""
        config = composed(overrides)
        size, crop, store = config.data.size, config.data.crop_size, store_path(config.data)
        assert crop is not None
        y, x = place or ((size - crop) // 2, (size - crop) // 2)
        images = np.load(store / f"{split}.npy").astype(np.float64) - np.load(store / "mean.npy")
        return images[:, y : y + crop, x : x + crop]

    def network(self, record: Record, overrides: list[str]) -> torch.nn.Module:
        network = build_model(composed(overrides)).double().eval()
        network.load_state_dict(torch.load(record.file("checkpoints/last.ckpt"))["state_dict"])
        return network

    def test_answers(self, looked_at: tuple[Record, list[str]]):
        record, overrides = looked_at
        config = composed(overrides)
        found = answers(record, count=12)
        store = store_path(config.data)
        classes = json.loads((store / "manifest.json").read_text())["classes"]
        labels, images = np.load(store / "test_labels.npy"), np.load(store / "test.npy")
        assert len(set(found.places)) == 12
        np.testing.assert_array_equal(found.images, images[found.places])
        assert len({*found.true[: len(set(labels))]}) == len(set(labels))  # all classes before any twice
        size, crop = config.data.size, config.data.crop_size
        assert crop is not None
        end, middle = size - crop, (size - crop) // 2
        network, sums = self.network(record, overrides), 0
        for place in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
            view = config.data.pixel_scale * self.views(overrides, "test", place)[found.places].transpose(0, 3, 1, 2)
            for one in (view, view[..., ::-1]):
                with torch.inference_mode():
                    sums = sums + network(torch.from_numpy(one.copy())).softmax(1).numpy() / 10
        expected = -np.sort(-np.asarray(sums), 1)[:, :5]
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)
        with np.load(record.file("predictions.npz")) as kept:
            assert found.true == [classes[label] for label in kept["labels"][found.places]]
            assert found.names == [[classes[i] for i in row] for row in kept["ten_top5"][found.places]]
        assert answers(record, count=12, seed=1).places.tolist() != found.places.tolist()
        assert texts(answers_figure(found))

    @pytest.mark.parametrize("pool", [50, 20_000])
    def test_neighbours(self, looked_at: tuple[Record, list[str]], pool: int):
        record, overrides = looked_at
        config = composed(overrides)
        found = neighbours(record, queries=4, nearest=6, tested=20, pool=pool)
        assert (found.queries, found.pool, found.train_images) == (20, min(pool, 60), 60)
        assert found.layer == ("fc7" if config.model.hidden_layers else "conv5")
        network = self.network(record, overrides)
        last: list[np.ndarray] = []
        names = [name for name, _ in network.named_children()]
        before = "relu7" if config.model.hidden_layers else "flatten"
        assert before in names
        network.get_submodule(before).register_forward_hook(lambda module, args, out: last.append(out.numpy().copy()))
        vectors = {}
        for split in ("train", "test"):
            pixels = self.views(overrides, split)
            with torch.inference_mode():
                network(torch.from_numpy(config.data.pixel_scale * pixels.transpose(0, 3, 1, 2)))
            vectors[split] = last[-1].reshape(len(pixels), -1), pixels.reshape(len(pixels), -1)
        store = store_path(config.data)
        labels = {split: np.load(store / f"{split}_labels.npy") for split in ("train", "test")}
        images = np.load(store / "train.npy")
        searched = np.arange(60) if pool >= 60 else np.arange(pool) * 60 // pool
        drawn = np.random.default_rng(0).permutation(37)[:20]
        assert set(found.places) <= set(drawn)
        for kind, near in enumerate((found.by_layer, found.by_pixels)):
            train, test = vectors["train"][kind][searched], vectors["test"][kind]
            distances = np.stack([np.linalg.norm(train - one, axis=1) for one in test])
            order = np.argsort(distances, 1, kind="stable")[:, :6]
            own = order[found.places]
            np.testing.assert_allclose(near.distances, np.take_along_axis(distances[found.places], own, 1), rtol=1e-3)
            np.testing.assert_array_equal(near.places, searched[own])
            np.testing.assert_array_equal(near.shown, images[near.places])
            shares = (labels["train"][searched[order[drawn]]] == labels["test"][drawn][:, None]).mean(1)
            assert near.precision == pytest.approx(shares.mean())
            assert near.standard_error == pytest.approx(shares.std(ddof=1) / math.sqrt(20))
            assert near.percentage(1) == f"{100 * shares.mean():.1f}\xa0±\xa0{100 * near.standard_error:.1f}\xa0%"
            assert replace(near, standard_error=math.nan).percentage(0) == f"{100 * shares.mean():.0f}\xa0%"
        assert texts(neighbours_figure(found))

    def test_what_cannot_be_looked_at(self, looked_at: tuple[Record, list[str]], tmp_path: Path):
        record, _ = looked_at
        with pytest.raises(ValueError, match="nearest=61: there are 60 training images to search"):
            neighbours(record, nearest=61)
        with pytest.raises(UserError, match="there is no such run"):
            answers(Record(tmp_path, record.run_id))
        weights = record.file("checkpoints/last.ckpt")
        weights.rename(tmp_path / "last.ckpt")
        with pytest.raises(UserError, match=r"has no .*last.ckpt"):
            answers(record)
        (tmp_path / "last.ckpt").rename(weights)
