"""Source data in folders: `<split>/<class>/<image>`, and Kaggle's or ImageNet's val, which is flat."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alexlab.data.sources.source import (
    Files,
    LeftOut,
    Listing,
    RawError,
    Source,
    is_ignored,
    is_ignored_folder,
    is_image,
    read_file,
    read_list,
    sorted_rows,
)

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_MAX_DEPTH = 50  # of folders below a class
# Files that accompany images. A class folder without images but with any other files is lost, not just empty.
_NOTES = (".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".htm", ".log", ".db", ".py")


def find_train(root: Path) -> Path:
    """`root` if it has a folder `train`, else its only subfolder that has one, as archives unpack to."""
    if (root / "train").is_dir():
        return root
    found = [path.parent for path in sorted(root.glob("*/train")) if path.is_dir() and path.parent.name[0] not in "._"]
    return found[0] if len(found) == 1 else root


def read_folders(
    root: Path,
    flat_labels: dict[str, str] | None = None,
    form: str = "class folders",
    class_order: Sequence[str] | None = None,
) -> Source:
    """The images below `root`; a label is the index of a class in the sorted list of the training class folders.

    A class is a folder with training images; hidden files and folders do not count. `flat_labels` gives the class of an
    image directly in its split's folder (or in `images/` there), by its file name without suffix. With `class_order` a
    label is the index in that list instead, which must have all folders' names, in upper or lower case.

    Raises:
        RawError: without a train folder with classes; for a class or a flat split that has no label.
    """
    folders = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        if (folder := next((root / name for name in names if (root / name).is_dir()), None)) is not None
    }
    if "train" not in folders:
        there = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else []
        raise RawError(f"{root}: has no folder 'train'; it holds {', '.join(there) or 'nothing'}")
    found = _classes(folders["train"])
    if not found:
        raise RawError(f"{folders['train']}: has no class folders; each class is a folder of its images")
    source = Source(form, [], {}, inputs=[root / name for names in SPLIT_FOLDERS.values() for name in names])
    images = {name: _class_images(folders["train"], name, "train", source) for name in found}
    classes = [name for name in found if images[name]]
    source.left_out += [
        LeftOut("train", f"train/{name}", "a folder without images") for name in found if not images[name]
    ]
    if not classes:
        lost = f"; {source.lost_classes[0]}" if source.lost_classes else ""
        raise RawError(f"{folders['train']}: has no images (.jpeg .jpg .png .bmp ...){lost}")
    labels = {name: label for label, name in enumerate(classes)}
    source.classes = classes
    if class_order is not None:
        labels = {name: _label_in(class_order, name, folders["train"]) for name in classes}
        source.classes = list(class_order)
    for split, folder in folders.items():
        if split != "train":
            found = _classes(folder)
            if found == ["images"] and "images" not in labels:  # Tiny ImageNet's val and test
                found = []
            images = {name: _class_images(folder, name, split, source) for name in found}
            if class_order is not None:
                labels = {name: _label_in(class_order, name, folder) for name in found if images[name]}
            unknown = sorted(name for name in found if images[name] and name not in labels)
            if unknown:
                raise RawError(f"{folder}: class '{unknown[0]}' is not among the training classes")
        listing = (
            _nested(folder, split, images, labels, source.left_out)
            if found
            else _flat(folder, split, source, flat_labels)
        )
        if listing is not None:
            source.splits[split] = listing
    return source


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_ignored_folder(entry.name))


def _label_in(class_order: Sequence[str], name: str, folder: Path) -> int:
    if name.lower() not in class_order:
        raise RawError(
            f"{folder}: class '{name}' is not one of {', '.join(class_order)}; data=folder takes any classes"
        )
    return class_order.index(name.lower())


def _nested(
    folder: Path, split: str, images: dict[str, list[str]], label_of: dict[str, int], left_out: list[LeftOut]
) -> Listing:
    names: list[str] = []
    labels: list[int] = []
    for name, inside in images.items():
        names += [f"{name}/{file}" for file in inside]
        labels += [label_of[name]] * len(inside) if inside else []
    _list_strays(folder, split, left_out)
    return _listing(folder, names, labels)


def _listing(folder: Path, names: list[str], labels: list[int]) -> Listing:
    rows = sorted_rows(labels, names)
    names = [names[row] for row in rows]
    return Listing(names, np.array([labels[row] for row in rows], np.int64), Files(folder, names))


def _class_images(folder: Path, name: str, split: str, source: Source) -> list[str]:
    """The images of a class; a class without images, but with files other than notes, is listed as lost."""
    first = len(source.left_out)
    images = _images(folder / name, f"{folder.name}/{name}", split, source.left_out)
    others = [item.name for item in source.left_out[first:] if item.reason == _NO_IMAGE]
    suffixes = Counter(Path(file).suffix.lower() for file in others)
    if not images and suffixes.keys() - set(_NOTES):
        endings = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(3))
        source.lost_classes.append(f"class '{name}' of {split}: none of its files has a supported format ({endings})")
    return images


_NO_IMAGE = "not an image by its name"


def _images(folder: Path, shown: str, split: str, left_out: list[LeftOut]) -> list[str]:
    """Image files below a class folder, at any depth."""
    images = []

    def refuse(error: OSError) -> None:
        raise RawError(f"{error.filename}: cannot be read ({error.strerror})")

    for current, folders, files in os.walk(folder, onerror=refuse):
        below = os.path.relpath(current, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in [*folders]:
            if is_ignored_folder(name):
                folders.remove(name)
            elif (Path(current) / name).is_symlink():  # os.walk does not follow it
                left_out.append(LeftOut(split, f"{shown}/{prefix}{name}", "a link to a folder"))
            elif prefix.count("/") >= _MAX_DEPTH:
                folders.remove(name)
                left_out.append(LeftOut(split, f"{shown}/{prefix}{name}", f"more than {_MAX_DEPTH} folders deep"))
        for name in files:
            if is_ignored(name):
                continue
            if is_image(name, b"") or is_image(name, _head(Path(current) / name)):
                images.append(f"{prefix}{name}")
            else:
                left_out.append(LeftOut(split, f"{shown}/{prefix}{name}", _NO_IMAGE))
    return images


def _head(path: Path) -> bytes:
    content = read_file(path, head=16).content
    return content if isinstance(content, bytes) else b""


def _list_strays(folder: Path, split: str, left_out: list[LeftOut]) -> None:
    """List images next to the class folders as left out: they have no class."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir() and not is_ignored(entry.name) and is_image(entry.name, b""):
            left_out.append(LeftOut(split, f"{folder.name}/{entry.name}", "is next to the class folders, not in one"))


def _flat(folder: Path, split: str, source: Source, flat_labels: dict[str, str] | None) -> Listing | None:
    names = sorted(_images(folder, folder.name, split, source.left_out))
    if not names:
        return None
    if flat_labels is None or split == "test":
        if split == "test":  # labels that are not public: nothing can be measured
            source.warnings.append(f"{folder.name}/ has {len(names)} images without labels; it is left out")
            return None
        raise RawError(
            f"{folder}: {len(names)} images are not in class folders, so their labels are needed: put "
            "ILSVRC2012_devkit_t12.tar.gz, LOC_val_solution.csv or val_annotations.txt (Tiny ImageNet's) next to them"
        )
    index = {name: label for label, name in enumerate(source.classes)}
    kept: list[str] = []
    labels: list[int] = []
    for name in names:
        class_name = flat_labels.get(Path(name).stem)
        if class_name is None:
            source.left_out.append(LeftOut(split, name, "has no label in the list of labels"))
        elif class_name not in index:
            raise RawError(f"{folder / name}: its class '{class_name}' is not among the training classes")
        else:
            kept.append(name)
            labels.append(index[class_name])
    return _listing(folder, kept, labels)


TINY_LABELS, _TINY_WORDS = "val_annotations.txt", "words.txt"


def is_tiny_imagenet(root: Path) -> bool:
    return (root / "val" / TINY_LABELS).is_file()


def read_tiny_imagenet(root: Path) -> Source:
    """Tiny ImageNet: `train/<wnid>/images/`, and `val/images/` with its labels in `val/val_annotations.txt`.

    Raises:
        RawError: if the list of labels cannot be read.
    """
    path = root / "val" / TINY_LABELS
    try:
        # "val_0.JPEG	n03444034	0	32	44	62": file, class, box
        rows = [line.split("\t") for line in read_list(path).decode("utf-8").splitlines() if line.strip()]
        flat_labels = {Path(row[0]).stem: row[1] for row in rows}
    except (UnicodeDecodeError, IndexError) as error:
        raise RawError(f"{path}: is not Tiny ImageNet's list of file, class and box; fetch it again") from error
    source = read_folders(root, flat_labels, "Tiny ImageNet's folders")
    # Boxes, and the list itself, belong to the data set.
    source.left_out = [item for item in source.left_out if not item.name.endswith(("_boxes.txt", TINY_LABELS))]
    if (root / _TINY_WORDS).is_file():
        words = _words(root / _TINY_WORDS, "\t")
        source.words = {name: words[name] for name in source.classes if name in words}
    return source


def _words(path: Path, separator: str) -> dict[str, str]:
    """A list of classes and their names, one a line."""
    lines = read_list(path).decode(errors="replace").splitlines()
    return dict(line.split(separator, 1) for line in lines if separator in line)


def find_kaggle(root: Path) -> tuple[Path, Path | None] | None:
    """Kaggle's folder of splits and its list of validation labels, if `root` or a folder above holds them."""
    for images in (root / "ILSVRC/Data/CLS-LOC", root / "Data/CLS-LOC", root / "CLS-LOC", root.absolute()):
        if images.name == "CLS-LOC" and (images / "train").is_dir():
            around = [root, *images.absolute().parents[:3]]
            found = (folder / KAGGLE_LABELS for folder in around)
            return images, next((path for path in found if path.is_file()), None)
    return None


KAGGLE_LABELS = "LOC_val_solution.csv"
KAGGLE_WORDS = "LOC_synset_mapping.txt"


def read_kaggle(images: Path, solution: Path | None) -> Source:
    """Kaggle's `ILSVRC/Data/CLS-LOC`, whose val is flat.

    Raises:
        RawError: if val is flat and its labels are missing or cannot be read.
    """
    flat_labels = None
    if solution is not None:
        text = read_list(solution).decode("utf-8-sig", errors="replace")
        try:
            # "n01978287 85 1 499 272 n01978287 ...": a class and a box for each object; all have the same class
            rows = csv.DictReader(io.StringIO(text, newline=""))
            flat_labels = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
        except (KeyError, IndexError, AttributeError, csv.Error) as error:
            raise RawError(f"{solution}: is not Kaggle's list of ImageId,PredictionString") from error
    elif (images / "val").is_dir() and not _classes(images / "val"):
        raise RawError(
            f"{images / 'val'}: has no class folders, so {KAGGLE_LABELS} is needed; put it in {images.parents[2]}"
        )
    source = read_folders(images, flat_labels, "Kaggle's folders")
    if solution is not None:
        source.inputs.append(solution)
        words = solution.with_name(KAGGLE_WORDS)
        if words.is_file():
            source.words = _words(words, " ")
    return source
