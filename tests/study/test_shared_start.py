"""Which nets start from the same weights."""

from __future__ import annotations

from typing import Any

from alexlab.study.shared_start import starts_alike
from support.settings import composer


def test_arms_of_other_shapes_or_weights_share_no_seeds():
    def start(*line: str) -> Any:
        return composer().job(list(line), stored=False).config

    base = start()
    for line in ("ablation=no_lrn", "ablation=no_pca", "ablation=no_dropout", "optim.weight_decay=0", "ablation=tanh"):
        assert starts_alike(base, start(line)), line
    for line in ("ablation=no_conv3", "ablation=half_net", "model.init_std=0.02", "ablation=ungrouped"):
        assert not starts_alike(base, start(line)), line
