"""`alexlab evaluate`: test errors of an ensemble of finished runs' nets (section 6), or of a file of weights.

Nothing is trained. The result of an ensemble is written next to the records, to `averages/<id>/`; its id is determined
by its runs, their checkpoint and what is averaged over views, and the same one is not computed twice.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from alexlab.cli.columns import Column, print_columns
from alexlab.cli.tables import seeds_shown
from alexlab.command import run_command
from alexlab.compose import Composer, read_config
from alexlab.config import Config, ConfigError, walk
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.runs.ensemble import (
    EVALUATE_KEYS,
    check_files,
    compute,
    count_of_nets,
    errors_of,
    evaluate_nets,
    in_common,
    read_done,
)
from alexlab.runs.identity import differences, spelled
from alexlab.runs.names import run_name
from alexlab.runs.record import Record
from alexlab.study.intervals import wilson

USAGE = """\
usage: python src/evaluate.py runs=[ID,ID,...] | weights=FILE [KEY=VALUE ...]

Errors on the test split, of the centre and of ten views, without any training.

  python src/evaluate.py 'runs=[ID,ID,...]'         an ensemble of finished runs
  python src/evaluate.py 'runs=[ID,ID,...]' evaluate.checkpoint=best
                                                    of their best weights
  python src/evaluate.py weights=FILE model.lrn=false
                                                    a file, for the net that
                                                    train.py's keys describe
                                                    (torchvision's names work
                                                    with model=torchvision)

An ensemble's result is written to <paths.runs>/averages/<id>/ and not computed
twice. runs= accepts evaluate.checkpoint, evaluate.average and keys that change
no run, such as paths.runs, data.cache (where the data were prepared) and
data.eval_batch_size; weights= accepts what train.py does, and --config-dir DIR.
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command,
130 stopped from the keyboard."""

# Keys that change no run, and have no effect if none is trained.
_MEANINGLESS = (
    *(
        "trainer.fast_dev_run",
        "debug.",
        "trainer.enable_progress_bar",
        "trainer.chance_epochs",
        "trainer.ahead",
        "checkpoint.",
        "retry",
        "max_hours",
        "study.",
    ),
    *("logger.", "data.raw", "data.on_bad", "trainer.devices", "trainer.strategy"),
)
_TITLE = "Error on the test split, %"


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    return run_command(argv, USAGE, "; nothing is written.", _obey)


def _obey(overrides: list[str], config_dir: str | None, console: Console) -> int:
    runs = [override for override in overrides if _name(override) == "runs"]
    others = [override for override in overrides if override not in runs]
    if bool(runs) == any(_name(override) == "weights" for override in others):
        one = "only one" if runs else "one"
        raise UserError(f"give {one} of runs=[ID,ID,...], the ids of finished runs, and weights=FILE, a net's weights")
    composer = Composer(config_dir)
    if len(runs) > 1:
        raise UserError(f"{runs[1]}: runs= is given twice; name all runs in one list")
    composer.check_once(others)
    if runs:
        evaluate_ensemble(_ids(runs[-1]), composer, others, console)
    else:
        config = composer.job(others).config
        _check_settings(config, {_name(override) for override in others})
        _evaluate_file(config, console)
    return 0


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


# Keys of the net and of what it sees of an image.
_SEEN_BY_NET = ("model.", "pool.", *(f"data.{key}" for key in ("size", "resize", "crop_size", "mean", "pixel_scale")))


def _ids(override: str) -> list[str]:
    # Not by Hydra's grammar, which reads an id of digits alone as a number.
    ids = [item.strip(" '\"") for item in override.partition("=")[2].strip("[] ").split(",")]
    if not all(ids):
        raise UserError(f"{override}: has an empty item; name one or more runs, as in runs=[ID,ID]")
    for run_id in ids:
        if ids.count(run_id) > 1:
            raise UserError(f"{override}: names {run_id} twice; write each once")
    return ids


def evaluate_ensemble(ids: list[str], composer: Composer, overrides: list[str], console: Console) -> None:
    """Evaluate the ensemble of finished runs' nets, unless that was done before, and print it.

    Raises:
        UserError: for runs that make no ensemble.
    """
    settings = _settings(composer, overrides)
    runs = [read_done(run_id, settings, [_name(override) for override in overrides]) for run_id in ids]
    chosen = in_common(runs)
    ensemble_id = sha256(" ".join([*sorted(ids), *chosen.values()]).encode()).hexdigest()[:12]
    record = Record(Path(settings.paths.runs) / "averages", ensemble_id)
    how = " ".join(f"evaluate.{name}={value}" for name, value in chosen.items())
    title = f"alexlab: ensemble of {count_of_nets(ids)}, {how}"
    result = record.result()
    if result:
        console.print(f"{title}\nEvaluated before; nothing is computed again.")
    else:
        for run in runs:
            check_files(run)
        console.print(title)
        record.fence()  # refuses links in an untrusted folder
        record.path.mkdir(parents=True, exist_ok=True)  # or fail here, before the work
        # Always in one order, since the last bits of a sum depend on it.
        found, test = compute(sorted(runs, key=lambda run: run.record.run_id), settings)
        result = {"average_id": ensemble_id, **chosen, **found}
        from alexlab.training.evaluate import archive

        record.write("predictions.npz", archive(test))
        record.write("result.json", result)
    try:
        columns = _ensemble_columns(result, ids)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:  # it may be untrusted
        path = record.file("result.json")
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: is corrupt ({why}); remove {record.path} to evaluate it again") from error
    console.print()
    print_columns(_TITLE, columns, console, rules=[len(ids)])
    console.say("ensemble: the nets' softmax outputs are averaged for each image, as in section 6", "dim")
    console.say(_interval_note(result["test"]["images"]), "dim")
    console.print(f"Record: {record.path}/", soft_wrap=True)


def _settings(composer: Composer, overrides: list[str]) -> Config:
    """The settings in addition to `runs=`; refuses a key that would make them different runs."""
    free = [name for name, _, entry in walk(Config()) if not entry.metadata["identity"]]
    allowed = [f"evaluate.{name}" for name in EVALUATE_KEYS]
    allowed += [name for name in free if not name.startswith(_MEANINGLESS)]
    for override in overrides:
        if _name(override) not in allowed:
            composer.expand([override], multirun=False)  # raises for an unknown key
            raise ConfigError(f"{override}: cannot be set for runs that are done; only {', '.join(allowed)} can")
    # With data=folder, which accepts every key for a store's location; nothing else of this configuration is used.
    return composer.job(["data=folder", *overrides], trains=False).config


def _check_settings(config: Config, named: set[str]) -> None:
    """Refuse a run's weights with a net or inputs other than its own, unless the command line names the key.

    Raises:
        ConfigError: with the keys that are missing.
    """
    if config.weights is None:
        return
    record = Path(config.weights).resolve().parent.parent
    if Path(config.weights).parent.name != "checkpoints" or not (record / "config.yaml").is_file():
        return
    recorded = differences(read_config(record / "config.yaml", stored=False), config)
    missing = {name: value for name, value in recorded.items() if name.startswith(_SEEN_BY_NET) and name not in named}
    missing = {name: value for name, value in missing.items() if not name.startswith("model.init")}
    if missing:
        raise ConfigError(
            f"weights={config.weights}: was trained with {spelled(missing)}; add that, or evaluate runs=[{record.name}]"
        )


def _evaluate_file(config: Config, console: Console) -> None:
    if config.is_tryout:
        name = "trainer.fast_dev_run=true" if config.trainer.fast_dev_run else f"debug={config.debug.name.name}"
        raise ConfigError(f"{name}: nothing is trained here; leave it out")
    if config.weights is None:
        raise ConfigError("weights=null: name a file")
    _, [test] = evaluate_nets([(config, Path(config.weights))], [], config, "evaluating")
    console.print()
    name = Column("weights", wraps=True, cells=[config.weights])
    errors = _error_columns([_cells(errors_of(test), len(test["ten"].labels))])
    print_columns(_TITLE, [name, *errors], console)
    console.say(_interval_note(len(test["ten"].labels)), "dim")
    console.print("This evaluation is not saved.")


def _ensemble_columns(result: dict[str, Any], ids: list[str]) -> list[Column]:
    members = [result["members"][run_id] for run_id in ids]
    groups = [name for name in members[0]["labels"] if name not in ("ablation", "arm")]
    varying = [name for name in groups if len({member["labels"].get(name) for member in members}) > 1]
    what, seed, run_ids = Column("arm", wraps=True), Column("seed", right=True), Column("run id")
    errors = [_cells(member["test"]) for member in members]
    for run_id, member in zip(ids, members, strict=True):
        labels = member["labels"]
        name = run_name(labels["ablation"])
        groups = [f"{group}={labels.get(group)}" for group in varying]
        settings = [f"{key}={value}" for key, value in name.settings.items()]
        what.cells.append("\n".join([*groups, name.arm, *settings]))
        seed.cells.append(seeds_shown(member["seed"], member["data_seed"]))
        run_ids.cells.append(run_id)
    images = result["test"]["images"]
    for title, cells, one in (
        (f"mean of the {len(ids)}", _cells(result["mean"]), ""),
        (f"ensemble of the {count_of_nets(ids)}", _cells(result["test"], images), result["average_id"]),
    ):
        what.cells.append(title)
        seed.cells.append("")
        errors.append(cells)
        run_ids.cells.append(one)
    return [what, seed, *_error_columns(errors), run_ids]


def _error_columns(errors: list[list[str]]) -> list[Column]:
    """The four errors of each row."""
    return [
        Column(heading, name, right=rank > 0, rank=rank, cells=[cells[rank] for cells in errors])
        for rank, (heading, name) in enumerate(
            (
                *(("ten views\ntop-1", "ten views top-1"), ("\ntop-5", "ten views top-5")),
                *(("centre\ntop-1", "centre top-1"), ("\ntop-5", "centre top-5")),
            )
        )
    ]


def _cells(errors: dict[str, Any], images: int | None = None) -> list[str]:
    """The four errors in %; with the number of images, the first with its interval."""
    cells = [f"{100 * errors[kind][name]:5.1f}" for kind in ("ten", "center") for name in ("top1_error", "top5_error")]
    if images is not None:
        low, high = wilson(errors["ten"]["top1_error"], images)
        cells[0] += f"±{50 * (high - low):.1f}"
    return cells


def _interval_note(images: int) -> str:
    return f"±: 95 % interval over the {images:,} test images alone; it does not cover seeds."
