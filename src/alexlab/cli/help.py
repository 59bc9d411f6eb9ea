"""The output of `--help` and `--cfg job`: every key with its value, its options or range, and its meaning."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from alexlab import config as schema
from alexlab.command import as_typed
from alexlab.compose import Composer, from_file, key_types
from alexlab.config import CONF_DIR, Config, did_you_mean, flat, shown, walk
from alexlab.console import Console
from alexlab.errors import UserError

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
  python src/train.py ... --dry-run --json          the plan as a JSON document
  python src/train.py -m ... max_hours=12           save and stop after 12 hours
  python src/train.py --cfg job ...                 the configuration, as YAML
  python src/train.py --net ...                     the net, layer by layer
  python src/train.py --paper                       the paper's choices as keys
  python src/train.py --config-dir DIR ...          add options from DIR
  python src/train.py debug=limit                   a try-out: limit, overfit
                                                    or profile; keeps nothing
  python src/train.py --help model                  a group or section alone
  python src/train.py --help lrn                    everything about a word

Re-run a command to resume it: finished runs are reused, interrupted ones
continue from their last checkpoint. Ctrl-C or a signal saves and stops;
a second one stops at once. A sweep with more than 100 runs to do asks before
it starts, unless --yes.
Exit status: 0 done, 1 a run failed, 2 a mistake in the command, 75 stopped and
saved: run the same command again. --hydra-help lists Hydra's own flags.
python src/runs.py lists, compares and removes records."""


_INDENT = (0, 0, 0, 6)
GROUPS = {
    "ablation": "one named change",
    "data": "the data set",
    "debug": "a try-out without a record",
    "logger": "where metrics go",
    "model": "the net",
    "protocol": "training conventions",
    "recipe": "a scale: data, sizes, length",
    "study": "claims and the arms that test them",
    "trainer": "one device or two",
}


def print_help(console: Console, config_dir: str | None = None, words: list[str] | None = None) -> None:
    """Print the usage, all groups and all keys; with `words`, the groups and keys that match each.

    An override among the words, such as recipe=imagenet128, is applied first, so that the values shown include it.

    Raises:
        UserError: if nothing matches a word.
    """
    words = words or []
    composer = Composer(config_dir)
    chosen = composer.job([word for word in words if "=" in word], stored=False)
    pages = [word for word in words if "=" not in word]
    entries = [(name, value, entry) for name, value, entry in walk(chosen.config)]
    own = flat(from_file(CONF_DIR / "protocol" / f"{chosen.choices['protocol']}.yaml"))
    protocol = chosen.choices["protocol"]
    if not words:
        console.print(as_typed(USAGE))
    if not pages:
        console.print("\nGroups (GROUP=OPTION; * marks the choice; --help GROUP explains them)", style="bold")
        groups = Table.grid(padding=(0, 2))
        for name, options in composer.groups.items():
            marked = [f"{option}*" if option == chosen.choices.get(name) else option for option in options]
            groups.add_row(f"  {name}", ", ".join(marked))
        console.print(groups)
        _print_keys(entries, own, protocol, console)
        console.print("\n--help WORD searches them, such as --help model, --help lrn, --help optim.lr.")
    for word in pages:
        options = _options(word, composer, config_dir)
        keys = _keys(word, entries, word in composer.groups)
        if not options and not keys:
            known = [*composer.groups, *(name for name, _, _ in entries)]
            near = did_you_mean(word, [*known, *(name.rpartition(".")[2] for name in known)])
            raise UserError(f"--help {word}: matches no key or option{near or '; --help lists all'}")
        _print_options(options, chosen.choices, console)
        if keys:
            _print_keys(keys, own, protocol, console)


def _options(word: str, composer: Composer, config_dir: str | None) -> list[tuple[str, str, str]]:
    """(group, option, comment) of a group's options; of those that match a word, with the first sentence only."""
    if word not in composer.groups and any(name.startswith(f"{word}.") for name in key_types()):
        return []  # a section of keys
    found = []
    for group, options in composer.groups.items():
        for option in options:
            paths = [Path(folder) / group / f"{option}.yaml" for folder in (config_dir, CONF_DIR) if folder]
            comment = next((comment_of(path) for path in paths if path.is_file()), "")
            first = comment.partition(". ")[0]
            if group == word:
                found.append((group, option, comment))
            elif word not in composer.groups and _is_about(word, option, first):
                found.append((group, option, f"{first.rstrip('.')}."))
    return found


Entry = tuple[str, Any, Any]


def _keys(word: str, entries: list[Entry], is_group: bool) -> list[Entry]:
    """The keys of a section, a key itself, or those that match a word."""
    if found := [one for one in entries if one[0] == word or one[0].startswith(f"{word}.")]:
        return found
    return [] if is_group else [one for one in entries if _is_about(word, one[0], one[2].metadata["meaning"])]


def _is_about(word: str, name: str, meaning: str) -> bool:
    """Whether a name contains the word, or a meaning has a word that begins with it."""
    return word.lower() in name or re.search(rf"\b{re.escape(word)}", meaning, re.IGNORECASE) is not None


def _print_options(options: list[tuple[str, str, str]], choices: dict[str, str], console: Console) -> None:
    for group in dict.fromkeys(group for group, _, _ in options):
        about = f": {GROUPS[group]}" if group in GROUPS else ""
        console.print(f"\nGroup {group}{about} (* marks the choice)", style="bold")
        for _, option, comment in (one for one in options if one[0] == group):
            mark = "*" if choices.get(group) == option else ""
            console.print(f"  {group}={option}{mark}", style="cyan", soft_wrap=True)
            console.print(Padding(Text(comment), _INDENT))


def _print_keys(entries: list[Entry], own: dict[str, Any], protocol: str, console: Console) -> None:
    console.print("\nKeys (KEY=VALUE), what each takes; in brackets: sections of the paper", style="bold")
    for name, value, entry in entries:
        accepted = range_of(entry)
        if entry.metadata["identity"] and own[name] is not None and shown(own[name]) != shown(value):
            accepted += f"; protocol={protocol} has {_typed(own[name])}"
        line = Text(f"  {name}={_typed(value)}", style="cyan")
        if fits := len(line) + 2 + len(accepted) <= console.width:
            line.append(f"  {accepted}", style="green")
        console.print(line, soft_wrap=True)
        if not fits:
            console.print(Padding(Text(accepted, style="green"), _INDENT))
        unstated = entry.metadata["unstated"]
        meaning = entry.metadata["meaning"] + (f" Unstated in the paper: {unstated}." if unstated else "")
        console.print(Padding(Text(meaning), _INDENT))


def _typed(value: Any) -> str:
    """A value as it may be typed; 1.0 keeps its point, since 1 means one step and 1.0 all steps."""
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    return _scalar(value) if isinstance(value, float) else shown(value)


def range_of(entry: Any) -> str:
    """The values that a key takes, in words: its options, or its type and bounds."""
    kinds = [kind.strip() for kind in re.sub(r"Union|[\[\]]", " ", entry.type).replace("list", "").split(",")]
    is_list = entry.type.startswith("list")
    enum = getattr(schema, kinds[0], None)
    options = list(entry.metadata["choices"])
    if isinstance(enum, type) and issubclass(enum, Enum):
        options = [member.name for member in enum]
    if kinds[0] == "bool":
        options = ["true", "false"]
    bounds = [f"{name} {bound:g}" for name, (bound, _) in entry.metadata["bounds"].items() if bound is not None]
    if entry.metadata["by_layer"] is not None:
        one = "layer:option" if options else "layer:number"
        what = f"list of {one}{', ' if options else ''}{' | '.join(options)}"
    elif options:
        what = f"{'list of ' if is_list else ''}{' | '.join(options)}"
    else:
        names = {"int": "whole number", "float": "number", "str": "text"}
        words = [names[kind] for kind in kinds if kind in names]
        what = f"list of {words[0]}s" if is_list else " or ".join(words)
        what = what.replace("texts", "names").replace("whole number or number", "whole number or fraction")
    if bounds:
        what += f" {' and '.join(bounds)}"
    return f"{what}, or null" if "None" in kinds else what


def comment_of(path: Path) -> str:
    """The comment at the head of a file of `conf/`, on one line, without the lines for Hydra and for editors."""
    marks = ("# @package", "# yaml-language-server:")
    lines = path.read_text().splitlines()
    lines = [line[2:] for line in lines if line.startswith("# ") and not line.startswith(marks)]
    return " ".join(lines)


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
