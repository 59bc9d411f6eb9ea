"""The order of classes and of confusions."""

from __future__ import annotations

import numpy as np

from alexlab.report.figures.by_class import class_errors, confusion
from support.figures import NAMES, texts


def test_classes_and_confusions_in_order():
    errors = np.array([[0.1, 0.5, 0.3], [0.1, 0.7, 0.3]])
    labels = [label.get_text() for label in class_errors({"base": errors}, ["a", "b", "c"]).axes[0].get_yticklabels()]
    assert labels == ["b", "c", "a"]
    frequent = np.eye(30)
    frequent[7, 3], frequent[2, 9] = 0.4, 0.2
    bars = confusion(frequent, NAMES[:30]).axes[0]
    labels = [label.get_text() for label in bars.get_yticklabels()]
    assert labels[:2] == ["class 7 as class 3", "class 2 as class 9"]
    assert [patch.get_width() for patch in bars.patches][:2] == [40, 20]  # pyright: ignore[reportAttributeAccessIssue]
    assert {"12", "88"} <= set(texts(confusion(np.array([[0.88, 0.12], [0.0, 1.0]]), ["a", "b"])))
