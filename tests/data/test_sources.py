"""From raw files of every form to one store: what is found, left out, reported, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexlab.cli.prepare import main
from alexlab.compose import Composer
from alexlab.config import ConfigError, DataConfig, load
from alexlab.data import build, locate
from alexlab.data.build import BadImage, _Builder, build_store, needed_bytes, unfinished
from alexlab.data.locate import image_counts, store_path
from alexlab.data.sources import source as listing
from alexlab.data.sources.folders import read_folders
from alexlab.data.sources.source import RawError
from alexlab.data.store import Store, find_corruption, held_out, open_store, staged
from support import source_files as raw
from support.commands import PATIENCE, living, until
from support.settings import stacked

FORMS = {"tars": raw.imagenet_tars, "folders": raw.class_folders, "kaggle": raw.kaggle, "parquet": raw.parquet}


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch):
    """Most of these sets have a few images, and processes take a second to start."""
    for name in ("alexlab.data.locate.cpu_count", "alexlab.cli.prepare.cpu_count"):
        monkeypatch.setattr(name, lambda: 1)


def prepared(cache: Path, root: Path, *overrides: str, data: str = "imagenet2012") -> Store:
    """The store that the command makes."""
    given = [f"data={data}", f"data.raw={root}", f"data.cache={cache}", "data.size=32", *overrides]
    assert main(given) == 0
    made = [path for path in (cache / "stores").iterdir() if (path / "manifest.json").is_file()]
    return open_store(max(made, key=lambda path: path.stat().st_mtime_ns))


def colours(store: Store, split: str) -> list[str]:
    """Which of the three colours each image has."""
    names = {tuple(colour): name for name, colour in {"red": raw.RED, "green": raw.GREEN, "blue": raw.BLUE}.items()}
    means = stacked(store.split(split)).mean((1, 2))
    return [names[min(names, key=lambda colour: np.abs(mean - np.array(colour)).sum())] for mean in means]


class TestForms:
    def test_every_form_gives_the_same_store(self, tmp_path: Path):
        """Tars, folders, Kaggle's and parquet shards of the same files: one hash, and labels that follow the ids."""
        hashes = set()
        for form, make in FORMS.items():
            store = prepared(tmp_path / f"cache-{form}", make(tmp_path / form))
            hashes.add(store.manifest["hash"])
            assert store.classes == sorted(raw.WNIDS)
            assert colours(store, "train") == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4
            # The kit's numbers 1, 2, 3, 3, 2 are the ids 3, 1, 2, 2, 1, sorted by label here.
            assert store.split("val").labels.tolist() == [0, 0, 1, 1, 2]
            assert colours(store, "val") == ["red", "red", "green", "green", "blue"]
            assert store.manifest["known_images"] == {"train": 1281167, "val": 50000}
            if form != "folders":
                assert store.manifest["words"] == {wnid: f"word {wnid}" for wnid in sorted(raw.WNIDS)}
        assert len(hashes) == 1

    @pytest.mark.parametrize("beside", ["kit", "unpacked kit", "kaggle"])
    def test_flat_validation_images_find_their_labels(self, tmp_path: Path, beside: str):
        root = raw.class_folders(tmp_path / "raw")
        shutil.rmtree(root / "val")
        raw.write_tree(root / "val", raw.flat_files("ILSVRC2012", raw.VAL_NUMBERS))
        if beside == "kaggle":
            shutil.copy(raw.kaggle(tmp_path / "k") / "LOC_val_solution.csv", root)
        else:
            raw.write_kit(root / "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012")
        if beside == "unpacked kit":
            with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz") as archive:
                archive.extractall(root / "ILSVRC2012_devkit_t12", filter="data")
            (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
        store = prepared(tmp_path / "cache", root)
        assert colours(store, "val") == ["red", "red", "green", "green", "blue"]
        assert store.split("val").labels.tolist() == [0, 0, 1, 1, 2]

    def test_2010_has_test_labels_and_patches(self, tmp_path: Path):
        root = raw.imagenet2010_tars(tmp_path / "raw")
        store = prepared(tmp_path / "cache", root, data="imagenet2010")
        assert store.manifest["images"] == {"train": 12, "val": 5, "test": 2}
        assert colours(store, "test") == ["green", "blue"]
        assert store.split("test").labels.tolist() == [1, 2]
        patch = {"patch_images/train/n00000001_2.JPEG": raw.photo(0, (250, 250, 250))}
        (root / "patch_images.tar").write_bytes(raw.tar_of(patch))
        patched = prepared(tmp_path / "cache2", root, data="imagenet2010")
        changed = (stacked(store.split("train")) != stacked(patched.split("train"))).any((1, 2, 3))
        assert changed.tolist() == [False, False, True, *[False] * 9]
        assert stacked(patched.split("train"))[2].mean() > 240

    @pytest.mark.parametrize("form", ["packed", "unpacked"])
    def test_cifar_pixels_are_the_archives(self, tmp_path: Path, form: str):
        import pickle

        root = raw.cifar(tmp_path / "raw")
        if form == "unpacked":
            root = raw.write_tree(
                tmp_path / "flat", {f"cifar-10-batches-py/{n}": c for n, c in raw.cifar_batches().items()}
            )
        store = prepared(tmp_path / "cache", root, data="cifar10")
        batch = pickle.loads(raw.cifar_batches()["test_batch"])
        expected = sorted(
            zip(batch[b"labels"], batch[b"filenames"], batch[b"data"], strict=True), key=lambda row: row[:2]
        )
        images = stacked(store.split("test"))
        for (label, _, pixels), stored, image in zip(expected, store.split("test").labels, images, strict=True):
            assert stored == label
            assert np.array_equal(image, pixels.reshape(3, 32, 32).transpose(1, 2, 0))
        assert store.classes[:2] == ["airplane", "automobile"]

    def test_cifar_copies_have_the_archives_pixels_and_labels(self, tmp_path: Path):
        """PNG copies hold the archive's pixels; capitals would sort "Truck" before "airplane", and do not."""
        names = [name.capitalize() if name in ("truck", "cat") else name for name in raw.CIFAR_NAMES]
        root = raw.cifar_copies(tmp_path / "raw" / "CIFAR-10-images-master", names=names)
        copies = prepared(tmp_path / "cache", root.parent, data="cifar10")
        original = prepared(tmp_path / "cache2", raw.cifar(tmp_path / "archive"), data="cifar10")
        assert copies.classes == original.classes == raw.CIFAR_NAMES
        assert copies.manifest["source"] == "class folders, copies as PNG"
        for split in ("train", "test"):
            both = [copies.split(split), original.split(split)]
            assert both[0].labels.tolist() == both[1].labels.tolist()
            pairs = [sorted((int(n), i.tobytes()) for n, i in zip(s.labels, stacked(s), strict=True)) for s in both]
            assert pairs[0] == pairs[1]

    @pytest.mark.parametrize(("quality", "subsampling", "said"), [(75, 2, "75, 4:2:0"), (92, 0, "92, 4:4:4")])
    def test_jpeg_copies_are_stated_as_such(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], quality: int, subsampling: int, said: str
    ):
        root = raw.cifar_copies(tmp_path / "raw", "JPEG", quality=quality, subsampling=subsampling)
        store = prepared(tmp_path / "cache", root, data="cifar10")
        assert store.manifest["source"] == f"class folders, copies as JPEG, quality {said}"
        assert f"quality {said}" in capsys.readouterr().out

    def test_copies_of_several_kinds_are_all_stated(self, tmp_path: Path):
        raw.cifar_copies(tmp_path / "raw", "JPEG", quality=75)
        raw.write_tree(
            tmp_path / "raw" / "train" / "cat",
            {
                "low.jpg": raw.photo(1),  # of quality 95
                "a.png": raw.encoded(raw.flat(raw.RED), "PNG"),
                "b.png": b"no image",
            },
        )
        os.mkfifo(tmp_path / "raw" / "train" / "cat" / "pipe.png")
        source = prepared(tmp_path / "cache", tmp_path / "raw", data="cifar10").manifest["source"]
        assert source == "class folders, copies as 37 JPEG, quality 75-95, 4:2:0; 1 PNG"

    def test_a_cifar_class_that_is_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.write_tree(tmp_path / "raw", {"train/lorry/1.png": raw.encoded(raw.flat(raw.RED), "PNG")})
        assert main(["data=cifar10", f"data.raw={root}", f"data.cache={tmp_path}"]) == 2
        error = capsys.readouterr().err
        assert "class 'lorry' is not one of airplane, automobile" in error
        assert "data=folder takes any classes" in error

    def test_a_missing_cifar_class_moves_no_label(self, tmp_path: Path):
        root = raw.cifar_copies(tmp_path / "raw")
        shutil.rmtree(root / "train" / "airplane")
        store = prepared(tmp_path / "cache", root, data="cifar10")
        assert store.classes == raw.CIFAR_NAMES
        assert store.split("train").labels.min() == 1
        assert any("train has no images of airplane" in line for line in store.manifest["warnings"])

    def test_tiny_imagenet(self, tmp_path: Path):
        root = raw.tiny_imagenet(tmp_path / "tiny-imagenet-200")
        hashes = []
        for number, folder in enumerate((root, root.parent)):
            (root.parent / "cache").mkdir(exist_ok=True)
            store = prepared(tmp_path / "cache" / str(number), folder, data="folder")
            assert store.classes == sorted(raw.WNIDS)
            assert colours(store, "train") == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4
            assert colours(store, "val") == ["red", "red", "green", "green", "blue"]
            assert store.split("val").labels.tolist() == [0, 0, 1, 1, 2]
            assert store.manifest["left_out"] == []
            assert store.manifest["words"] == {wnid: f"word {wnid}" for wnid in sorted(raw.WNIDS)}
            assert store.manifest["warnings"] == ["test/ has 1 images without labels; it is left out"]
            hashes.append(store.manifest["hash"])
        assert hashes[0] == hashes[1]

    def test_tiny_imagenet_with_a_damaged_list(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.tiny_imagenet(tmp_path / "tiny-imagenet-200")
        (root / "val" / "val_annotations.txt").write_text("val_0.JPEG n00000001\n")
        assert main(["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert "val_annotations.txt: is not Tiny ImageNet's list" in capsys.readouterr().err

    def test_imagenette_packed_and_unpacked(self, tmp_path: Path):
        root = raw.imagenette(tmp_path / "raw")
        packed = prepared(tmp_path / "cache", root, data="imagenette")
        assert colours(packed, "val") == ["red", "red", "green", "green", "blue"]
        assert not list((tmp_path / "cache" / "stores").glob("*scratch*"))
        raw.class_folders(tmp_path / "flat" / "imagenette2-160")
        unpacked = prepared(tmp_path / "cache2", tmp_path / "flat", data="imagenette")
        assert unpacked.manifest["hash"] == packed.manifest["hash"]

    def test_it_ends_with_the_line_that_trains(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        """Also for a path that a shell would take apart."""
        root = raw.class_folders(tmp_path / "my images")
        where = [f'data.raw="{root}"', f"data.cache={tmp_path / 'cache'}"]
        assert main(["recipe=imagenette_cpu", "data=folder", *where, "data.on_bad=stop"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        start = "Train on it: alexlab train "
        assert last.startswith(start)
        words = shlex.split(last.removeprefix(start))
        assert words == ["recipe=imagenette_cpu", "data=folder", *where]
        config = load(words).data
        store = open_store(store_path(config))
        assert (config.num_classes, config.size) == (len(store.classes), store.manifest["size"]) == (3, 110)

    def test_own_images_have_a_recipe_and_a_contact_sheet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        """The three lines of a newcomer: the last one of preparing is the next to type."""
        root = raw.class_folders(tmp_path / "photos")
        where = [f"data.raw={root}", f"data.cache={tmp_path / 'cache'}"]
        assert main(["data=folder", *where]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[-1] == f"Train on it: alexlab train {shlex.join(['recipe=folder', *where])}"
        config = load(["recipe=folder", *where])
        store = open_store(store_path(config.data))
        assert (config.data.num_classes, config.model.width) == (3, 0.25)
        assert f"Classes: {', '.join(store.classes)}" in printed
        sheet = store.path.with_name(f"{store.path.name}.png")
        assert f"Contact sheet: {sheet}" in printed
        assert not [file for file in store.path.iterdir() if file.suffix == ".png"]  # or a copy would have it, too

        # Each stored image of train, by class, is a tile of its own colour, from the left.
        picture = np.asarray(Image.open(sheet)).astype(int)
        split = store.split("train")
        for place in range(len(split)):
            left, top = 8 + (place % 10) * 120, 24 + (place // 10) * 136
            tile = picture[top : top + 112, left : left + 112]
            np.testing.assert_allclose(tile.mean((0, 1)), split.image(place).mean((0, 1)), atol=3)

        sheet.unlink()
        sheet.mkdir()  # where no picture can be written
        assert main(["data=folder", *where]) == 0
        assert "No contact sheet: " in capsys.readouterr().out

    def test_a_store_of_another_size_names_its_recipe(self, tmp_path: Path):
        """Whoever prepares `data=imagenette` and trains with the same words has the demo's recipe, of 110 px."""
        root = raw.imagenette(tmp_path / "raw")
        where = [f"data.raw={root}", f"data.cache={tmp_path / 'cache'}"]
        asked = load(["data=imagenette", *where]).data
        assert main(["data=imagenette", *where]) == 0
        with pytest.raises(ConfigError, match=r"there is one of 146 px, for recipe=imagenette; make it: "):
            locate.stored_manifest(asked)
        assert main(["recipe=imagenette", "data.size=32", *where]) == 0
        said = "there is one of 32 px, for data.size=32; there is one of 146 px, for recipe=imagenette; make it: "
        with pytest.raises(ConfigError, match=said):
            locate.stored_manifest(asked)

    def test_the_command_that_makes_a_store_can_be_copied(self, tmp_path: Path):
        config = load(["data=imagenet2012", f"data.cache={tmp_path}"]).data
        for folder, typed in (
            ("/a/b", "data.raw=/a/b data.size=110"),
            ("/my photos", "'data.raw=/my photos' data.size=110"),
            ("/été", "'data.raw=\"/été\"' data.size=110"),
        ):
            with pytest.raises(ConfigError) as caught:
                locate.stored_manifest(replace(config, raw=folder))
            assert str(caught.value).endswith(f"make it: python src/prepare.py data=imagenet2012 {typed}")
            assert "; recipe=imagenet2012 takes another size; " in str(caught.value)

    def test_a_deep_tree_and_names_of_any_kind(self, tmp_path: Path):
        files = {
            "train/ä b/images/deep/1.JPG": raw.photo(1),
            "train/ä b/images/2.jpeg": raw.photo(2),
            "train/c/new\nline.png": raw.encoded(raw.flat(raw.BLUE), "PNG"),
            "valid/c/x=1,[2].bmp": raw.encoded(raw.flat(raw.BLUE), "BMP"),
        }
        root = raw.write_tree(tmp_path / "raw", files)
        (root / "train" / "c" / os.fsdecode(b"\xff.jpg")).write_bytes(raw.photo(3, raw.BLUE))
        store = prepared(tmp_path / "cache", root, data="folder")
        assert store.classes == ["c", "ä b"]
        assert colours(store, "train") == ["blue", "blue", "red", "red"]
        names = (store.path / "train_names.txt").read_text().splitlines()
        assert names == ["c/new\\nline.png", "c/\\udcff.jpg", "ä b/images/deep/1.JPG", "ä b/images/2.jpeg"]


class TestMissing:
    @pytest.mark.parametrize(
        ("gone", "named"),
        [
            ("ILSVRC2012_devkit_t12.tar.gz", "has no ILSVRC2012_devkit_t12.tar.gz"),
            ("ILSVRC2012_img_val.tar", "has no ILSVRC2012_img_val.tar"),
            ("ILSVRC2012_img_train.tar", "has no ILSVRC2012_img_train.tar"),
        ],
    )
    def test_a_missing_file_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: str, named: str):
        root = raw.imagenet_tars(tmp_path / "raw")
        (root / gone).unlink()
        assert main(["data=imagenet2012", f"data.raw={root}", f"data.cache={tmp_path}"]) == 2
        assert named in capsys.readouterr().err

    def test_class_folders_without_a_split_are_told_where_to_go(self, tmp_path: Path, capsys):
        raw.write_tree(tmp_path / "raw", {"apples/a.png": b"x", "pears/b.png": b"x"})
        assert main(["data=folder", f"data.raw={tmp_path / 'raw'}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert "it holds apples, pears; if these are classes, move" in capsys.readouterr().err

    @pytest.mark.parametrize("data", ["imagenet2012", "imagenet2010", "folder", "imagenette", "cifar10"])
    @pytest.mark.parametrize("root", ["empty", "absent", "other"])
    def test_what_is_needed_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, root: str):
        (tmp_path / "empty").mkdir()
        raw.write_tree(tmp_path / "other", {"notes.txt": b"x"})
        assert main([f"data={data}", f"data.raw={tmp_path / root}", f"data.cache={tmp_path / 'c'}"]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: data.raw={tmp_path / root}: ")
        wanted = {"empty": "it holds nothing", "absent": "there is no such folder", "other": "it holds notes.txt"}
        assert wanted[root] in told
        assert f"Then: alexlab prepare data={data} data.raw=DIR" in told
        if data.startswith("imagenet20"):
            assert "138 GB" in told or "124 GB" in told
            assert "image-net.org" in told

    def test_without_any_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["data=imagenet2012", f"data.cache={tmp_path}"]) == 2
        assert "data.raw=null: must be the folder of imagenet2012" in capsys.readouterr().err
        assert main([]) == 2
        assert "no data set: name one" in capsys.readouterr().err
        assert main(["data=imagenet2012", "optim.lr=3"]) == 2
        assert "optim.lr=3: does not affect a store" in capsys.readouterr().err
        assert main(["data=imagenet"]) == 2
        assert "there is no data 'imagenet'; did you mean" in capsys.readouterr().err

    @pytest.mark.parametrize(("data", "fetcher"), [("cifar10", "CIFAR10"), ("imagenette", "Imagenette")])
    def test_fetched_where_that_is_allowed(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        data: str,
        fetcher: str,
    ):
        """torchvision's classes leave these files; here they are put there, for want of a network."""
        import torchvision.datasets

        def fetch(root: str, download: bool) -> None:
            assert download
            if data == "cifar10":
                raw.cifar(Path(root))
            else:
                raw.class_folders(Path(root) / "imagenette2")

        monkeypatch.setattr(torchvision.datasets, fetcher, fetch)
        cache = tmp_path / "cache"
        assert main([f"data={data}", f"data.cache={cache}", "data.size=32"]) == 0
        assert f"Fetching {data}" in capsys.readouterr().out

        def fail(root: str, download: bool) -> None:
            raise OSError("no network")

        monkeypatch.setattr(torchvision.datasets, fetcher, fail)
        assert main([f"data={data}", f"data.cache={tmp_path / 'c2'}"]) == 2
        assert f"{data} could not be fetched (no network)" in capsys.readouterr().err


def cut_inner(root: Path) -> None:
    """The second class's tar ends in the middle, as a broken copy leaves it, while the outer tar is whole."""
    inner = {f"{wnid}.tar": raw.tar_of(files) for wnid, files in raw.train_files().items()}
    inner["n00000002.tar"] = inner["n00000002.tar"][:2500]
    (root / "ILSVRC2012_img_train.tar").write_bytes(raw.tar_of(inner))


def cut_inner_between(root: Path) -> None:
    """Likewise, exactly between two images, where a tar reader sees nothing wrong."""
    inner = {f"{wnid}.tar": raw.tar_of(files) for wnid, files in raw.train_files().items()}
    first = next(iter(raw.train_files()["n00000002"].values()))
    inner["n00000002.tar"] = inner["n00000002.tar"][: 512 + -(-len(first) // 512) * 512]
    (root / "ILSVRC2012_img_train.tar").write_bytes(raw.tar_of(inner))


def damaged_header(root: Path) -> None:
    inner = {f"{wnid}.tar": raw.tar_of(files) for wnid, files in raw.train_files().items()}
    first = next(iter(raw.train_files()["n00000002"].values()))
    at = 512 + -(-len(first) // 512) * 512
    content = bytearray(inner["n00000002.tar"])
    content[at : at + 300] = b"\xaa" * 300
    inner["n00000002.tar"] = bytes(content)
    (root / "ILSVRC2012_img_train.tar").write_bytes(raw.tar_of(inner))


def cut(name: str, share: float):
    def do(root: Path) -> None:
        path = root / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return do


CUTS = {
    "an inner tar": (cut_inner, "its n00000002.tar is truncated or corrupt"),
    "an inner tar between two images": (cut_inner_between, "its n00000002.tar is truncated or corrupt"),
    "an inner tar's header": (damaged_header, "its n00000002.tar is truncated or corrupt"),
    "the outer tar": (cut("ILSVRC2012_img_train.tar", 0.6), "ILSVRC2012_img_train.tar: is truncated or corrupt"),
    "val": (cut("ILSVRC2012_img_val.tar", 0.5), "ILSVRC2012_img_val.tar: is truncated or corrupt"),
    "the kit": (cut("ILSVRC2012_devkit_t12.tar.gz", 0.5), "ILSVRC2012_devkit_t12.tar.gz: is truncated or corrupt"),
    "an empty tar": (cut("ILSVRC2012_img_val.tar", 0), "ILSVRC2012_img_val.tar: is truncated or corrupt"),
}


class TestHostile:
    @pytest.mark.parametrize("case", CUTS)
    def test_cut_tars_are_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str):
        root = raw.imagenet_tars(tmp_path / "raw")
        CUTS[case][0](root)
        assert main(["data=imagenet2012", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert CUTS[case][1] in capsys.readouterr().err
        assert not list((tmp_path / "c" / "stores").glob("*/manifest.json"))

    def test_nothing_leaves_the_tar(self, tmp_path: Path):
        """Names that climb, absolute names, links and devices: nothing is written, and each is named."""
        link, hard, device = (tarfile.TarInfo(name) for name in ("n00000001_8.JPEG", "n00000001_9.JPEG", "dev"))
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        hard.type, hard.linkname = tarfile.LNKTYPE, "../../x"
        device.type = tarfile.CHRTYPE
        outside = tmp_path / "outside.JPEG"
        members = [
            *((tarfile.TarInfo(name), content) for name, content in raw.train_files()["n00000001"].items()),
            *((info, b"") for info in (link, hard, device)),
            (tarfile.TarInfo("../../../../../../outside.JPEG"), raw.photo(1)),
            (tarfile.TarInfo(str(outside)), raw.photo(2)),
            (tarfile.TarInfo("readme.txt"), b"x"),
        ]
        root = raw.imagenet_tars(tmp_path / "raw")
        inner = {f"{wnid}.tar": raw.tar_of(files) for wnid, files in raw.train_files().items()}
        inner["n00000001.tar"] = raw.tar_of(members)
        inner["../n00000009.tar"] = raw.tar_of(raw.train_files()["n00000001"])
        (root / "ILSVRC2012_img_train.tar").write_bytes(raw.tar_of(inner))
        before = sorted(path for path in tmp_path.rglob("*"))
        store = prepared(tmp_path / "cache", root)
        new = [path for path in tmp_path.rglob("*") if path not in before]
        assert all(path == tmp_path / "cache" or tmp_path / "cache" in path.parents for path in new)
        assert store.manifest["images"]["train"] == 12
        reasons = {item["name"].rpartition(" ")[2]: item["reason"] for item in store.manifest["left_out"]}
        assert reasons == {
            "n00000001_8.JPEG": "a link in the tar",
            "n00000001_9.JPEG": "a link in the tar",
            "dev": "not a regular file in the tar",
            "../../../../../../outside.JPEG": "its name leads out of the tar",
            str(outside): "its name leads out of the tar",
            "readme.txt": "not an image by its name",
            "../n00000009.tar": "its name leads out of the tar",
        }

    def test_a_pickle_calls_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        class Call:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'called'}",)

        import pickle

        batches = raw.cifar_batches() | {"data_batch_2": pickle.dumps(Call())}
        root = raw.write_tree(tmp_path / "raw", {f"cifar-10-batches-py/{n}": c for n, c in batches.items()})
        assert main(["data=cifar10", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert "data_batch_2 is truncated or not a plain pickle" in capsys.readouterr().err
        assert not (tmp_path / "called").exists()

    @pytest.mark.parametrize("kind", ["pointer", "objects", "numbers", "index"])
    def test_a_pickle_makes_bytes_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str):
        """An array of objects would follow pointers that the file gives; an index of its memory would be allocated."""
        import pickle

        class Pointer:
            def __reduce__(self):
                return np.ndarray, ((1,), np.dtype("O"), b"AAAAAAAA")

        content = {
            "pointer": pickle.dumps({b"data": Pointer()}, protocol=2),
            "objects": pickle.dumps({b"data": np.array([None])}, protocol=2),
            "numbers": pickle.dumps({b"data": np.array([[1] * 3072], np.int64)}, protocol=2),
            "index": b"\x80\x02}r\xff\xff\xff\x7f.",
        }[kind]
        batches = raw.cifar_batches() | {"data_batch_2": content}
        root = raw.write_tree(tmp_path / "raw", {f"cifar-10-batches-py/{n}": c for n, c in batches.items()})
        limits = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
        try:
            assert main(["data=cifar10", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        told = capsys.readouterr().err
        assert "CIFAR-10's data_batch_" in told
        assert told.count("\n") == 1

    def test_pipes_devices_and_links_in_a_tree(self, tmp_path: Path):
        root = raw.class_folders(tmp_path / "raw")
        folder = root / "train" / "n00000001"
        os.mkfifo(folder / "pipe.JPEG")
        (folder / "zero.JPEG").symlink_to("/dev/zero")
        (folder / "gone.JPEG").symlink_to(tmp_path / "nowhere")
        (folder / "loop.JPEG").symlink_to(folder / "loop.JPEG")
        (folder / "up").symlink_to(root)
        (folder / "linked.JPEG").symlink_to(folder / "n00000001_0.JPEG")
        (root / "train" / "stray.JPEG").write_bytes(raw.photo(9))
        store = prepared(tmp_path / "cache", root, data="folder")
        reasons = {item["name"]: item["reason"] for item in store.manifest["left_out"]}
        assert reasons.pop("n00000001/loop.JPEG").startswith("cannot be read")
        assert reasons == {
            "n00000001/pipe.JPEG": "not a regular file",
            "n00000001/zero.JPEG": "not a regular file",
            "n00000001/gone.JPEG": "a broken link",
            "train/n00000001/up": "a link to a folder",
            "train/stray.JPEG": "is next to the class folders, not in one",
        }
        assert store.manifest["images"]["train"] == 13  # the linked one is read
        assert store.manifest["duplicates"]["within"] == [
            ["train/n00000001/linked.JPEG", "train/n00000001/n00000001_0.JPEG"]
        ]


def odd_tree(root: Path) -> Path:
    """Three classes with odd and bad files among the good ones."""
    raw.class_folders(root)
    good = {
        "n00000001/a_png.JPEG": raw.encoded(raw.flat(raw.RED), "PNG"),
        "n00000001/b_cmyk.JPEG": raw.adobe_cmyk(),
        "n00000002/c_turned.JPEG": raw.turned(6, raw.flat(raw.GREEN)),
        "n00000002/d_grey.JPEG": raw.encoded(Image.new("L", (50, 40), 90)),
        "n00000002/e_exif.JPEG": raw.broken_exif(),
        "n00000003/f_strip.JPEG": raw.encoded(raw.flat(raw.BLUE, 2, 3000)),
    }
    bad = {
        "n00000001/z_cut.JPEG": raw.encoded(raw.flat(raw.RED, 200, 200))[:3000],
        "n00000002/z_bomb.JPEG": raw.png(20000, 10000),
        "n00000002/z_empty.JPEG": b"",
        "n00000003/z_page.JPEG": b"<html>no</html>",
    }
    raw.write_tree(root / "train", good | bad)
    return raw.write_tree(root, {"val/n00000003/z_half.JPEG": raw.half_grey(raw.flat(raw.BLUE, 200, 200))})


class TestReport:
    def test_every_odd_file_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = odd_tree(tmp_path / "raw")
        copied = next((root / "train" / "n00000002").glob("n*.JPEG"))
        shutil.copy(copied, root / "val" / "n00000002" / "copy.JPEG")
        for name in (".DS_Store", "._x.JPEG", "Thumbs.db"):
            (root / "train" / name).write_bytes(b"x")
            (root / "train" / "n00000001" / name).write_bytes(b"x")
        (root / "train" / ".ipynb_checkpoints").mkdir()
        store = prepared(tmp_path / "cache", root, data="folder")
        manifest = store.manifest
        assert manifest["images"] == {"train": 18, "val": 6}
        assert manifest["class_counts"] == {"train": [6, 7, 5], "val": [2, 3, 1]}
        assert {kind: [Path(name).name for name in names] for kind, names in manifest["converted"].items()} == {
            "CMYK": ["b_cmyk.JPEG"],
            "turned upright": ["c_turned.JPEG"],
            "PNG named .jpeg": ["a_png.JPEG"],
            "grey": ["d_grey.JPEG"],
        }
        assert [(item["split"], Path(item["name"]).name) for item in manifest["left_out"]] == [
            ("train", "z_cut.JPEG"),
            ("train", "z_bomb.JPEG"),
            ("train", "z_empty.JPEG"),
            ("train", "z_page.JPEG"),
            ("val", "z_half.JPEG"),
        ]
        assert manifest["duplicates"]["across"] == [[f"train/n00000002/{copied.name}", "val/n00000002/copy.JPEG"]]
        labels = store.split("train").labels
        names = (store.path / "train_names.txt").read_text().splitlines()
        assert [store.classes[label] for label in labels] == [name.split("/")[0] for name in names]
        by_name = dict(zip(names, stacked(store.split("train")), strict=True))
        np.testing.assert_allclose(by_name["n00000001/b_cmyk.JPEG"].mean((0, 1)), (255, 35, 35), atol=6)
        np.testing.assert_allclose(by_name["n00000001/a_png.JPEG"].mean((0, 1)), raw.RED, atol=6)
        told = capsys.readouterr().out
        assert "Left out: 5" in told
        assert "z_page.JPEG: a web page" in told
        assert "The same file in two splits: 1" in told
        assert manifest["hash"] in told

    def test_the_mean_leaves_bad_files_and_val_out(self, tmp_path: Path):
        store = prepared(tmp_path / "cache", odd_tree(tmp_path / "raw"), data="folder")
        images = stacked(store.split("train")).astype(np.float64)
        np.testing.assert_allclose(store.mean, images.mean(0), rtol=1e-6)
        covariance = np.cov(images.reshape(-1, 3).T / 255, bias=True)
        np.testing.assert_allclose(store.components * store.variances @ store.components.T, covariance, rtol=1e-9)

    def test_stop_on_the_first_bad_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = odd_tree(tmp_path / "raw")
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}", "data.on_bad=stop"]
        assert main(given) == 2
        assert "n00000001/z_cut.JPEG of train: a truncated or corrupt JPEG" in capsys.readouterr().err
        assert main(["data=imagenet2012", f"data.raw={root}", f"data.cache={tmp_path / 'c'}", "data.on_bad=stop"]) == 2
        assert "train: 22 images, where imagenet2012 is known to have 1281167" in capsys.readouterr().err

    def test_a_class_missing_in_val_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.class_folders(tmp_path / "raw")
        shutil.rmtree(root / "val" / "n00000002")
        (root / "train" / "n00000000").mkdir()
        store = prepared(tmp_path / "cache", root, data="folder")
        assert store.split("val").labels.tolist() == [0, 0, 2]
        told = capsys.readouterr().out
        assert "val has no images of n00000002; labels do not shift" in told
        assert "train/n00000000: a folder without images" in told

    @pytest.mark.parametrize("count", [0, 1, 3])
    @pytest.mark.parametrize("kind", ["raw", "jpeg"])
    def test_stores_of_few_images(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, kind: str):
        files = {f"train/a/{index}.JPEG": raw.photo(index) for index in range(count)}
        root = raw.write_tree(tmp_path / "raw", {**files, "train/b/notes.txt": b""})
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}", f"data.format={kind}"]
        if count == 0:
            assert main(given) == 2
            assert "has no images" in capsys.readouterr().err
            return
        store = prepared(tmp_path / "c", root, f"data.format={kind}", data="folder")
        assert stacked(store.split("train")).shape == (count, 32, 32, 3)
        assert find_corruption(store.path, 1) == []
        assert np.isfinite(store.components).all()

    def test_nothing_but_bad_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.write_tree(tmp_path / "raw", {"train/a/1.JPEG": b"x", "train/b/2.JPEG": b""})
        assert main(["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert "none of 2 files could be stored; a/1.JPEG: not an image of a known format" in capsys.readouterr().err


# A process that saves after each part of a few images, and kills itself after a chosen call of a builder's method.
BUILD = """
import os, signal, sys
from pathlib import Path
from alexlab.data import build
from alexlab.data.sources import source as listing
from alexlab.data.sources.folders import read_folders
root, store, kind, step, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
whole = listing.chunks
listing.chunks = lambda rows, size=3: whole(rows, 3)
if number:
    method, calls = getattr(build._Builder, step), 0
    def counted(self, *args):
        global calls
        method(self, *args)
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(build._Builder, step, counted)
build.build_store(read_folders(root), store, 32, "folder", kind, seconds_between_checkpoints=0.0)
"""


def built(root: Path, store: Path, kind: str, step: str = "", number: int = 0) -> int:
    """The exit status of that process, which is killed after the `number`-th call of `step`, if not before its end."""
    return subprocess.run([sys.executable, "-c", BUILD, str(root), str(store), kind, step, str(number)]).returncode


def contents(path: Path) -> dict[str, bytes]:
    found = {file.name: file.read_bytes() for file in path.iterdir()}
    manifest = json.loads(found.pop("manifest.json"))
    return {**found, "manifest": json.dumps({**manifest, "seconds": 0}).encode()}


class TestInterrupted:
    @pytest.mark.parametrize("kind", ["raw", "jpeg"])
    def test_killed_it_goes_on_to_the_same_bytes(self, tmp_path: Path, kind: str):
        root = odd_tree(tmp_path / "raw")  # 8 parts of train, 2 of val
        assert built(root, tmp_path / "whole", kind) == 0
        store, progress = tmp_path / "killed", []
        for step, number in (("_save", 1), ("_add_part", 1), ("_add_part", 2), ("_save", 2), ("_add_part", 3)):
            assert built(root, store, kind, step, number) == -signal.SIGKILL
            with np.load(unfinished(store) / "progress.npz") as found:
                progress.append(int(found["parts"]))
        assert progress == [1, 1, 2, 4, 6]  # each resumes from what the one before it saved
        assert built(root, store, kind, "finish", 1) == -signal.SIGKILL  # only the last rename is missing
        assert not store.exists()
        assert built(root, store, kind) == 0
        assert contents(store) == contents(tmp_path / "whole")

    def test_done_twice_does_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.class_folders(tmp_path / "raw")
        store = prepared(tmp_path / "cache", root)
        before = {file: file.stat().st_mtime_ns for file in store.path.iterdir()}
        shutil.rmtree(root)
        prepared(tmp_path / "cache", root)
        assert {file: file.stat().st_mtime_ns for file in store.path.iterdir()} == before
        assert f"already exists, made from {root}; nothing to do" in capsys.readouterr().out

    def test_several_processes_give_the_same_bytes(self, tmp_path: Path):
        root = odd_tree(tmp_path / "raw")
        for name, processes in (("one", 1), ("three", 3)):
            build_store(read_folders(root), tmp_path / name, 32, "folder", "jpeg", processes=processes)
        assert contents(tmp_path / "one") == contents(tmp_path / "three")

    def test_a_full_disk_is_told_and_goes_on(self, tmp_path: Path):
        """A limit on the size of files stands for the disk, and is then lifted."""
        root = raw.class_folders(tmp_path / "raw")
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from alexlab.data.build import build_store; from alexlab.data.sources.folders import read_folders\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
            "build_store(read_folders(Path(sys.argv[1])), Path(sys.argv[2]), 32, 'folder', 'jpeg')"
        )
        store = tmp_path / "store"
        done = subprocess.run([sys.executable, "-c", code, str(root), str(store)], capture_output=True, text=True)
        assert done.returncode == 1
        assert "the disk is full" in done.stderr.splitlines()[-1]
        assert "run the same command again; it resumes from image" in done.stderr.splitlines()[-1]
        build_store(read_folders(root), store, 32, "folder", "jpeg")
        build_store(read_folders(root), tmp_path / "whole", 32, "folder", "jpeg")
        assert contents(store) == contents(tmp_path / "whole")


class TestSpace:
    def test_the_larger_format_that_fits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
        root = raw.class_folders(tmp_path / "raw")
        raw_bytes, jpeg_bytes = (needed_bytes(17, 300, kind) for kind in ("raw", "jpeg"))
        assert jpeg_bytes < raw_bytes
        for free, kind in ((raw_bytes, "raw"), (raw_bytes - 1, "jpeg")):
            monkeypatch.setattr(locate, "free_bytes", lambda folder, free=free: free)
            store = prepared(tmp_path / kind, root, "data.size=300")
            assert store.manifest["format"] == kind
            assert f"Format {kind}: " in capsys.readouterr().out
        monkeypatch.setattr(locate, "free_bytes", lambda folder: jpeg_bytes - 1)
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'none'}", "data.size=300"]
        assert main(given) == 1
        told = capsys.readouterr().err
        assert "17 images at 300 px need" in told
        assert "set data.cache to another disk" in told
        assert main([*given, "data.format=raw"]) == 1

    def test_an_unfinished_store_needs_the_rest_of_its_space(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        root = raw.class_folders(tmp_path / "raw")
        given = [f"data.raw={root}", f"data.cache={tmp_path / 'cache'}", "data.size=300"]
        work = unfinished(store_path(load_data([*given, "data.format=raw"])))
        work.mkdir(parents=True)
        (work / "train.npy").write_bytes(bytes(2**20))
        held = (work / "train.npy").stat().st_blocks * 512
        assert held >= 2**20
        rest = needed_bytes(17, 300, "raw") - held
        monkeypatch.setattr(locate, "free_bytes", lambda folder: rest - 1)
        assert main(["data=folder", *given]) == 1
        told = capsys.readouterr().err
        assert re.fullmatch(rf"error: {re.escape(str(work))}: needs .* more, .* are free; free up space\n", told), told
        monkeypatch.setattr(locate, "free_bytes", lambda folder: rest)
        assert main(["data=folder", *given]) == 0
        assert f"Resuming {work}" in capsys.readouterr().out

    def test_imagenet_takes_what_the_documentation_says(self):
        assert 250e9 < needed_bytes(1331167, 256, "raw") < 265e9
        assert 35e9 < needed_bytes(1331167, 256, "jpeg") < 50e9


class TestCheck:
    @pytest.fixture
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
        kind = request.param if hasattr(request, "param") else "raw"
        return prepared(tmp_path / "cache", raw.class_folders(tmp_path / "raw"), f"data.format={kind}")

    def check(self, store: Store) -> int:
        return main(["check", "data=imagenet2012", f"data.cache={store.path.parents[1]}", "data.size=32"])

    @pytest.mark.parametrize("store", ["raw", "jpeg"], indirect=True)
    def test_whole_then_damaged(self, store: Store, capsys: pytest.CaptureFixture[str]):
        assert self.check(store) == 0
        assert "every image is intact" in capsys.readouterr().out
        file = next(store.path.glob("train.npy"), None) or store.path / "train.jpegs"
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
        assert self.check(store) == 1
        assert "train image 11" in capsys.readouterr().out
        file.write_bytes(content[:-100])
        assert self.check(store) == 1

    @pytest.mark.parametrize("name", ["train_labels.npy", "val_stored.npy", "mean.npy"])
    def test_damaged_lists(self, store: Store, capsys: pytest.CaptureFixture[str], name: str):
        content = bytearray((store.path / name).read_bytes())
        content[-1] ^= 1
        (store.path / name).write_bytes(content)
        assert self.check(store) == 1
        (store.path / name).unlink()
        assert self.check(store) == 1

    def test_no_store(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["check", "data=imagenet2012", f"data.cache={tmp_path}"]) == 2
        assert "there is no store at" in capsys.readouterr().err

    def test_staged(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        copy = staged(store.path, tmp_path / "local")
        assert contents(copy) == contents(store.path)
        stamp = copy.stat().st_mtime_ns
        assert staged(store.path, tmp_path / "local") == copy
        assert copy.stat().st_mtime_ns == stamp
        file = store.path / "train.npy"
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match="the copy differs"):
            staged(store.path, tmp_path / "another")
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))  # pyright: ignore
        with pytest.raises(OSError, match="the store needs"):
            staged(store.path, tmp_path / "full")


class TestHoldout:
    def reference(self, labels: np.ndarray, content: np.ndarray, count: int) -> set[int]:
        chosen: set[int] = set()
        for label in set(labels.tolist()):
            rows = [row for row in range(len(labels)) if labels[row] == label]
            chosen |= set(sorted(rows, key=lambda row: content[row].tobytes())[:count])
        return chosen

    @pytest.mark.parametrize("count", [1, 7, 20])
    def test_smallest_hashes_of_each_class(self, count: int):
        rng = np.random.default_rng(0)
        labels = np.sort(rng.integers(0, 9, 400))
        content = rng.integers(0, 256, (400, 16), dtype=np.uint8)
        held = held_out(labels, content, count)
        assert set(np.flatnonzero(held)) == self.reference(labels, content, count)
        # Whatever else there is: the same images from a shuffled set, and from one with another class.
        order = rng.permutation(400)
        assert np.array_equal(held_out(labels[order], content[order], count), held[order])
        more = held_out(np.concatenate([labels, [99]]), np.concatenate([content, content[:1]]), count)
        assert np.array_equal(more[:400], held)

    def test_copies_stay_together(self):
        content = np.repeat(np.arange(4, dtype=np.uint8)[:, None], 16, 1)[[0, 1, 1, 1, 2, 3]]
        assert held_out(np.zeros(6, int), content, 2).tolist() == [True, True, True, True, False, False]

    def test_roles(self, tmp_path: Path):
        store = prepared(tmp_path / "cache", raw.class_folders(tmp_path / "raw"))
        train, val, test = (store.role(role, 1) for role in ("train", "val", "test"))
        assert (len(train), len(val), len(test)) == (9, 3, 5)
        assert np.bincount(val.labels).tolist() == [1, 1, 1]
        images = {image.tobytes() for image in stacked(train)}
        assert not images & {image.tobytes() for image in stacked(val)}
        assert np.array_equal(stacked(test), stacked(store.split("val")))
        assert len(store.role("train")) == 12
        assert np.array_equal(stacked(store.role("val")), stacked(store.role("test")))

    def test_too_many(self, tmp_path: Path):
        cache = tmp_path / "cache"
        prepared(cache, raw.class_folders(tmp_path / "raw"), data="folder")
        given = [
            "data=folder",
            f"data.raw={tmp_path / 'raw'}",
            f"data.cache={cache}",
            "data.size=32",
            "data.crop_size=32",
        ]
        small = ["pool.after=[]", "model.conv1_stride=1", "model.width=0.1", "model.hidden=8"]
        assert load([*given, *small, "data.holdout=1"]).data.num_classes == 3
        with pytest.raises(ValueError, match=r"no image is left for train; data.holdout=4 is too large"):
            load([*given, *small, "data.holdout=4"])


def test_unknown_forms_are_named(tmp_path: Path):
    raw.write_tree(tmp_path, {"data/train-0.parquet": b"PAR1 cut"})
    from alexlab.data.sources.parquet import find_shards, read_parquet

    with pytest.raises(RawError, match=r"train-0.parquet: is truncated or corrupt"):
        read_parquet(tmp_path, find_shards(tmp_path))


class TestGoingOn:
    """What an interruption left is only used for the very files and wishes that it was made with."""

    @pytest.fixture(autouse=True)
    def _small_parts(self, monkeypatch: pytest.MonkeyPatch):
        whole = listing.chunks
        monkeypatch.setattr(listing, "chunks", lambda rows, size=3: whole(rows, 3))

    def interrupted(self, root: Path, store: Path, monkeypatch: pytest.MonkeyPatch, parts: int = 3) -> None:
        take_in, taken = _Builder._add_part, []

        def stop(self: _Builder, *args: Any) -> None:
            if len(taken) == parts:
                raise KeyboardInterrupt
            taken.append(1)
            take_in(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(_Builder, "_add_part", stop)
            with pytest.raises(KeyboardInterrupt):
                build_store(read_folders(root), store, 32, "folder")

    def build(self, root: Path, store: Path, **options: Any) -> Store:
        build_store(read_folders(root), store, 32, "folder", **options)
        return open_store(store)

    def test_replaced_files_are_not_mixed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        root = raw.class_folders(tmp_path / "raw")
        self.interrupted(root, tmp_path / "store", monkeypatch)
        for path in (root / "train").rglob("*.JPEG"):
            path.write_bytes(raw.photo(1, (250, 250, 250)))
        assert stacked(self.build(root, tmp_path / "store").split("train")).mean() > 240

    def test_mended_files_are_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        root = odd_tree(tmp_path / "raw")
        self.interrupted(root, tmp_path / "store", monkeypatch)
        (root / "train" / "n00000001" / "z_cut.JPEG").write_bytes(raw.photo(4))
        names = [item["name"] for item in self.build(root, tmp_path / "store").manifest["left_out"]]
        assert "n00000002/z_empty.JPEG" in names
        assert "n00000001/z_cut.JPEG" not in names

    def test_stop_minds_what_was_left_out_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        root = odd_tree(tmp_path / "raw")
        self.interrupted(root, tmp_path / "store", monkeypatch)
        with pytest.raises(BadImage, match=r"z_cut.JPEG of train"):
            self.build(root, tmp_path / "store", stop_on_bad=True)

    def test_nothing_but_pointers_and_then_the_files(self, tmp_path: Path):
        root = raw.class_folders(tmp_path / "raw")
        files = {path: path.read_bytes() for path in root.rglob("*.JPEG")}
        for path in files:
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(BadImage, match="a Git LFS pointer"):
            self.build(root, tmp_path / "store")
        for path, content in files.items():
            path.write_bytes(content)
        assert len(self.build(root, tmp_path / "store").split("train")) == 12

    @pytest.mark.parametrize("damage", ["garbage", "zip", "short", "gone"])
    def test_damaged_progress_begins_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str):
        root = odd_tree(tmp_path / "raw")
        self.interrupted(root, tmp_path / "store", monkeypatch, parts=6)
        work = unfinished(tmp_path / "store")
        if damage == "short":
            (work / "notes.jsonl").write_bytes(b"")
        elif damage == "gone":
            (work / "train_state.part").unlink()
        else:
            (work / "progress.npz").write_bytes(b"x" if damage == "garbage" else b"PK\3\4garbage")
        found = contents_of(self.build(root, tmp_path / "store"))
        assert found == contents_of(self.build(root, tmp_path / "whole"))

    def test_lists_that_a_power_cut_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        root = raw.class_folders(tmp_path / "raw")
        self.interrupted(root, tmp_path / "store", monkeypatch)
        state = unfinished(tmp_path / "store") / "train_state.part"
        state.write_bytes(bytes(state.stat().st_size))
        with pytest.raises(BadImage, match="its lists are corrupt; remove it"):
            self.build(root, tmp_path / "store")

    def test_killed_before_its_last_name(self, tmp_path: Path):
        root = raw.class_folders(tmp_path / "raw")
        whole = self.build(root, tmp_path / "whole")
        work = unfinished(tmp_path / "store")
        shutil.copytree(whole.path, work)
        (work / "val_places.part").write_bytes(b"x")
        (work / "notes.jsonl").write_bytes(b"")
        assert contents_of(self.build(root, tmp_path / "store")) == contents_of(whole)

    def finish(self, root: Path, store: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        """All but the last rename."""

        def stop(*_: Path) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(build, "rename_folder", stop)
            with pytest.raises(KeyboardInterrupt):
                self.build(root, store, **options)
        assert (unfinished(store) / "manifest.json").is_file()

    def test_a_finished_store_of_other_files_is_not_published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        root = raw.class_folders(tmp_path / "raw")
        self.finish(root, tmp_path / "store", monkeypatch)
        for path in (root / "train").rglob("*.JPEG"):
            path.write_bytes(raw.photo(1, (250, 250, 250)))
        assert stacked(self.build(root, tmp_path / "store").split("train")).mean() > 240
        self.finish(root, tmp_path / "again", monkeypatch)
        before = (unfinished(tmp_path / "again") / "train.npy").stat().st_mtime_ns
        assert (self.build(root, tmp_path / "again").path / "train.npy").stat().st_mtime_ns == before  # only renamed

    def test_stop_minds_what_a_finished_store_left_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        root = odd_tree(tmp_path / "raw")
        self.finish(root, tmp_path / "store", monkeypatch)
        with pytest.raises(BadImage, match=r"z_cut.JPEG of train"):
            self.build(root, tmp_path / "store", stop_on_bad=True)
        assert not (tmp_path / "store").exists()

    def test_a_short_write_is_completed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A disk takes a part of a write before it is full."""
        pwrite = os.pwrite

        def short(file: int, data: Any, offset: int) -> int:
            return pwrite(file, memoryview(data).cast("B")[:1000], offset)

        monkeypatch.setattr(os, "pwrite", short)
        assert find_corruption(self.build(raw.class_folders(tmp_path / "raw"), tmp_path / "store").path, 1) == []

    def test_workers_end_with_their_parent(self, tmp_path: Path):
        code = (
            "import sys, time; from alexlab.data.parallel import in_order\n"
            "def work(seconds): time.sleep(seconds); return os.getpid()\n"
            "import os\n"
            f"for pid in in_order(work, [(0.1,), (0.1,), ({PATIENCE},), ({PATIENCE},)], 2): print(pid, flush=True)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        process.stdout.close()
        until(lambda: not living([worker]))


def contents_of(store: Store) -> dict[str, bytes]:
    return contents(store.path)


class TestOddLayouts:
    def test_what_file_servers_leave_is_no_class(self, tmp_path: Path):
        root = raw.class_folders(tmp_path / "raw")
        junk = {f"train/{name}/x.JPEG": raw.photo(1) for name in ("__MACOSX", "@eaDir", "lost+found")}
        raw.write_tree(root, {**junk, "train/n00000001/@eaDir/thumb.jpg": raw.photo(2), "train/aaa/notes.txt": b""})
        store = prepared(tmp_path / "cache", root)
        assert store.classes == sorted(raw.WNIDS)
        assert store.manifest["images"] == {"train": 12, "val": 5}

    @pytest.mark.parametrize("name", ["ILSVRC2012_img_val.tar", "inner"])
    def test_a_hole_of_zeros_is_not_a_tars_end(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
        root = raw.imagenet_tars(tmp_path / "raw")
        path = root / ("ILSVRC2012_img_train.tar" if name == "inner" else name)
        content = bytearray(path.read_bytes())
        at = content.index(b"n00000002_2.JPEG" if name == "inner" else b"ILSVRC2012_val_00000003.JPEG")
        content[at : at + 512] = bytes(512)
        path.write_bytes(content)
        assert main(["data=imagenet2012", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert "is truncated or corrupt" in capsys.readouterr().err

    def test_many_images_sort_alike_in_every_form(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """More than ten a class, where _10 stands before _2 and the shards' longer names would not."""
        files = raw.train_files(13)
        monkeypatch.setattr(raw, "train_files", lambda per_class=13: files)
        hashes = {
            form: prepared(tmp_path / f"c-{form}", make(tmp_path / form)).manifest["hash"]
            for form, make in FORMS.items()
        }
        assert len(set(hashes.values())) == 1, hashes

    def test_flat_tars_with_a_macs_files_and_a_name_twice(self, tmp_path: Path):
        root = raw.imagenet_tars(tmp_path / "raw")
        files = raw.flat_files("ILSVRC2012", raw.VAL_NUMBERS)
        members = [(tarfile.TarInfo(name), content) for name, content in files.items()]
        first = next(iter(files))
        members += [(tarfile.TarInfo(f"._{first}"), b"x"), (tarfile.TarInfo(first), files[first])]
        (root / "ILSVRC2012_img_val.tar").write_bytes(raw.tar_of(members))
        with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz") as archive:
            archive.extractall(root / "ILSVRC2012_devkit_t12", filter="data")
        (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
        assert prepared(tmp_path / "cache", root).manifest["images"] == {"train": 12, "val": 5}

    def test_kaggles_list_from_a_spreadsheet(self, tmp_path: Path):
        root = raw.kaggle(tmp_path / "raw")
        path = root / "LOC_val_solution.csv"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert prepared(tmp_path / "cache", root).split("val").labels.tolist() == [0, 0, 1, 1, 2]

    def test_the_largest_imagenette(self, tmp_path: Path):
        for name, size in (("imagenette2", 90), ("imagenette2-160", 16), ("imagenette2-320", 32)):
            files = {f"{name}/{split}/a/1.JPEG": raw.photo(size, raw.RED, size, size) for split in ("train", "val")}
            raw.write_tree(tmp_path / "raw", files)
        store = prepared(tmp_path / "cache", tmp_path / "raw", "data.size=90", data="imagenette")
        expected = np.asarray(Image.open(tmp_path / "raw/imagenette2/train/a/1.JPEG"))
        assert np.array_equal(store.split("train").image(0), expected)

    def test_a_new_archive_in_the_place_of_a_cut_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        import gzip

        root = raw.imagenette(tmp_path / "raw")
        path = root / "imagenette2.tgz"
        whole = path.read_bytes()
        path.write_bytes(gzip.compress(gzip.decompress(whole)[:-12000]))
        assert main(["data=imagenette", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert f"{path}: is truncated or corrupt" in capsys.readouterr().err
        path.write_bytes(whole)
        prepared(tmp_path / "c", root, data="imagenette")

    @pytest.mark.parametrize(
        ("label", "image", "named"),
        [
            (["a", "b"], [b"x", b"y"], "holds no integers"),
            ([0, 1], None, "must have one column image"),
            ([0, 1], ["a.jpg", "b.jpg"], "none of 2 files could be stored; .*no bytes in the table"),
        ],
    )
    def test_odd_tables(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], label: list, image: list, named: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = {"label": label, **({"image": image} if image else {})}
        pq.write_table(pa.table(table), tmp_path / "train_0.parquet")
        assert main(["data=folder", f"data.raw={tmp_path}", f"data.cache={tmp_path / 'c'}"]) == 2
        assert re.search(named, capsys.readouterr().err)

    def test_plain_tables(self, tmp_path: Path):
        """Columns of bytes without names: nothing of them counts as converted."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = {"img": [raw.photo(1), raw.photo(2, raw.BLUE)], "label": [1, 0]}
        for split in ("train", "test"):
            pq.write_table(pa.table(table), tmp_path / f"{split}_0.parquet")
        store = prepared(tmp_path / "c", tmp_path, data="folder")
        assert (store.manifest["converted"], colours(store, "test")) == ({}, ["blue", "red"])

    def test_shards_that_are_missing_or_of_two_kinds(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.parquet(tmp_path / "raw")
        given = ["data=imagenet2012", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]
        moved = root / "data" / "train-00001-of-00002.parquet"
        kept = moved.rename(tmp_path / "kept")
        assert main(given) == 2
        assert "has 1 of 2 shards of train" in capsys.readouterr().err
        (root / "other").mkdir()
        shutil.copy(kept, root / "other" / moved.name)
        assert main(given) == 2
        assert "has shards of train in" in capsys.readouterr().err

    def test_stop_minds_what_is_no_image_by_its_name(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.write_tree(raw.class_folders(tmp_path / "raw"), {"train/n00000001/x.heic": b"x"})
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]
        assert main([*given, "data.on_bad=stop"]) == 2
        assert "x.heic of train: not an image by its name" in capsys.readouterr().err
        assert main(given) == 0
        assert main([*given, "data.on_bad=stop"]) == 2
        assert "was made with 1 files left out" in capsys.readouterr().err


class TestPlaces:
    def test_nothing_of_others_is_touched(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.class_folders(tmp_path / "raw")
        mine = raw.write_tree(tmp_path, {"store/thesis.txt": b"x", "other.unfinished/thesis.txt": b"x", "file": b"x"})
        for name, told in (
            ("store", "exists and is not a store"),
            ("file", "exists and is not a store"),
            ("other", "holds thesis.txt, which is not a store's"),
        ):
            assert main(["data=folder", f"data.raw={root}", f"data.root={mine / name}"]) == 2
            assert told in capsys.readouterr().err
        assert (mine / "store" / "thesis.txt").exists()
        assert (mine / "other.unfinished" / "thesis.txt").exists()

    def test_a_named_store(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root, store = raw.class_folders(tmp_path / "raw"), tmp_path / "my stores" / "one"
        given = ["data=folder", f'data.root="{store}"', "data.size=32"]
        assert main([*given, f"data.raw={root}"]) == 0
        assert main(given) == 0
        assert main([*given, "check"]) == 0
        assert main(["check", *given[:2], "data.size=64"]) == 2
        assert "data.size=64: the store" in capsys.readouterr().err
        assert main([*given, "data.format=jpeg"]) == 2
        assert "data.format=jpeg: the store" in capsys.readouterr().err

    def test_one_name_for_one_folder(self, tmp_path: Path):
        root = raw.class_folders(tmp_path / "raw")
        names = {store_path(load_data([f"data.raw={path}"])) for path in (root, f"{root}/../raw", f"{root}/")}
        assert len(names) == 1

    def test_a_file_as_raw(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.imagenet_tars(tmp_path / "raw")
        path = root / "ILSVRC2012_img_train.tar"
        assert main(["data=imagenet2012", f"data.raw={path}", f"data.cache={tmp_path}"]) == 2
        assert f"is a file; name its folder, {root}" in capsys.readouterr().err

    def test_only_train(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.class_folders(tmp_path / "raw")
        shutil.rmtree(root / "val")
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]
        assert main(given) == 0
        assert "neither val nor test" in capsys.readouterr().out
        with pytest.raises(ConfigError, match="has neither val nor test: there is nothing to report on"):
            load([*given, "data.holdout=1"])

    def test_counts_with_copies(self, tmp_path: Path):
        """Four copies of one image are its class: told and drawn alike, and a class that is emptied is refused."""
        root = raw.class_folders(tmp_path / "raw")
        for path in (root / "train" / "n00000002").iterdir():
            path.write_bytes(raw.photo(7, raw.GREEN))
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]
        assert main(given) == 0
        with pytest.raises(ConfigError, match="leaves no training image of class n00000002"):
            load([*given, "data.holdout=1"])
        raw.write_tree(root / "train" / "n00000002", {"one.JPEG": raw.photo(8, raw.GREEN)})
        shutil.rmtree(tmp_path / "c")
        assert main(given) == 0
        data = load_data([*given, "data.holdout=1"])
        store = open_store(store_path(data))
        roles = {role: len(store.role(role, 1)) for role in ("train", "val", "test")}
        assert image_counts(data) == roles
        assert sum((roles["train"], roles["val"])) == 13


def load_data(overrides: list[str]) -> DataConfig:
    return Composer().job(["data=folder", *overrides], trains=False, stored=False).config.data


def test_shapes_are_raw_whatever_is_there(tiny: list[str], tmp_path: Path):
    given = [*tiny, f"data.cache={tmp_path}"]
    locate.prepare(load([*given, "data.format=jpeg"]).data)
    assert locate.prepare(load(given).data).manifest["format"] == "raw"


def test_cifar_without_names_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import pickle

    batches = raw.cifar_batches() | {"batches.meta": pickle.dumps({b"x": 1}, protocol=2)}
    root = raw.write_tree(tmp_path, {f"cifar-10-batches-py/{name}": content for name, content in batches.items()})
    assert main(["data=cifar10", f"data.raw={root}", f"data.cache={tmp_path / 'c'}"]) == 2
    assert "batches.meta has no class names" in capsys.readouterr().err
