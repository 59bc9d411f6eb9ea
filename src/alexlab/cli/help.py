"""The output of `--help` and `--cfg job`: every key with its value and its meaning."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from alexlab.command import as_typed
from alexlab.compose import Composer
from alexlab.config import Config, shown, walk
from alexlab.console import Console

USAGE = """\
usage: python src/train.py [-m] [FLAGS] [GROUP=OPTION ...] [KEY=VALUE ...]

Train AlexNet, or a sweep of its ablations, and compare the arms.

  python src/train.py                               one run: the demo's baseline
  python src/train.py model.dropout=0 seed=3        one run, changed
  python src/train.py -m model.lrn=true,false pool.overlap=true,false
                                                    a sweep: all combinations
  python src/train.py -m 'ablation=glob(*)' seed=0,1
                                                    every ablation, two seeds
  python src/train.py -m ... --dry-run              the plan, its time and disk
  python src/train.py --cfg job ...                 the configuration, as YAML
  python src/train.py --net ...                     the net, layer by layer
  python src/train.py --paper                       the paper's choices as keys
  python src/train.py --config-dir DIR ...          add options from DIR

Re-run a command to resume it: finished runs are reused, interrupted ones
continue from their last checkpoint. Ctrl-C or a signal saves and stops;
a second one stops at once.
Exit status: 0 done, 1 a run failed, 2 a mistake in the command, 75 stopped and
saved: run the same command again. --hydra-help lists Hydra's own flags.
python src/runs.py lists, compares and removes records."""


def print_help(console: Console, config_dir: str | None = None) -> None:
    composer = Composer(config_dir)
    console.print(as_typed(USAGE), highlight=False, markup=False)
    console.print("\nGroups (GROUP=OPTION; * marks the default)", style="bold")
    groups = Table.grid(padding=(0, 2))
    chosen = composer.job([])
    for name, options in composer.groups.items():
        marked = [f"{option}*" if option == chosen.choices.get(name) else option for option in options]
        groups.add_row(f"  {name}", ", ".join(marked))
    console.print(groups, highlight=False)
    console.print("\nKeys with their values (KEY=VALUE; in brackets: sections of the paper)", style="bold")
    for name, value, entry in walk(chosen.config):
        console.print(f"  {name}={_scalar(value)}", style="cyan", markup=False, soft_wrap=True)
        unstated = entry.metadata["unstated"]
        meaning = entry.metadata["meaning"] + (f" Unstated in the paper: {unstated}." if unstated else "")
        console.print(Padding(Text(meaning), (0, 0, 0, 6)))


def commented_yaml(config: Config) -> str:
    """The configuration as YAML that Hydra reads back, each key with its meaning as a comment."""
    lines: list[str] = []
    _write(config, "", lines)
    return "\n".join(lines) + "\n"


def _write(config: Any, indent: str, lines: list[str]) -> None:
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            lines.append(f"{indent}{entry.name}:")
            _write(value, f"{indent}  ", lines)
        else:
            line = f"{indent}{entry.name}: {_scalar(value)}"
            lines.append(f"{line:<40}  # {entry.metadata['meaning']}")


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and not isinstance(value, Enum):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")  # YAML 1.1 wants the point
    return shown(value)
