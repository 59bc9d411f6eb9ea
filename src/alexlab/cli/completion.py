"""Shell completion: a script for bash or zsh, and the words that it offers.

The words come from the schema and from the files of `conf/`. Hydra's own completion composes a configuration for each
word, and knows neither options nor the values of a key.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from alexlab import config

BASH = r"""
_alexlab() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }"
    mapfile -t COMPREPLY < <("$1" --complete "$line" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]#"${word%"$2"}"}") # bash replaces only what follows the last = or :
    if [[ ${#COMPREPLY[@]} == 1 && (${COMPREPLY[0]} == *[=.] || ${COMPREPLY[0]} == *\[*) ]]; then
        compopt -o nospace # more follows
    fi
}
complete -o default -F _alexlab alexlab
"""
ZSH = r"""
_alexlab() {
    local -a found
    found=(${(f)"$($words[1] --complete "${(j: :)words[1,CURRENT-1]} ${(Q)PREFIX}" 2>/dev/null)"})
    if (( ! $#found )); then
        compset -P '*='
        _files
    fi
    compadd -S '' -- ${(M)found:#(*[=.]|*\[*)}
    compadd -- ${found:#(*[=.]|*\[*)}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _alexlab alexlab
"""
SCRIPTS = {"bash": BASH.lstrip(), "zsh": ZSH.lstrip()}

OPTIONS = {
    "train": (
        *("-m", "--multirun", "--dry-run", "--yes", "--json", "--net", "--paper", "--cfg", "--config-dir"),
        "--hydra-help",
        "--help",
    ),
    "prepare": ("check", "--refresh", "--config-dir", "--help"),
    "evaluate": ("--config-dir", "--help"),
    "predict": ("--json", "--png", "--onnx", "--top", "--config-dir", "--help"),
    "runs": (
        "list",
        "watch",
        "show",
        "compare",
        "export",
        "prune",
        "copy",
        "wandb",
        "bundle",
        "studies",
        "forget",
        "--yes",
        "--json",
        "--once",
        "--config-dir",
        "--help",
    ),
    "report": (
        *("compare", "--like", "--pictures", "--nets", "--pdf", "--open", "--json", "--wandb", "--config-dir"),
        "--help",
    ),
}
# Values of options that take one; a folder is completed by the shell.
_ARGUMENTS = {
    **{"--completion": tuple(SCRIPTS), "--cfg": ("job", "hydra", "all")},
    **{"--config-dir": (), "--png": (), "--onnx": (), "--top": ()},
}
# Names before `=` that are not in the configuration.
_NAMES = {
    "evaluate": ("runs",),
    "predict": ("run", "view"),
    "runs": (
        *("study", "state", "failure", "recipe", "protocol", "model", "ablation", "seed"),  # the filters
        *("sweep", "submitter", "every"),
    ),
    "report": ("sweep", "runs", "out", "top1", "top5", "view", "images", "n", "sd"),
}
# Commands that take only some groups and keys of the configuration.
_PREFIXES = {
    "prepare": ("data", "recipe"),
    "predict": ("paths.runs", "data.cache"),
    "runs": ("paths.runs", "logger", "logger.project", "logger.entity", "logger.tracking_uri"),
}


def complete(line: str) -> list[str]:
    """The words that may replace the last one of a line, which ends at the cursor; none if a file name is wanted."""
    words = line.split(" ")
    typed, word = [each for each in words[1:-1] if each], words[-1]
    if not typed:
        found = [*OPTIONS, "--help", "--version", "--completion"]
    elif typed[-1] in _ARGUMENTS:
        found = list(_ARGUMENTS[typed[-1]])
    elif typed[0] not in OPTIONS:
        found = []
    elif typed[:2] == ["train", "--help"] and "=" not in word:
        found = [*_groups([]), *(key for key, _, _ in config.walk(config.Config()))]
    elif "=" in word:
        name, _, value = word.partition("=")
        settled = value[: max(value.rfind(","), value.rfind("[")) + 1]  # earlier values of a sweep or list
        found = [f"{name}={settled}{one}" for one in _values(name, typed, value)]
    else:
        found = [*OPTIONS[typed[0]], *_names(typed[0], word)]
        if typed[-1] in ("show", "compare") or typed[-2:-1] == ["compare"]:
            found += _run_ids()
    return [each for each in dict.fromkeys(found) if each.startswith(word)]


def _names(command: str, word: str) -> list[str]:
    """Groups, keys and a command's own names, each up to its next dot or its `=`."""
    names = [f"{name}=" for name in (*_groups([]), *(key for key, _, _ in config.walk(config.Config())))]
    names = [name for name in names if name.startswith(_PREFIXES.get(command, "")) and name.startswith(word)]
    names = [name[: name.find(".", len(word)) + 1] or name for name in names]
    return [*(f"{name}=" for name in _NAMES.get(command, ())), *names]


def _groups(typed: list[str]) -> dict[str, list[str]]:
    """The options of each config group, with those of --config-dir."""
    own = [Path(folder).expanduser() for flag, folder in pairwise(typed) if flag == "--config-dir"]
    folders = [config.CONF_DIR, *own]
    files = [(folder, path) for folder in folders for path in folder.glob("*/**/*.y*ml") if path.name[0] != "."]
    paths = [path.relative_to(folder) for folder, path in files]
    groups: dict[str, list[str]] = {"hydra/launcher": ["basic", "joblib"]}
    for path in sorted(paths):
        groups.setdefault(path.parent.as_posix(), []).append(path.stem)
    del groups["claims"]
    return groups


def _values(name: str, typed: list[str], value: str) -> list[str]:
    groups = _groups(typed)
    if name in groups:
        return groups[name]
    if name == "runs" and typed[0] == "evaluate":
        return _run_ids() if value else ["["]
    if typed[0] == "predict" and name in ("run", "view"):
        return _run_ids() if name == "run" else ["ten", "center"]
    if name == "sweep" and typed[0] in ("runs", "report"):
        return ["last", *sorted(path.stem for path in Path(config.Config().paths.runs).glob("sweeps/*.json"))]
    if name == "state" and typed[0] == "runs":
        return ["RUNNING", "DONE", "PREEMPTED", "FAILED"]
    entries = {key: entry for key, _, entry in config.walk(config.Config())}
    found = _of_type(entries[name]) if name in entries else []
    return ["["] if found and not value and entries[name].type.startswith("list") else found


def _of_type(entry: Any) -> list[str]:
    """All values of a key, if they are few: of a bool, an enum or a list of choices; else none."""
    if entry.metadata["choices"] and entry.metadata["by_layer"] is None:
        return list(entry.metadata["choices"])
    kinds = [getattr(config, word, None) for word in re.findall(r"\w+", entry.type)]
    if entry.type == "bool":
        return ["true", "false"]
    return [member.name for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for member in kind]


def _run_ids() -> list[str]:
    runs = Path(config.Config().paths.runs)
    return sorted(path.name for path in runs.glob("*") if re.fullmatch(r"[0-9a-f]{12}", path.name))


def print_script(shell: str = "") -> int:
    """Print the script of a shell; return the exit status."""
    if shell not in SCRIPTS:
        print(f"error: --completion {shell}: no such shell; choose one of {', '.join(SCRIPTS)}", file=sys.stderr)
        return 2
    print(SCRIPTS[shell], end="")
    return 0


def print_words(line: str = "") -> int:
    """Print what may complete a line, one word a line; return the exit status."""
    print(*complete(line), sep="\n")
    return 0
