"""Classes have readable names: ImageNet's, those that the source files give, or their own."""

from __future__ import annotations

import json
from pathlib import Path

from torchvision.datasets.imagenette import Imagenette
from torchvision.models import AlexNet_Weights

from alexlab.config import DataConfig, Dataset
from alexlab.data.class_names import known_names
from alexlab.data.names import imagenet_names, readable


def test_imagenets_thousand_are_torchvisions():
    """Its net's outputs are in the order of the ids, as are all of ImageNet's."""
    names = imagenet_names()
    assert list(names) == sorted(names)
    assert list(names.values()) == AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names)


def test_ids_and_names_belong_together():
    """Torchvision has the ids of these ten."""
    for wordnet_id, names in Imagenette._WNID_TO_CLASS.items():  # pyright: ignore[reportPrivateUsage]
        assert imagenet_names()[wordnet_id] == names[0]


def test_readable_names():
    classes = ["n01440764", "n00000001", "n00000002", "n00000003", "my cat"]
    words = {"n00000001": "crane, bird", "n00000002": "crane, machine", "n01440764": "Tinca tinca"}
    expected = ["tench", "crane (n00000001)", "crane (n00000002)", "n00000003", "my cat"]
    assert readable(classes, words) == expected
    assert readable(["b", "a"], {}) == ["b", "a"]


def test_the_names_of_a_stores_classes_are_readable(tmp_path: Path):
    """W&B's confusion matrix had ImageNet's ids."""
    (tmp_path / "manifest.json").write_text(json.dumps({"classes": ["n01440764", "my cat"]}))
    data = DataConfig(name=Dataset.imagenette, root=str(tmp_path), num_classes=2)
    assert known_names(data) == ["tench", "my cat"]
    data.num_classes = 3  # of another store
    assert known_names(data) == ["class 0", "class 1", "class 2"]
