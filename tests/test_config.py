"""The configuration: what composes, what is rejected, and the messages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from hydra.types import RunMode
from omegaconf import OmegaConf

from alexlab.cli.help import commented_yaml
from alexlab.compose import Composer, key_types, read_config, to_yaml
from alexlab.config import CONF_DIR, Config, ConfigError, flat, load, walk
from alexlab.sweep.plan import make_plan
from alexlab.validate import finish
from support.settings import composed, composer

CHECK_ONCE = Composer.check_once  # which tests are spared otherwise

MISTAKES = {
    # unknown keys, with + and without
    ("model.lnr=true",): "model.lnr=true: there is no key 'model.lnr'; did you mean 'model.lrn'?",
    ("+model.lnr=true",): "+model.lnr=true: there is no key 'model.lnr'; did you mean 'model.lrn'?",
    ("++model.lnr=true",): "++model.lnr=true: there is no key 'model.lnr'; did you mean 'model.lrn'?",
    ("+model.remvoe=[conv3]",): "+model.remvoe=[conv3]: there is no key 'model.remvoe'; did you mean 'model.remove'?",
    ("xyzzy=1",): "xyzzy=1: there is no key 'xyzzy'; --help lists all",
    ("recipie=demo",): "recipie=demo: there is no key 'recipie'; did you mean 'recipe'?",
    ("optim=fast",): "optim=fast: 'optim' is a section of keys; set one of them, such as optim.lr",
    ("model=alexnte",): (
        "model=alexnte: there is no model 'alexnte'; did you mean 'alexnet'? (there are: alexnet, cifar_11pct, "
        "cifar_13pct, cifar_fig1, torchvision)"
    ),
    ("+model.lrn=false",): "+model.lrn=false: the key exists already; remove the +",
    ("~model.lrn",): "~model.lrn: a key cannot be deleted; set it to null or to its default",
    # options
    ("recipe=dmeo",): (
        "recipe=dmeo: there is no recipe 'dmeo'; did you mean 'demo'? "
        "(there are: caffenet128, cifar10, demo, folder, imagenet128, imagenet2010, imagenet2012, imagenette, "
        "imagenette_cpu)"
    ),
    # types
    ("model.lrn=flase",): "model.lrn=flase: must be true or false",
    ("trainer.max_epochs=2.5",): "trainer.max_epochs=2.5: must be a whole number",
    ("optim.lr=fast",): "optim.lr=fast: must be a number",
    ("seed=None",): "seed=None: must be a whole number",
    ("data.seed=None",): "data.seed=None: must be a whole number or null",
    ("weights=None",): "weights=None: 'None' is read as a string; use weights=null",
    (
        "model.activation=rleu",
    ): "model.activation=rleu: must be one of relu, tanh, sigmoid, elu, prelu; did you mean 'relu'?",
    ("model.remove=conv3",): (
        "model.remove=conv3: must be a list of names; in a shell write 'model.remove=[conv3]' with the quotes"
    ),
    # values
    ("model.dropout=1",): "model.dropout=1: must be below 1",
    ("model.dropout=-0.1",): "model.dropout=-0.1: must be at least 0",
    ("optim.lr=nan",): "optim.lr=nan: must be finite",
    ("optim.lr=0",): "optim.lr=0: must be above 0",
    ("model.remove=[conv9]",): (
        "model.remove=[conv9]: 'conv9' is not one of conv2, conv3, conv4, conv5, conv6, fc6, fc7; did you mean 'conv6'?"
    ),
    ("model.remove=[conv1]",): (
        "model.remove=[conv1]: 'conv1' is not one of conv2, conv3, conv4, conv5, conv6, fc6, fc7; did you mean 'conv6'?"
    ),
    ("model.remove=[conv3,conv3]",): "model.remove=[conv3, conv3]: names an item twice; write each once",
    ("trainer.precision=32",): (
        "trainer.precision=32: '32' is not one of 32-true, tf32-true, 16-mixed, bf16-mixed, 64-true"
    ),
    # combinations
    ("data.crop_size=111",): "data.crop_size=111: must be at most data.size=110",
    ("data.crop_size=62",): (
        "data.crop_size=62: the feature map vanishes at pool5; the smallest crop for this net is 63"
    ),
    ("model.kernels=[96]",): "model.kernels=[96]: must have two to 6 numbers",
    ("model.kernels=[96,256,384]",): (
        "model.kernel_sizes=[11, 5, 3, 3, 3]: must have one value for each of conv1, conv2, conv3"
    ),
    ("model.conv1_order=[lrn,pool]",): "model.conv1_order=[lrn, pool]: must name each of activation, lrn, pool once",
    ("model.remove=[conv6]",): (
        "model.remove=[conv6]: this net has no conv6; it has conv1, conv2, conv3, conv4, conv5, fc6, fc7"
    ),
    ("model.dropout_after=[conv6]",): (
        "model.dropout_after=[conv6]: this net has no conv6; it has conv1, conv2, conv3, conv4, conv5, fc6, fc7"
    ),
    ("model.cross_talk=[conv6]",): (
        "model.cross_talk=[conv6]: this net has no conv6; it has conv1, conv2, conv3, conv4, conv5"
    ),
    ("pool.kinds=[conv3:average]",): ("pool.kinds=[conv3:average]: there is no pooling after conv3; see pool.after"),
    ("trainer.precision=tf32-true", "trainer.accelerator=cpu"): (
        "trainer.precision=tf32-true: needs a GPU; on a CPU use bf16-mixed or 32-true"
    ),
    ("trainer.compile=default", "trainer.devices=2", "trainer.strategy=towers"): (
        "trainer.compile=default: towers communicate inside the network, so it cannot be compiled; set it to none"
    ),
    ("trainer.channels_last=false", "trainer.devices=2", "trainer.strategy=towers"): (
        "trainer.channels_last=false: trainer.strategy=towers needs true"
    ),
    ("pool.kinds=[conv1:none]",): "pool.kinds=[conv1:none]: 'none' is not one of max, average, max_average",
    ("data.mean=torchvision",): (
        "data.pixel_scale=0.0166666666667: data.mean=torchvision sets its own scale; set data.pixel_scale=1"
    ),
    ("data.map_size=50", "data.crop_size=96"): (
        "data.map_size, data.crop_size: each determines the other; set only one"
    ),
    ("model.batch_norm=after", "data.batch_size=1"): (
        "data.batch_size=1: model.batch_norm needs at least two images; raise it"
    ),
    ("optim.conv1_cut_at=0.9", "optim.conv1_freeze_at=0.1"): (
        "optim.conv1_cut_at=0.9: must be at most optim.conv1_freeze_at=0.1"
    ),
    ("optim.schedule=fixed", "optim.drops=[0.5,0.25]"): "optim.drops=[0.5, 0.25]: must increase from left to right",
    ("model.width=1e300",): "model.width=1e+300: must be at most 100",
    ("model.unshared=[conv4]",): "model.unshared=[conv4]: conv4 must see all towers; set model.groups=1",
    ("model.init_stds=[0.03]",): ("model.init_stds=[0.03]: '0.03' must be a layer and its value, such as conv3:..."),
    ("model.init_stds=['conv3:x']",): "model.init_stds=[conv3:x]: 'x' must be a number",
    ("model.init_stds=['conv3:0']",): "model.init_stds=[conv3:0]: must be above 0",
    ("optim.weight_decays=['fc9:1']",): (
        "optim.weight_decays=[fc9:1]: 'fc9' is not one of conv1, conv2, conv3, conv4, conv5, conv6, fc6, fc7, fc8; "
        "did you mean 'fc8'?"
    ),
    ("optim.weight_decays=['fc8:1','fc8:2']",): "optim.weight_decays=[fc8:1, fc8:2]: names fc8 twice; write each once",
    ("pool.kinds=['conv1:mean']",): ("pool.kinds=[conv1:mean]: 'mean' is not one of max, average, max_average"),
    ("model.lrn_size=4",): "model.lrn_size=4: must be odd, so that the window has a central channel",
    ("optim.schedule=plateau", "trainer.limit_val_batches=0"): (
        "trainer.limit_val_batches=0: optim.schedule=plateau needs validation; set optim.schedule=fixed"
    ),
    ("evaluate.checkpoint=best", "trainer.limit_val_batches=0"): (
        "trainer.limit_val_batches=0: evaluate.checkpoint=best needs validation; set it to last"
    ),
    ("data.num_classes=11",): "data.num_classes=11: data.name=shapes has at most 10 classes",
    ("trainer.limit_train_batches=2.5",): (
        "trainer.limit_train_batches=2.5: a fraction must be at most 1.0; for steps use a whole number"
    ),
    ("weights=/no/such.ckpt",): "weights=/no/such.ckpt: no such file",
    ("trainer=towers2", "trainer.precision=16-mixed"): (
        "trainer.precision=16-mixed: with trainer.strategy=towers each device would choose its own loss scale; "
        "use bf16-mixed or 32-true"
    ),
    (
        "trainer.devices=101",
    ): "trainer.devices=101: a batch of 32 images is too small for so many devices; raise data.batch_size",
    ("trainer.precision=16-mixed", "trainer.accelerator=cpu"): (
        "trainer.precision=16-mixed: needs a GPU; on a CPU use bf16-mixed or 32-true"
    ),
    ("data.root=/photos",): "data.root=/photos: data.name=shapes is drawn into data.cache; set data.root=null",
    ("data.train_images=5",): "data.train_images=5: must be at least data.num_classes=10",
    ("data.train_images=96", "trainer.limit_train_batches=0.1"): (
        "trainer.limit_train_batches=0.1: is less than one of the 3 steps of an epoch"
    ),
    ("debug.name=limit",): "debug.name=limit: write debug=limit, which sets more keys",
    ("debug.images=3",): "debug.images=3: only in a try-out; add debug=limit",
    ("trainer.gradient_clip_val=2", "trainer=towers2"): (
        "trainer.gradient_clip_val=2: with trainer.strategy=towers each device has a part of the gradient only; "
        "set trainer.devices=1"
    ),
    ("model.dropout=???",): "model.dropout=???: has no value; set one",
    ("paths.runs=",): "paths.runs=: must not be empty",
    **{
        (f"{name}={value}",): f"{name}={value}: give hours or days above 0, such as 40h or 3d"
        for name in ("max_hours", "study.budget")
        for value in ("-1", "0h", "nan", "inf", "1e9h", "abc", "3w", "h")
    },
    ("max_hours=",): "max_hours=: must not be empty",
    ("max_hours=None",): "max_hours=None: 'None' is read as a string; use max_hours=null",
    # grammar
    ("model.lrn=true,false",): "model.lrn=true,false: several values make a sweep; add -m",
    ("model.remove=[conv3",): "model.remove=[conv3: no viable alternative at input '[conv3'; "
    """a value with special characters or spaces needs nested quotes: 'key="value"'""",
    ("'seed=1'",): """'seed=1': cannot be read; a value with special characters or spaces needs nested quotes: """
    """'key="value"'""",
    ("optim.lr=${optim.no}",): "optim.lr=${optim.no}: Interpolation key 'optim.no' not found",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.items(), ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line_with_key_value_and_fix(overrides, message):
    with pytest.raises(ConfigError) as caught:
        composed(list(overrides))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (["model.remove=[],[conv3],[conv4],[fc7],[conv9]"], "model.remove=[conv9]: 'conv9' is not one of"),
        (["seed=0,1,2", "model.lrn=true,flase"], "model.lrn=flase: must be true or false"),
        (["ablation=none,no_lrm"], "there is no ablation 'no_lrm'; did you mean 'no_lrn'?"),
        (["+model.lnr=true,false"], "there is no key 'model.lnr'; did you mean 'model.lrn'?"),
        (["seed=0,1", "hydra/sweeper=nosuch"], "hydra/sweeper"),
        (["ablation=glob(nolrn*)"], "ablation=glob(nolrn*): matches no value"),
        (["model.lrn=glob(*)"], "model.lrn=glob(*): matches no value"),
        (["seed=range(0,0)"], "seed=range(0,0): matches no value"),
        (["model.dropout=interval(0,1)"], "model.dropout=interval(0,1): an interval cannot be swept"),
        (["paths.runs=a,b"], "paths.runs: must be the same for all jobs"),
        (["seed=0,1", "hydra.launcher.n_jobs=abc", "hydra/launcher=joblib"], "hydra.launcher.n_jobs"),
        (["trainer.fast_dev_run=true,false"], "trainer.fast_dev_run: must be the same for all jobs"),
        (["debug=none,limit"], "debug: must be the same for all jobs"),
    ],
)
def test_a_mistake_in_any_job_of_a_sweep_stops_all(sweep, message):
    with pytest.raises(ConfigError) as caught:
        make_plan(sweep, multirun=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model:\n  lnr: true", "ablation/mine.yaml: there is no key 'model.lnr'; did you mean 'model.lrn'?"),
        ("modle:\n  lrn: true", "ablation/mine.yaml: there is no key 'modle'; did you mean 'model'?"),
        ("model:\n  lrn: flase", "ablation/mine.yaml: model.lrn=flase: must be true or false"),
        ("model:\n  dropout: 2", "model.dropout=2: must be below 1"),
        ("model:\n  remove: conv3", "model.remove"),
        ("model: [1, 2", "mine.yaml"),
        ("model:", "ablation/mine.yaml: model: is a section of keys; set some of them"),
        ("model:\n  kernels: [1, a]", "ablation/mine.yaml: model.kernels=a: must be a list of numbers"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, content: str, message: str):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    with pytest.raises(ConfigError) as caught:
        Composer(str(tmp_path)).job(["ablation=mine"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_ones_own_adds_options(tmp_path: Path):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text("# @package _global_\nmodel:\n  dropout: 0.1\n")
    job = Composer(str(tmp_path)).job(["ablation=mine"])
    assert job.config.model.dropout == 0.1
    [run] = make_plan(["model.dropout=0.1"], config_dir=str(tmp_path)).runs
    assert run.labels["ablation"] == "mine"
    with pytest.raises(ConfigError, match="--config-dir /no/such: no such folder"):
        Composer("/no/such")


def test_option_files_of_other_systems_are_read(tmp_path: Path):
    """With a byte order mark and lines of Windows, as `.yml`, and beside what a Mac leaves."""
    folder = tmp_path / "ablation"
    folder.mkdir()
    text = "# @package _global_\r\n# Mine.\r\nmodel:\r\n  dropout: 0.1\r\n"
    (folder / "marked.yaml").write_bytes(text.encode("utf-8-sig"))
    (folder / "short.yml").write_text(text)
    (folder / "._short.yml").write_bytes(b"\0\5\26\7")
    (folder / "._marked.yaml").write_bytes(b"\0\5\26\7")
    composer = Composer(str(tmp_path))
    assert not [option for option in composer.groups["ablation"] if option.startswith(".")]
    for name in ("marked", "short"):
        assert composer.job([f"ablation={name}"]).config.model.dropout == 0.1
    [run] = make_plan(["ablation=short"], config_dir=str(tmp_path)).runs
    assert run.labels["ablation"] == "marked"  # the first file with this change


@pytest.mark.parametrize("name", ["ablation/no_lrn.yaml", "ablation/no_lrn.yml", "hydra/launcher/slurm.yaml"])
def test_a_built_in_options_name_is_taken(tmp_path: Path, name: str):
    """Hydra would read the built-in file and say nothing of the other."""
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nmodel:\n  dropout: 0\n")
    option = name.rpartition(".")[0]
    with pytest.raises(ConfigError, match=f"{option} is the name of a built-in option; rename {file.name}"):
        Composer(str(tmp_path))
    built_in = (CONF_DIR / option).with_suffix(".yaml").read_text()
    lines = built_in.splitlines(keepends=True)
    older = [line for line in lines if not line.startswith("# ") or line.startswith("# @package")]
    for copy in (built_in, "".join(older), f"{built_in}\n# A note of mine.\n"):  # a copy makes no difference
        file.write_text(copy)
        Composer(str(tmp_path))
    if lines[0].startswith("# @package"):
        file.write_text("".join(lines[1:]))  # Hydra would put its keys elsewhere
        with pytest.raises(ConfigError, match="is the name of a built-in option"):
            Composer(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["optim.lr=.1", "optim.lr=.2"], "remove one; `train -m optim.lr=.1,.2` runs each in turn"),
        (["seed=0", "seed=0"], "remove one"),
        (["logger=wandb", "logger=[mlflow]"], "remove one; both: 'logger=[wandb,mlflow]'"),
        (["seed=0,1", "seed=2"], "remove one; `train -m seed=0,1,2` runs each in turn"),
        (["++seed=0", "seed=1"], "remove one; `train -m seed=0,1` runs each in turn"),
        (
            ["ablation=no_lrn", "ablation=no_dropout"],
            "remove one; `train -m ablation=no_lrn,no_dropout` runs each in turn; "
            "both in one run: ablation=no_lrn model.dropout=0",
        ),
    ],
)
def test_what_is_set_twice_is_refused(line: list[str], hint: str, monkeypatch: pytest.MonkeyPatch):
    """Hydra takes the last and drops the others."""
    monkeypatch.setattr(Composer, "check_once", CHECK_ONCE)
    name = line[1].partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        make_plan(line, multirun=True)
    assert str(caught.value) == f"{' '.join(line)}: {name} is set twice and only the last would count; {hint}"


def test_a_composer_reads_each_file_once(tmp_path: Path):
    """So the rounds of a study that chooses learning rates are of one configuration."""
    file = tmp_path / "ablation" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nmodel:\n  dropout: 0.125\n")
    composer_ = Composer(str(tmp_path))
    first = composer_.job(["ablation=mine", "optim.lr=0.02"])
    file.write_text("no: [configuration")
    second = composer_.job(["ablation=mine", "optim.lr=0.04"])
    assert (second.config.model.dropout, second.config.optim.lr) == (0.125, 0.04)
    assert {name for name, value in flat(second.config).items() if value != flat(first.config)[name]} == {"optim.lr"}
    with pytest.raises(ConfigError, match="mine"):
        Composer(str(tmp_path)).job(["ablation=mine"])


def test_defaults_and_precedence():
    chosen = composer().job([]).choices
    assert {name: chosen[name] for name in ("recipe", "protocol", "ablation")} == {
        "recipe": "demo",
        "protocol": "paper",
        "ablation": "none",
    }
    assert load().model.lrn is True
    assert load(["ablation=no_lrn"]).model.lrn is False
    assert load(["model.lrn=true", "ablation=no_lrn"]).model.lrn is True  # the command line wins, in any order


def test_the_schemas_defaults_are_the_papers():
    config = Config()
    model, optim, augment = config.model, config.optim, config.augment
    assert (model.lrn_size, model.lrn_k, model.lrn_alpha, model.lrn_beta) == (5, 2, 1e-4, 0.75)
    assert (model.kernels, model.hidden, model.groups) == ([96, 256, 384, 384, 256], 4096, 2)
    assert (model.dropout, model.init_std, model.init_bias) == (0.5, 0.01, 1)
    assert (optim.lr, optim.momentum, optim.weight_decay, optim.drop_factor) == (0.01, 0.9, 5e-4, 0.1)
    assert (config.data.batch_size, config.data.size, config.data.map_size) == (128, 256, 55)
    assert (augment.crop, augment.flip, augment.pca, augment.pca_std) == (True, True, True, 0.1)
    assert config.trainer.max_epochs == 90
    assert config.pool.overlap


GROUP_FILES = sorted(path for path in CONF_DIR.glob("*/*.yaml") if path.parent.name != "claims")


@pytest.mark.parametrize("path", GROUP_FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_file_of_conf_composes_and_starts_with_a_comment(path: Path):
    recipe = ["recipe=cifar10"] if path.stem.startswith("cifar_") else []
    job = composer().job([*recipe, f"{path.parent.name}={path.stem}"], trains=path.stem != "folder")
    assert job.choices[path.parent.name] == path.stem
    lines = path.read_text().splitlines()
    assert any(line.startswith("# ") and "@package" not in line for line in lines), path


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("one", "two"):
        monkeypatch.setenv("ALEXLAB_CACHE", str(tmp_path / name))
        monkeypatch.setenv("ALEXLAB_RUNS", str(tmp_path / name / "runs"))
        config = load()
        assert (config.data.cache, config.paths.runs) == (str(tmp_path / name), str(tmp_path / name / "runs"))


ORDERS = [
    ["optim.lr=0.02", "ablation=no_lrn", "seed=7"],
    ["seed=1", "recipe=cifar10", "model.activation=tanh", "trainer.max_epochs=3"],
    ["ablation=no_lrn", "model.lrn=true"],
    ["model.lrn=true", "ablation=no_lrn"],
    ["++model.lrn=false", "model.remove=[conv3]", "data.cache=${paths.runs}/cache"],
    [
        "protocol=source2012",
        "recipe=imagenet128",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "pool.overlap=false",
    ],
]


@pytest.mark.parametrize("overrides", ORDERS, ids=" ".join)
def test_keys_set_on_what_was_composed_before_are_those_that_hydra_composes_at_once(overrides: list[str]):
    """The base of each choice of options is kept; Hydra, asked for the whole line, is the reference."""
    composer_ = Composer()
    for given in (["seed=3", "optim.lr=0.5"], overrides):  # the first leaves nothing in the base of the second
        composer_.job([*(line for line in overrides if line.split("=")[0] in composer_.groups), *given])
    loader = composer_._loader
    whole = loader.load_configuration("train", list(overrides), RunMode.RUN)
    plain = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra")
    reference = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    assert isinstance(reference, Config)
    job = composer_.job(overrides)
    assert job.config == finish(reference)
    assert job.choices == {str(name): str(option) for name, option in whole.hydra.runtime.choices.items()}


def test_ablations_of_the_demo_differ_from_it():
    base = flat(composed())
    for path in (CONF_DIR / "ablation").glob("*.yaml"):
        same = ("none", "dropout_20", "biases_0")  # the demo does so already
        assert (flat(composed([f"ablation={path.stem}"])) != base) == (path.stem not in same), path


def test_names_on_which_users_rely():
    """A key cannot vanish unseen."""
    relied_on = [
        *("seed",),
        *("weights",),
        *("logger.wandb", "logger.tensorboard", "logger.mlflow", "logger.project"),
        *("paths.runs",),
        *("model.lrn", "model.dropout", "model.remove", "model.groups", "model.width"),
        *("pool.overlap",),
        *("augment.crop", "augment.flip", "augment.pca"),
        *("optim.lr", "optim.momentum", "optim.weight_decay", "optim.schedule"),
        *(
            "trainer.max_epochs",
            "trainer.limit_train_batches",
            "trainer.devices",
            "trainer.precision",
            "trainer.fast_dev_run",
        ),
        *("data.root", "data.cache", "data.size", "data.crop_size", "data.batch_size", "data.num_workers", "data.seed"),
        *("evaluate.checkpoint",),
    ]
    assert set(relied_on) <= set(key_types())


def test_every_key_has_a_meaning_of_one_sentence():
    for name, _, entry in walk(Config()):
        meaning = entry.metadata["meaning"]
        assert meaning.endswith("."), name
        assert len(meaning) < 170, name


def test_seeds():
    assert load(["seed=3"]).data.seed == 3
    assert load(["seed=3", "data.seed=1"]).data.seed == 1


def test_what_is_written_is_what_is_read(tmp_path: Path):
    config = load(["model.remove=[fc7,conv3]", "optim.lr=1e-5", "ablation=no_pca"])
    assert config.model.remove == ["conv3", "fc7"]
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config


def test_an_older_records_trackers_are_read_over(tmp_path: Path):
    """The first records had the section `logger`, whose keys were others."""
    config = composed()
    (tmp_path / "config.yaml").write_text(f"{to_yaml(config)}logger:\n  name: wandb\n  project: theirs\n")
    assert read_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("line", "trackers"),
    [
        ([], []),
        (["logger=record"], []),
        (["logger=wandb"], ["wandb"]),
        (["logger=[mlflow,wandb]"], ["wandb", "mlflow"]),
        (["logger=[record,tensorboard]", "logger.wandb=true"], ["wandb", "tensorboard"]),
        (["logger=[]"], []),
    ],
)
def test_trackers(line: list[str], trackers: list[str]):
    assert composed(line).logger.trackers == trackers


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["logger=[wandb,mlfow]"], "there is no logger 'mlfow'; did you mean 'mlflow'?"),
        (["logger.name=wandb"], "there is no key 'logger.name'; write logger=wandb"),
        (["logger.tracking_uri=http://bob:secret@host/x"], "logger.tracking_uri: must hold no user or password; set "),
        (
            ["logger.tracking_uri='postgresql://bob:secret@host/x'"],
            "logger.tracking_uri: must hold no user or password",
        ),
    ],
)
def test_mistakes_with_trackers(line: list[str], message: str):
    with pytest.raises(ConfigError) as error:
        load(line)
    assert message in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where the current directory has a folder of its name, as MLflow's files may be in."""
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(ConfigError) as error:
        load(["logger=mlflow"])
    assert str(error.value) == "logger=mlflow: not installed; run pip install '.[mlflow]'"


def test_a_record_reads_nothing_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stranger's record would put a reader's key into a report, which is meant to be published."""
    monkeypatch.setenv("A_KEY", "secret0123")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(composed()).replace("seed: 0", "seed: ${oc.env:A_KEY}"))
    assert "A_KEY" in path.read_text()
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert str(error.value) == f"{path}: contains an interpolation, ${{...}}; a record has only plain values"


def test_cfg_job_is_yaml_with_a_meaning_after_each_key():
    config = load(["optim.lr=1e-5", "model.remove=[conv3]"])
    text = commented_yaml(config)
    whole, kept = yaml.safe_load(text), yaml.safe_load(to_yaml(config))
    assert all(whole.pop(name) for name in ("logger", "study", "debug"))  # of which a record says nothing
    assert whole == kept
    assert text.count("  # ") == len(list(walk(config)))


def test_a_file_without_its_package_line_is_rejected(tmp_path: Path):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text("model:\n  lrn: false\n")
    with pytest.raises(ConfigError, match="must begin with '# @package _global_'"):
        Composer(str(tmp_path)).job(["ablation=mine"])


@pytest.mark.parametrize(
    "content",
    [
        b"optim:\n  lr: ${optim.weight_decay}",
        b"model:\n  dropout: null",
        b"seed: abc",
        b"model:\n  kernels: 5",
        b"# caf\xe9",
        b"5",
        b"model: [",
    ],
)
def test_a_file_that_nothing_chose_may_hold_anything(tmp_path: Path, content: bytes):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "other.yaml").write_bytes(content)
    [run] = make_plan(["optim.lr=0.02"], config_dir=str(tmp_path)).runs
    assert run.labels["ablation"] == "optim.lr=0.02"
