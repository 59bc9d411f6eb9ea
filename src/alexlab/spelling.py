"""Advice for names that are not keys: names from other projects, and keys without their section.

None is accepted as an alias: a command line in a paper or an issue must mean one thing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from alexlab.config import TRACKERS, Config, did_you_mean, walk

_LOGGER = "metrics.csv is in each record, for any other tracker (docs/how-to/trackers.md)"
# {advice: the names that it is for}; each is a full name or the last part of one. {} is the value.
_ADVICE = {
    "write optim.lr={}": "lr learning_rate base_lr lr0 eta",
    "write optim.weight_decay={}": "wd decay l2",
    "write optim.schedule={}": "scheduler lr_scheduler",
    "the optimiser is the paper's SGD; --help optim lists its keys": "optimizer optimiser optim.name adam nesterov",
    "write trainer.max_epochs={}": "epochs epoch num_epochs n_epochs max_epoch",
    "write data.batch_size={}": "batch bs batchsize train_batch_size",
    "write data.eval_batch_size={}": "val_batch_size test_batch_size",
    "write data.num_workers={}": "workers nworkers num_loader_workers",
    "write trainer.devices={} or trainer=ddp2": "gpus gpu num_gpus ngpus n_gpu",
    "write trainer.accelerator=gpu or cpu": "device cuda",
    "write trainer.precision=bf16-mixed; --help trainer.precision": "amp fp16 bf16 mixed_precision",
    "run the same command again to resume; weights=FILE starts from a network's weights": (
        "resume resume_from resume_from_checkpoint auto_resume restart ckpt ckpt_path checkpoint_path load_from"
    ),
    "weights=FILE starts from a network's weights": "pretrained init_from",
    "write data={}": "dataset datamodule data_set",
    "data.raw=DIR has the source files, data.cache=DIR the stores": "data_dir data_path datadir",
    "data.size is the side of stored images, data.crop_size that of crops": "image_size img_size resolution",
    "write paths.runs={}": "output_dir out_dir save_dir log_dir default_root_dir",
    "write seed={}": "random_seed manual_seed seed_everything",
    "write model={}": "arch architecture net network backbone model.name",
    "write logger=wandb": "use_wandb",
    "write logger={}": "logger.name tracker loggers",
    "write logger=mlflow logger.tracking_uri={}": "mlflow_tracking_uri mlflow_uri",
    "write logger.project={}": "experiment_name mlflow_experiment",
    _LOGGER: "csv",
    "write study={} or ablation={}": "experiment experiments",
    "-m KEY=VALUE,VALUE is a sweep, study=rates a search": "hparams_search sweep grid",
    "write debug=limit or trainer.fast_dev_run=true": "fast dry smoke test_run",
    "write debug=overfit": "overfit overfit_batches",
    "write debug=profile": "profiler profile",
    "debug=limit tries a run out on 200 test images; a record has all of them": "limit_test_batches",
    "write trainer.gradient_clip_val={}": "gradient_clip grad_clip clip_grad clip_grad_norm max_grad_norm",
    "only the norm is limited, by trainer.gradient_clip_val": "gradient_clip_algorithm clip_value",
    "a step is one batch of data.batch_size; if memory is too small for it, trainer.devices=2 divides it": (
        "accumulate_grad_batches gradient_accumulation_steps accum_iter iter_size"
    ),
    "a run that ends by a clock has no reproducible result; max_hours=12 saves it then, and the same command resumes": (
        "max_time timeout"
    ),
    "epochs are counted, not steps; trainer.max_epochs and trainer.limit_train_batches": (
        "max_steps min_steps min_epochs num_steps iterations"
    ),
    "arms of a study train equally long; optim.schedule=plateau ends by itself": "early_stopping early_stop",
    "validation follows each epoch; trainer.limit_val_batches=0 leaves it out": (
        "check_val_every_n_epoch val_check_interval"
    ),
    "a run has one machine; hydra/launcher=slurm or ray spreads runs": "num_nodes nodes",
    "a run's id follows from its keys": "run_name exp_name run_id",
    "--config-dir DIR adds options of your own; keys are set on the command line": "config",
}
_BY_NAME = {name: advice for advice, names in _ADVICE.items() for name in names.split()}
# {(key or group, value): what to write instead, or why it is impossible}.
_VALUES = {
    ("trainer.accelerator", "mps"): "Apple's GPUs are not supported; write cpu",
    ("trainer.accelerator", "cuda"): "write gpu",
    ("trainer.accelerator", "tpu"): "TPUs are not supported",
    **{("logger", name): _LOGGER for name in ("csv", "aim", "comet", "neptune", "clearml")},
    ("logger", "many_loggers"): "several: 'logger=[wandb,tensorboard]'",
    ("debug", "default"): "write debug=limit",
    ("debug", "fdr"): "write trainer.fast_dev_run=true",
    ("debug", "profiler"): "write debug=profile",
}


@cache
def _keys() -> dict[str, list[str]]:
    """{last part of a key: the keys that end with it}."""
    keys: dict[str, list[str]] = {}
    for name, _, _ in walk(Config()):
        keys.setdefault(name.rpartition(".")[2], []).append(name)
    return keys


def _all_keys() -> list[str]:
    return [key for keys in _keys().values() for key in keys]


def for_name(name: str, value: str, known: Iterable[str] = ()) -> str:
    """Advice for `name`, which is not a key, such as `write optim.lr=0.1`; empty if nothing is similar.

    `known`: other valid names, such as groups.
    """
    name = name.lower().replace("-", "_")
    last = name.rpartition(".")[2]
    if advice := _BY_NAME.get(name) or _BY_NAME.get(last):
        return advice.replace("{}", value or "...")
    if last == "name" and value in TRACKERS:
        return f"write logger={value}"
    if keys := _keys().get(last, []):  # data.name is set by the group data
        lines = [f"{key.removesuffix('.name')}={value or '...'}" for key in keys]
        return f"write {' or '.join(lines)}"
    if near := did_you_mean(name, [*_all_keys(), *(one for one in known if "." not in name)]):
        return near.removeprefix("; ")
    section = name.partition(".")[0]
    return f"--help {section} lists its keys" if any(key.startswith(f"{section}.") for key in _all_keys()) else ""


def for_value(name: str, value: str) -> str:
    """Advice for a value that a key or group does not have; empty if there is none."""
    if name == "data":
        return "data=folder takes images of your own, in a folder for each class"
    return _VALUES.get((name, value.lower()), "")


def for_flag(argv: list[str], flag: str, flags: Iterable[str], groups: Iterable[str]) -> str:
    """The message for a flag that a command lacks: keys are set without dashes."""
    name, sign, value = flag.lstrip("-").partition("=")
    place = argv.index(flag)
    if not sign and place + 1 < len(argv) and not argv[place + 1].startswith("-") and "=" not in argv[place + 1]:
        value = argv[place + 1]
    shown = f"{flag} {value}" if value and not sign else flag
    if name in _all_keys() or name in groups:
        return f"{shown}: keys have no dashes; write {name}={value or '...'}"
    near = did_you_mean(flag, [one for one in flags if one.startswith("--")]).removeprefix("; ")
    is_alias = name.replace("-", "_").rpartition(".")[2] in (*_BY_NAME, *_keys())
    advice = for_name(name, value)
    return f"{shown}: there is no such flag here; {(advice if is_alias else near or advice) or '--help lists all'}"


def for_word(words: list[str], place: int) -> str:
    """The message for a word of a command line, given by its index, that is not KEY=VALUE."""
    word, following = words[place], words[place + 1 : place + 2]
    value = following[0] if following and "=" not in following[0] else ""
    if word in ("help", "?"):
        return f"{word}: write --help"
    if word.endswith(","):
        return f"{word}: no space after a comma; write {word}{value or '...'}"
    if word in _all_keys():
        return f"{word}: an equals sign sets a key, without spaces; write {word}={value or '...'}"
    return f"{word}: is not KEY=VALUE; {for_name(word, value) or '--help lists the keys, --help WORD searches them'}"
