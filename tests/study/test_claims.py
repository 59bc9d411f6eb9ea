"""Claims as data: the figures are the paper's, the arms differ in what a claim says, and mistakes are one line."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from alexlab.architecture import layers, pool_window
from alexlab.config import CONF_DIR, Config, ConfigError
from alexlab.models import build_model
from alexlab.runs.identity import DERIVED, differences
from alexlab.study.claims import GROUPED, METRICS, claim_files, digest, find_claims, read_claims
from alexlab.study.metrics import MEASURES
from alexlab.sweep.study_plan import unmet
from alexlab.training.optim import conv1_factor, learning_rate
from support.settings import composer

ALL = [claim for path in claim_files().values() for claim in read_claims(path)]

# Typed from the publications anew: effect on top-1 and top-5 error in points, as `arm` less `against`.
PUBLISHED = {
    "paper/lrn": (-1.4, -1.2),
    "paper/overlap": (-0.4, -0.3),
    "paper/two_towers": (-1.7, -1.2),
    "paper/pca": (-1.0, None),
    "paper/pca_deviation": (-1.0, None),
    "paper/ten_views": (37.5 - 39.0, 17.0 - 18.3),
    "paper/conv3": (2, None),
    "paper/conv4": (2, None),
    "paper/lrn_cifar": (11 - 13, None),
    "cifar_lrn/lrn": (11 - 13, None),
    "paper/table1": (37.5, 17.0),
    "paper/table2_one": (40.7, 18.2),
    "source2012/lrn_pair": (40.66 - 42.03, 18.21 - 19.36),
    "source2012/overlap_pair": (40.66 - 41.06, 18.21 - 18.51),
    "zeiler_fergus/no_conv3_conv4": (45.4 - 40.5, 22.1 - 18.1),
    "zeiler_fergus/no_fc7": (40.0 - 40.5, 18.4 - 18.1),
    "zeiler_fergus/no_fc6_fc7": (44.8 - 40.5, 22.4 - 18.1),
    "zeiler_fergus/no_conv3_conv4_fc6_fc7": (71.3 - 40.5, 50.1 - 18.1),
    "zeiler_fergus/fc_2048": (41.7 - 40.5, 18.8 - 18.1),
    "zeiler_fergus/fc_8192": (40.0 - 40.5, 18.1 - 18.1),
}
# caffenet-benchmark's accuracies, of which the base has .471; batch normalisation's are those with scale and bias
ACCURACIES = {
    **{"lrn": 0.470, "tanh": 0.401, "elu": 0.488, "prelu": 0.485, "average_pooling": 0.435, "pool2": 0.484},
    **{"max_average_pooling": 0.483, "dropout_30": 0.497, "dropout_20": 0.494, "dropout_10": 0.473, "fc_4096": 0.497},
    **{"fc_4096_dropout_65": 0.465, "fc_6144_dropout_77": 0.447, "fc_1433_no_dropout": 0.456, "linear_lr": 0.493},
    **{"weight_decay_1e4": 0.450, "weight_decay_1e5": 0.450, "batch_norm_before": 0.478, "batch_norm_after": 0.493},
    "no_groups": 0.487,
}


def test_figures_are_those_that_were_published():
    of_errors = {
        claim.name: claim
        for claim in ALL
        if claim.metric == "top1_error" and claim.published and claim.source != "caffenet"
    }
    assert of_errors.keys() == PUBLISHED.keys()
    for name, (top1, top5) in PUBLISHED.items():
        found = of_errors[name].published
        assert found["top1_error"] == pytest.approx(top1), name
        assert found.get("top5_error") == (None if top5 is None else pytest.approx(top5)), name
    caffenet = {claim.id: claim for claim in ALL if claim.source == "caffenet"}
    assert caffenet.keys() == ACCURACIES.keys()
    for name, accuracy in ACCURACIES.items():
        assert caffenet[name].published["top1_error"] == pytest.approx(100 * (0.471 - accuracy)), name
        assert caffenet[name].view == "center"


def test_every_row_of_the_paper_is_there():
    """The sections that make claims, and every comparison of the abstract of this project."""
    paper = {claim.id: claim for claim in ALL if claim.source == "paper"}
    sections = {part for claim in paper.values() for part in claim.section.split(", ")}
    assert sections == {"1", "3", "3.1", "3.2", "3.3", "3.4", "4.1", "4.2", "5", "6", "6.1", "7"}
    untestable = {name for name, claim in paper.items() if claim.not_testable}
    assert untestable == {
        *("table2_pretrained", "fall2009", "two_devices_faster", "sensible_errors", "fewer_parameters"),
        "order_relu_towers",
    }
    assert METRICS.keys() == {*MEASURES, *GROUPED}


@pytest.mark.parametrize("claim", [claim for claim in ALL if claim.not_testable is None], ids=lambda claim: claim.name)
def test_arms_compose_and_differ_in_what_the_claim_says(claim):
    protocol = ["protocol=source2012"] if claim.source == "source2012" else []
    recipe = claim.recipes[0] if claim.recipes else "imagenet2012"
    nets = {"paper/lrn_cifar": "cifar_13pct", "cifar_lrn/lrn": "cifar_13pct", "paper/relu_speed": "cifar_fig1"}
    net = [f"model={nets[claim.name]}"] if claim.name in nets else []
    line = [f"recipe={recipe}", *net, *protocol, "data.num_classes=10"]
    arm, against = (_composed(*line, *one) for one in (claim.arm, claim.against))
    changed = {*differences(arm, against), *differences(against, arm)} - {*DERIVED}
    if len(claim.compared) == 1:
        assert not changed
    elif claim.source == "source2012" and claim.id != "conv4_talk_pair":
        assert changed - {*claim.differs}, "the authors' pairs change more than they are said to"
    else:
        assert changed == {*claim.differs}
    unmet(claim, arm)  # its keys are there


# The nets that figures are of, typed from their sources: caffenet-benchmark's prototxt files.
CAFFENET128 = {
    "kernels": [96, 256, 384, 384, 256],
    "groups": [1, 2, 1, 2, 2],
    "sizes": [11, 5, 3, 3, 3],
    "sides": [30, 15, 7, 7, 7],  # maps of conv1 to conv5; pooled to 15, 7 and 3
    "hidden": [2048, 2048],
    "follows": [["activation", "pool"]] * 2
    + [["activation"]] * 2
    + [["activation", "pool"]]
    + [["activation", "dropout"]] * 2,
}
CAFFENET_ROWS = {
    "no_groups": {"groups": [1, 1, 1, 1, 1]},
    "lrn": {"follows": [["activation", "pool", "lrn"]] * 2 + CAFFENET128["follows"][2:]},
    "fc_4096": {"hidden": [4096, 4096]},
    "fc_4096_dropout_65": {"hidden": [4096, 4096]},
    "fc_6144_dropout_77": {"hidden": [6144, 6144]},
    "fc_1433_no_dropout": {
        "hidden": [1433, 1433],
        "follows": CAFFENET128["follows"][:5] + [["activation"]] * 2,
    },
    "pool2": {"sides": [30, 15, 8, 8, 8]},  # rounded up: 15, 8 and 4
    "batch_norm_before": {"follows": [["batch_norm", *steps] for steps in CAFFENET128["follows"]]},
    "batch_norm_after": {"follows": [[steps[0], "batch_norm", *steps[1:]] for steps in CAFFENET128["follows"]]},
}


def structure(config: Config) -> dict[str, Any]:
    net = layers(config)
    convs, hidden = [layer for layer in net if layer.is_conv], [layer for layer in net if layer.name in ("fc6", "fc7")]
    return {
        "kernels": [layer.outputs for layer in convs],
        "groups": [layer.groups for layer in convs],
        "sizes": [layer.kernel for layer in convs],
        "sides": [layer.side for layer in convs],
        "hidden": [layer.outputs for layer in hidden],
        "follows": [[step.rstrip("123456789") for step in layer.follows] for layer in [*convs, *hidden]],
    }


@pytest.mark.parametrize("name", ["base", *ACCURACIES])
def test_each_row_of_caffenet_benchmark_stands_beside_its_own_net(name: str):
    """A right figure beside a wrong net is a wrong comparison, which the figure alone does not show."""
    claims = {claim.id: claim for claim in ALL if claim.source == "caffenet"}
    config = _composed("recipe=caffenet128", "data.num_classes=10", *([] if name == "base" else claims[name].arm))
    assert structure(config) == {**CAFFENET128, **CAFFENET_ROWS.get(name, {})}
    data, optim = config.data, config.optim
    assert (data.mean.name, data.pixel_scale, data.size, data.crop_size) == ("channel", 0.04, 144, 128)
    assert (data.batch_size, optim.lr, optim.momentum, config.trainer.max_epochs) == (256, 0.01, 0.9, 64)
    if name.startswith("batch_norm"):  # the rows with scale and bias
        assert all(norm.weight is not None and norm.bias is not None for norm in _norms(config))
        assert len(_norms(config)) == 7


def _norms(config: Config) -> list[Any]:
    small = replace(config, model=replace(config.model, width=0.125, hidden_width=0.02))
    return [module for name, module in build_model(small).named_children() if name.startswith("batch_norm")]


# The authors' runs, from their layers and notes: groups of conv1 to conv5, kernels, zeros around conv2 to conv5,
# windows, whether norms are there, and the epochs, of so many, at which rates drop, noise ends, conv1 is cut and
# stopped.
RUNS_2012 = {
    "145": ([1, 2, 1, 2, 2], [96, 256, 384, 384, 256], [2, 1, 1, 1], 3, True, 93, [23, 51, 78], 68, 68, 72),
    "147": ([1, 2, 1, 2, 2], [96, 256, 384, 384, 256], [1, 1, 1, 0], 2, True, 93, [23, 51, 78], 93, None, 79),
    "148": ([1, 2, 1, 2, 2], [96, 256, 384, 384, 256], [2, 1, 1, 1], 3, False, 97, [22, 44, 86], 69, 69, 73),
    "150": ([1, 2, 2, 2, 2], [96, 320, 384, 384, 256], [2, 1, 1, 1], 3, True, 93, [23, 51, 78], 68, 68, 72),
}


@pytest.mark.parametrize("run", RUNS_2012)
def test_the_authors_own_runs_are_as_their_files_have_them(run: str):
    groups, kernels, zeros, window, has_norms, length, drops, quiet, cut, stop = RUNS_2012[run]
    line = ["recipe=imagenet2012", "protocol=source2012", *([f"ablation=run{run}"] if run != "145" else [])]
    config = _composed(*line, "data.num_classes=10")
    found = structure(config)
    assert (found["groups"], found["kernels"], config.model.paddings) == (groups, kernels, zeros)
    assert {tuple(layer.padding) for layer in layers(config)[1:5]} == {(one, one) for one in zeros}
    assert pool_window(config) == window
    steps = {step for layer in found["follows"] for step in layer}
    assert (({"lrn", "same_map_norm"} <= steps), not {"lrn", "same_map_norm"} & steps) == (has_norms, not has_norms)
    optim = config.optim
    rates = [learning_rate(optim, epoch, length, []) for epoch in range(length)]
    assert [epoch for epoch in range(1, length) if rates[epoch] != rates[epoch - 1]] == drops
    factors = [conv1_factor(optim, epoch, length) for epoch in range(length)]
    assert factors.index(0.0) == stop
    assert (factors.index(0.1) if 0.1 in factors else None) == cut
    assert sum(epoch < config.augment.pca_until * length for epoch in range(length)) == quiet
    if run == "150":  # in the authors' run fc6 and fc7 are split, too: no verdict on its figure
        [claim] = [claim for claim in ALL if claim.name == "source2012/no_cross_talk_pair"]
        assert claim.is_context
        assert not claim.published


@cache
def _composed(*overrides: str) -> Config:
    return composer().job(list(overrides), stored=False).config


def test_names_stand_for_files_and_for_single_claims():
    assert [claim.name for claim in find_claims(["paper/lrn", "zeiler_fergus/no_fc7", "paper/lrn"])] == [
        "paper/lrn",
        "zeiler_fergus/no_fc7",
    ]
    assert find_claims(["paper"]) == read_claims(CONF_DIR / "claims" / "paper.yaml")
    with pytest.raises(ConfigError, match=r"study.claims: there is no papr; did you mean 'paper'\?"):
        find_claims(["papr"])
    with pytest.raises(ConfigError, match=r"paper.yaml has no claim 'lnr'; did you mean 'lrn'\?"):
        find_claims(["paper/lnr"])


def test_a_file_of_ones_own_is_added_and_its_change_is_seen(tmp_path: Path):
    path = tmp_path / "claims" / "mine.yaml"
    path.parent.mkdir()
    text = (
        "- {id: a, section: '1', statement: Yes., against: [model.lrn=false], direction: lower, recipes: [demo], "
        "smallest_effect: 1, smallest_effect_reason: so}\n"
    )
    path.write_text(text)
    before = find_claims(["mine"], str(tmp_path))
    assert (before[0].sign, before[0].effect, before[0].name) == (-1, None, "mine/a")
    path.write_text(text.replace("lower", "higher"))
    after = find_claims(["mine"], str(tmp_path))
    assert after[0].sign == 1
    assert digest(before) != digest(after)


GOOD = {
    **{"id": "a", "section": "1", "statement": "Yes.", "against": ["ablation=no_lrn"], "direction": "lower"},
    **{"smallest_effect": 0.5, "smallest_effect_reason": "less is of no use"},
    "recipes": ["demo"],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"recipes": []},
            "mine.yaml: a: recipes: is missing; name the recipes at which a verdict may be given: [demo]",
        ),
        (
            {"against": [], "against_view": "center", "also": {"gap": "higher"}},
            "mine.yaml: a: also: compares two arms, and this claim is about one; remove it",
        ),
        ({"metrc": "gap"}, "mine.yaml: a: there is no key 'metrc'; did you mean 'metric'?"),
        ({"metric": "top1"}, "mine.yaml: a: 'top1' is not a metric (top1_error, top5_error, gap,"),
        ({"published": {"top2": 1.0}}, "mine.yaml: a: 'top2' is not a metric"),
        ({"view": "nine"}, "mine.yaml: a: 'nine' is not a view (there are: ten, center, corner)"),
        (
            {"direction": None},
            "mine.yaml: a: has neither a published figure of its metric, top1_error, nor a direction",
        ),
        ({"direction": "down"}, "mine.yaml: a: direction=down: must be lower or higher"),
        ({"against": []}, "mine.yaml: a: its two arms are the same; change one, or set against_view"),
        ({"statement": " "}, "mine.yaml: a: has no statement"),
        ({"ratio": True, "published": {"top1_error": -1.0}}, "mine.yaml: a: a published ratio must be above 0"),
        ({"is_level": True}, "mine.yaml: a: is_level: the figure is of one arm; leave out against"),
        (
            {"metric": "gap", "against_view": "center", "against": []},
            "mine.yaml: a: against_view: gap does not depend on the view; remove",
        ),
        ({"at_least": "perhaps"}, "mine.yaml: a: Value 'perhaps' is not a valid bool"),
        # Sizes
        (
            {"smallest_effect": None},
            "mine.yaml: a: has no figure and no smallest effect of interest; add smallest_effect: ... (points) and",
        ),
        ({"smallest_effect_reason": " "}, "mine.yaml: a: smallest_effect: has no reason; add smallest_effect_reason"),
        ({"smallest_effect": -0.5}, "mine.yaml: a: smallest_effect=-0.5: must be a size above 0"),
        (
            {"published": {"top1_error": -0.4}},
            "mine.yaml: a: smallest_effect=0.5: is more than the published effect, 0.4; lower it",
        ),
        ({"at_least": True}, "mine.yaml: a: at_least: has no published figure to exceed; add published: {top1_error"),
        (
            {"at_least": True, "published": {"top1_error": 1.0}},
            "mine.yaml: a: direction=lower: the published figure, at_least 1, is on the other side; change its sign",
        ),
        ({"also": {"top1_error": "higher"}}, "mine.yaml: a: also: 'top1_error' is not another metric"),
        ({"also": {"gap": "up"}}, "mine.yaml: a: also: gap: up: must be lower or higher"),
        (
            {"ranges": [{"verdict": "reproducd", "below": 0}]},
            "mine.yaml: a: ranges: 'reproducd' is not a verdict; did you mean 'reproduced'? (reproduced; same",
        ),
        ({"ranges": [{"verdict": "reversed"}]}, "mine.yaml: a: ranges: reversed: needs above, below or both, numbers"),
        (
            {"ranges": [{"verdict": "reversed", "above": 2, "below": 1}]},
            "mine.yaml: a: ranges: reversed: above=2 is not less than below=1; swap them",
        ),
        (
            {"published": {"top1_error": -1.0}, "ranges": [{"verdict": "reproduced", "below": -2}]},
            "mine.yaml: a: ranges: reproduced: does not contain the published -1; change its bounds",
        ),
        # What the runs must have
        ({"requires": ["data.nme=cifar10"]}, "mine.yaml: a: requires data.nme=cifar10: no such key; did you"),
        ({"requires": ["data.name=cifar11"]}, "mine.yaml: a: requires data.name=cifar11: no recipe can meet it: "),
        (
            {"requires": ["model.lrn=no"]},
            "mine.yaml: a: requires model.lrn=no: no recipe can meet it; write model.lrn=false",
        ),
        (
            {"requires": ["model.lrn=true", "model.lrn=false"]},
            "mine.yaml: a: requires model.lrn=true and model.lrn=false: no recipe can meet both; remove one",
        ),
        # What would run code, write where it likes, or read the environment: a file of claims comes from anyone
        *(
            ({"arm": [line]}, f"mine.yaml: a: {line}: a claim may not set this")
            for line in (
                "hydra/job_logging=stdout",
                "++hydra.job_logging.handlers.x={class: logging.FileHandler}",
                "paths.runs=/tmp/elsewhere",
                "logger=wandb",
                "logger.project=theirs",
                "+weights=net.pth",
                "study.seeds=1",
                "data.cache=/tmp/elsewhere",
                "data.raw=/",
                "~hydra",
            )
        ),
        ({"against": ["hydra.sweep.dir=x"]}, "mine.yaml: a: hydra.sweep.dir=x: a claim may not set this"),
        ({"statement": "${oc.env:HOME}"}, "mine.yaml: a: statement: holds an interpolation"),
        ({"arm": ["optim.lr=${oc.env:X}"]}, "mine.yaml: a: arm: holds an interpolation"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path: Path, change: dict, said: str):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump([{**GOOD, **change}]))
    with pytest.raises(ConfigError) as error:
        read_claims(path)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "a: 1\n", "- [1, 2\n", "- 3\n", "\xff"])
def test_a_file_that_is_no_list_of_claims(tmp_path: Path, content: str):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mine.yaml") as error:
        read_claims(path)
    assert "\n" not in str(error.value)


def test_two_claims_of_one_id(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump([GOOD, GOOD]))
    with pytest.raises(ConfigError, match=r"mine\.yaml: a: there are two claims with this id; rename one"):
        read_claims(path)
