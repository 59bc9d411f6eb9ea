"""A net of one's own (`model.build`): it is part of a run's identity, and only the reader's own file is ever run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import alexlab
from alexlab import own_net
from alexlab.cli import evaluate
from alexlab.compose import read_config, to_yaml
from alexlab.config import Config, ConfigError
from alexlab.errors import UserError
from alexlab.models import AlexNet, build_model
from alexlab.models.own import reseed
from alexlab.runs.identity import arm_label, run_id
from alexlab.training.fit import fit
from alexlab.training.module import parameter_groups
from support.commands import run
from support.settings import TINY, composed

# Not an AlexNet: one convolution, and dropout of torch's own. Whoever runs the file leaves a mark.
MYNET = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("was_run").touch()

def build(num_classes, crop_size):
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(128, num_classes),
    )
"""
GELU = """
from torch import nn
from alexlab.models import build_model

def build(config):
    network = build_model(config)
    for name, module in network.named_children():
        if isinstance(module, nn.ReLU):
            setattr(network, name, nn.GELU())
    return network
"""
PARAMETERS = (3 * 7 * 7 + 1) * 8 + 2 * 8 + (128 + 1) * 10
# TINY without AlexNet's keys.
SMALL = [line for line in TINY if not line.startswith("model.")]


def make_folder(folder: Path) -> Path:
    """What --config-dir names."""
    for name, text in (
        ("mynet.py", MYNET),
        ("gelu.py", GELU),
        ("model/mynet.yaml", "# @package _global_\nmodel:\n  build: mynet.build\n"),
        ("ablation/gelu.yaml", "# @package _global_\nmodel:\n  build: gelu.build\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "mine")


def load(folder: Path, *overrides: str, build: str = "mynet.build") -> Config:
    return composed([f"model.build={build}", f"paths.code={folder}", *overrides])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("own") / "mine")


@pytest.fixture(scope="module")
def arms(mine: Path, cache: Path) -> dict[str, Path]:
    """The finished records, by the ablation's label."""
    runs = mine.parent / "runs"
    joblib = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"data.cache={cache}", f"paths.runs={runs}"]
    line = ["--config-dir", str(mine), *joblib, *SMALL, "model=mynet", "ablation=none,gelu"]
    status, output = run(line)
    assert status == 0, output
    found = {}
    for path in runs.glob("*/result.json"):
        found["gelu" if "gelu.build" in json.loads(path.read_text())["labels"]["ablation"] else "none"] = path.parent
    return found


class TestSweep:
    """Two arms, each in a process of a launcher's: a net that is no AlexNet, and one with another nonlinearity."""

    def test_both_are_trained(self, arms: dict[str, Path], mine: Path):
        assert json.loads((arms["none"] / "result.json").read_text())["parameters"] == PARAMETERS
        assert not (arms["none"] / "conv1.npy").exists()
        assert (arms["gelu"] / "conv1.npy").exists()
        assert (arms["none"] / "net.py").read_bytes() == (mine / "mynet.py").read_bytes()
        config = yaml.safe_load((arms["none"] / "config.yaml").read_text())
        assert config["model"]["build"] == f"mynet.build@{digest(mine / 'mynet.py')}"
        assert config["paths"]["code"] is None

    def test_a_record_alone_runs_nothing(
        self, arms: dict[str, Path], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        """A stranger's: it has the file beside its configuration, and names its folder as the place of the code."""
        record = shutil.copytree(arms["none"], tmp_path / "runs" / arms["none"].name)
        shutil.copy(record / "net.py", record / "mynet.py")
        config = (record / "config.yaml").read_text()
        (record / "config.yaml").write_text(config.replace("code: null", f"code: {record}"))
        line = [f"runs=[{record.name}]", f"paths.runs={record.parent}", f"data.cache={cache}"]
        assert evaluate.main(line) == 2
        assert "--config-dir" in capsys.readouterr().err
        with pytest.raises(UserError, match="--config-dir"):
            alexlab.load_run(record.name, record.parent, cache)
        assert not (record / "was_run").exists()

    def test_the_reader_gives_the_file(self, arms: dict[str, Path], mine: Path, cache: Path, tmp_path: Path):
        mine = shutil.copytree(mine, tmp_path / "mine")  # which is changed here
        record = shutil.copytree(arms["none"], tmp_path / "runs" / arms["none"].name)
        line = [f"runs=[{record.name}]", f"paths.runs={record.parent}", f"data.cache={cache}"]
        assert evaluate.main([*line, "evaluate.average=logits", "--config-dir", str(mine)]) == 0
        loaded = alexlab.load_run(record.name, record.parent, cache, mine)
        assert sum(one.numel() for one in loaded.network.parameters()) == PARAMETERS
        (mine / "mynet.py").write_text(f"{MYNET}# changed\n")
        with pytest.raises(UserError, match="another hash"):
            alexlab.load_run(record.name, record.parent, cache, mine)


def test_the_file_is_part_of_the_identity(folder: Path):
    config = load(folder)
    assert config.model.build == f"mynet.build@{digest(folder / 'mynet.py')}"
    (folder / "mynet.py").write_text(MYNET.replace("nn.Dropout(0.5)", "nn.Dropout(0.4)"))
    assert run_id(load(folder)) != run_id(config) != run_id(composed())


def test_a_pinned_file_that_has_changed_is_refused(folder: Path):
    pinned = load(folder).model.build
    assert pinned is not None
    (folder / "mynet.py").write_text(f"{MYNET}# changed\n")
    now = digest(folder / "mynet.py")
    with pytest.raises(ConfigError) as caught:
        load(folder, build=pinned)
    assert str(caught.value) == f"model.build={pinned}: mynet.py has changed (hash {now})"


def test_a_launch_keeps_the_file_as_planned(folder: Path, tmp_path: Path):
    planned = load(folder)
    kept = own_net.copied(planned, tmp_path)
    (folder / "mynet.py").write_text("raise SystemExit")
    assert run_id(kept) == run_id(planned)
    assert own_net.source(kept).decode() == MYNET
    with pytest.raises(UserError, match="another hash"):
        own_net.source(planned)


def test_keys_of_alexnet(folder: Path):
    """They make no other run of a net that does not take them, and are refused; one that does has them as its own."""
    assert run_id(load(folder)) == run_id(composed_file(folder, model_lrn=False))
    with pytest.raises(ConfigError, match=r"^model.lrn=false: has no effect on the net of mynet.build"):
        load(folder, "model.lrn=false")
    with pytest.raises(ConfigError, match=r"^optim.conv1_cut_at=0.73: .* set optim.conv1_cut_at=null"):
        load(folder, "protocol=source2012")
    with pytest.raises(ConfigError, match=r"^trainer.compile=default: .* set trainer.compile=none"):
        load(folder, "trainer.compile=default", build="gelu.build")
    assert run_id(load(folder, build="gelu.build")) != run_id(load(folder, "model.lrn=false", build="gelu.build"))


def composed_file(folder: Path, model_lrn: bool) -> Config:
    """As an ablation's file would change AlexNet."""
    config = load(folder)
    config.model.lrn = model_lrn
    return config


def test_an_arm_has_the_name_of_its_ablation(folder: Path):
    assert arm_label(load(folder, build="gelu.build"), composed(), [folder / "ablation"]) == "gelu"


def test_a_variant_of_alexnet_starts_as_alexnet(folder: Path):
    """Its layers have the same initial weights, on the same seed, and its dropout the same masks."""
    tiny = [line for line in TINY if line.startswith("model.")]
    plain, other = build_model(composed(tiny)), build_model(load(folder, *tiny, build="gelu.build"))
    assert isinstance(other, AlexNet)
    assert not any(isinstance(module, nn.ReLU) for module in other.modules())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    plain.reseed_dropout(0, "dropout", 3)
    reseed(other, 0, "dropout", 3)
    units = torch.ones(4, 128)
    assert torch.equal(plain.get_submodule("dropout6")(units), other.get_submodule("dropout6")(units))


def test_draws_follow_from_seed_and_step(folder: Path):
    network = build_model(load(folder))
    torch.rand(5)  # what is drawn elsewhere changes nothing
    again = build_model(load(folder))
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))
    other = build_model(load(folder, "seed=1"))
    assert not torch.equal(next(network.parameters()), next(other.parameters()))
    images, found = torch.ones(3, 3, 96, 96), []
    for step in (1, 2, 1):
        reseed(network, 0, "dropout", step)
        found.append(network(images))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_float64_is_trained_evaluated_and_predicted_with(folder: Path, cache: Path):
    more = ["trainer.precision=64-true", "trainer.fast_dev_run=true", f"data.cache={cache}"]
    config = load(folder, *SMALL, *more)
    outcome = fit(config, None, "run")
    assert outcome.test["ten"].labels.shape == (37,)
    assert build_model(config).double()(torch.zeros(2, 3, 96, 96)).dtype == torch.float64


def test_weights_of_layers_decay_and_those_of_norms_do_not(folder: Path):
    config = load(folder, "optim.decay_biases=false")
    network = build_model(config)
    decays = {id(p): group["weight_decay"] for group in parameter_groups(network, config) for p in group["params"]}
    decaying = {name for name, p in network.named_parameters() if decays[id(p)] > 0}
    assert decaying == {"0.weight", "6.weight"}


@pytest.mark.parametrize(
    ("build", "text", "message"),
    [
        ("mynet", MYNET, "must be FILE.FUNCTION"),
        ("os.system", MYNET, "os.py: No such file"),
        ("../mynet.build", MYNET, "must be FILE.FUNCTION"),
        ("mynet.biuld", MYNET, "no such function; did you mean 'build'"),
        ("mynet.build", "def build(x): pass", r"takes \(x\); must take \(num_classes, crop_size\)"),
        ("mynet.build", "def build(:", "mynet.py, line 1"),
    ],
)
def test_a_mistake_is_reported_before_anything_runs(folder: Path, build: str, text: str, message: str):
    (folder / "mynet.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(folder, build=build)
    assert not (folder / "was_run").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [("return 3", "returned int, not an nn.Module"), ("return nn.Flatten()", r"is \[2, 27648\]; must be \[2, 10\]")],
)
def test_what_the_function_returns_is_checked(folder: Path, body: str, message: str):
    (folder / "mynet.py").write_text(f"from torch import nn\ndef build(num_classes, crop_size):\n    {body}\n")
    with pytest.raises(ConfigError, match=message):
        build_model(load(folder))


def test_a_record_names_no_code(folder: Path, tmp_path: Path):
    config = load(folder)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config).replace("code: null", f"code: {folder}"))
    assert read_config(path).paths.code is None
    assert dataclasses.replace(read_config(path), paths=config.paths, logger=config.logger) == config
