"""Preparing, training and evaluating on real data sets, by the commands of the README."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alexlab.cli.evaluate import main as evaluate
from alexlab.cli.prepare import main as prepare
from alexlab.config import ConfigError
from alexlab.evidence import load_runs
from alexlab.sweep.plan import make_plan
from support import source_files as raw
from support.commands import command
from support.settings import Typed, composed

pytestmark = pytest.mark.slow
SMALL = ["model.width=0.1", "model.hidden=16", "trainer.max_epochs=1", "trainer.accelerator=cpu"]


def folders(place: Path) -> dict[str, str]:
    return {"ALEXLAB_RUNS": str(place / "runs"), "ALEXLAB_CACHE": str(place / "cache")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of two data sets, prepared."""
    place = tmp_path_factory.mktemp("real")
    raw.imagenet_tars(place / "tars", raw.train_files(8))
    raw.cifar(place / "cifar")
    for given in (["recipe=imagenet2012", "data.raw=tars", "data.format=jpeg"], ["data=cifar10", "data.raw=cifar"]):
        done = command(*given, script="prepare.py", cwd=place, **folders(place))
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are typed in this process are typed in that folder."""
    monkeypatch.chdir(place)
    for name, value in folders(place).items():
        monkeypatch.setenv(name, value)


IMAGENET = ["recipe=imagenet2012", "data.num_classes=3", "data.holdout=2", *SMALL]


@pytest.fixture(scope="module")
def trained(place: Path) -> str:
    """What a run says whose record is in `runs`."""
    done = command(*IMAGENET, cwd=place, **folders(place))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("here")
def test_a_run_says_what_it_was_trained_and_chosen_on(
    place: Path, trained: str, typed: Typed, capsys: pytest.CaptureFixture[str]
):
    manifest = json.loads((place / "cache/stores/imagenet2012-256px-jpeg/manifest.json").read_text())
    assert f"data imagenet2012-{manifest['hash'][:16]}, 256 px, jpeg: train 18" in " ".join(trained.split())
    assert "choices are made on the reported" not in trained
    [folder] = [path.parent for path in (place / "runs").glob("*/result.json")]
    result = json.loads((folder / "result.json").read_text())
    assert result["data"] == {
        "store": f"imagenet2012-{manifest['hash'][:16]}",
        "store_hash": manifest["hash"],
        "classes": manifest["classes"],
        "format": "jpeg",
        "source": "ImageNet's tars",
        "images": {"train": 18, "val": 6, "test": 5},
        "from": {"train": "train, less those held out", "val": "2 of each class of train", "test": "val"},
        "chosen_on_reported": False,
    }
    assert result["test"]["images"] == 5
    assert result["train"]["images"] == 18
    again = typed(*IMAGENET, "data.num_workers=2", f"data.stage={place / 'local'}")
    assert "1 of 1 already done" in again.output

    # Its average finds the store again where it was moved to, and refuses another one.
    moved = place / "elsewhere"
    shutil.copytree(place / "cache" / "stores" / "imagenet2012-256px-jpeg", moved)
    assert evaluate([f"runs=[{folder.name}]", f"data.root={moved}"]) == 0, capsys.readouterr()
    assert len(load_runs(place / "runs")) == 1
    assert prepare(["recipe=imagenet2012", "data.raw=tars", "data.format=raw"]) == 0
    assert evaluate([f"runs=[{folder.name}]"]) == 2
    assert "was trained on the data imagenet2012-" in capsys.readouterr().err
    assert evaluate([f"runs=[{folder.name}]", "data.format=jpeg"]) == 0
    shutil.rmtree(place / "cache" / "stores" / "imagenet2012-256px-raw")


@pytest.mark.usefixtures("trained", "here")
def test_a_staged_store_trains_to_the_same_numbers(place: Path, typed: Typed):
    staged = ["data.num_workers=2", f"data.stage={place / 'local'}", f"paths.runs={place / 'staged'}"]
    done = typed(*IMAGENET, *staged)
    assert done.status == 0, done
    outcomes = []
    for runs in ("runs", "staged"):
        [result] = [json.loads(path.read_text()) for path in (place / runs).glob("*/result.json")]
        outcomes.append((result["run_id"], result["test"], result["train"]))
    assert outcomes[0] == outcomes[1]
    assert [path.suffix for path in (place / "local").iterdir() if path.is_dir()] == [""]


@pytest.mark.usefixtures("here")
def test_cifar(typed: Typed):
    given = ["recipe=cifar10", "data.holdout=0", "trainer.max_epochs=1", "optim.schedule=constant", *SMALL]
    done = typed(*given)
    assert done.status == 0, done
    assert "choices are made on the reported images" in " ".join(done.output.split())
    blind = typed(*given, "trainer.limit_val_batches=0")  # as in figure 1: there is no validation to choose by
    assert blind.status == 0, blind
    assert "choices are made" not in blind.output


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe=imagenet128"], "data.name=imagenet2012: has no store at"),
        (["recipe=imagenet2012"], "data.num_classes=1000: the store .* has 3; set data.num_classes=3"),
        (["recipe=imagenet2012", "data.num_classes=3"], "no image is left for train; data.holdout=50 is too large"),
        (["recipe=imagenet2012", "data.root=nowhere"], "has no store at .*nowhere; make it: python src/prepare.py"),
        (["recipe=cifar10", "data.root=STORE"], "data.name=cifar10: the store .* has imagenet2012"),
        (["recipe=imagenet128", "data.root=STORE"], "data.size=146: the store .* has 256"),
        (["recipe=imagenet2012", "data.root=STORE", "data.resize=stretch"], "data.resize=stretch: the store"),
        (
            ["recipe=imagenet2012", "data.train_images=5"],
            "data.train_images=5: data.name=imagenet2012 has the images of its",
        ),
        (["data.raw=x"], "data.raw=.*x: data.name=shapes is drawn into data.cache"),
        (["data=folder"], "data.name=folder needs data.raw=DIR"),
        (["data.train_images=null"], "data.train_images=null: data.name=shapes needs the number of images"),
    ],
)
def test_data_that_is_not_there_or_does_not_fit(place: Path, overrides: list[str], message: str):
    store = str(place / "cache/stores/imagenet2012-256px-jpeg")
    given = [override.replace("STORE", store) for override in overrides]
    with pytest.raises(ConfigError, match=message):
        make_plan([*given, f"data.cache={place / 'cache'}"])


def test_the_format_is_no_part_of_the_configuration_but_the_store_is(place: Path):
    given = [*IMAGENET, f"data.cache={place / 'cache'}"]
    one, other = (make_plan([*given, *extra]).runs[0].run_id for extra in ([], ["data.format=jpeg"]))
    assert one == other
    assert make_plan([*given, "data.holdout=3"]).runs[0].run_id != one


def test_shapes_keep_their_ids_in_raw(tmp_path: Path):
    one, other = (composed([f"data.format={kind}"]) for kind in ("raw", "null"))
    packed = composed(["data.format=jpeg"])
    from alexlab.runs.identity import run_id

    assert run_id(one) == run_id(other) != run_id(packed)
