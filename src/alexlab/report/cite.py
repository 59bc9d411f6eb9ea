"""The citation of a report's runs, and the commands that repeat them, ready to copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from alexlab.study.claims import is_of_net
from alexlab.study.judgement import Judgement
from alexlab.study.records import RunData

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
PAPER = """\
@inproceedings{krizhevsky2012imagenet,
  title = {{ImageNet} Classification with Deep Convolutional Neural Networks},
  author = {Krizhevsky, Alex and Sutskever, Ilya and Hinton, Geoffrey E.},
  booktitle = {Advances in Neural Information Processing Systems 25},
  pages = {1097--1105},
  year = {2012},
}"""


@dataclass(frozen=True)
class Repeat:
    """Two texts to copy: shell commands and BibTeX."""

    commands: str
    citation: str


def repeat_study(judgement: Judgement, runs: Sequence[RunData]) -> Repeat:
    train = judgement.command
    report = train.replace("src/train.py", "src/report.py", 1)
    return _repeat([train, report], runs, f"study {judgement.plan['id']}")


def repeat_sweep(sweep_id: str, lines: Sequence[Sequence[str]], runs: Sequence[RunData]) -> Repeat:
    """`lines`: the overrides of each arm; those that do not set the net's keys (untrusted records) are dropped."""
    allowed = dict.fromkeys(tuple(one for one in line if is_of_net(one, None)) for line in lines)
    # Records do not say where a user's own images are.
    allowed = dict.fromkeys((*line, "data.raw=DIR") if "data=folder" in line else line for line in allowed)
    commands = [shlex.join(["python", "src/train.py", "-m", *line]) for line in _joined(list(allowed))]
    return _repeat([*commands, f"python src/report.py sweep={sweep_id}"], runs, f"sweep {sweep_id}")


def _joined(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Join lines that differ in the value of one override into one, with all of its values."""
    if len({len(line) for line in lines}) != 1:
        return lines
    places = [place for place, values in enumerate(zip(*lines, strict=True)) if len(set(values)) > 1]
    if len(places) != 1:
        return lines
    names, values = zip(*(line[places[0]].split("=", 1) for line in lines), strict=True)
    if len(set(names)) > 1 or any(not re.fullmatch(r"[\w.+-]+", value) for value in values):
        return lines
    joined = list(lines[0])
    joined[places[0]] = f"{names[0]}={','.join(values)}"
    return [tuple(joined)]


def _repeat(commands: Sequence[str], runs: Sequence[RunData], what: str) -> Repeat:
    commits = {str(run.environment.get("git_commit")) for run in runs}
    is_dirty = any(run.environment.get("git_dirty") for run in runs)
    commit = next(iter(commits)) if len(commits) == 1 else ""
    lines, note = list(commands), what
    if _COMMIT.fullmatch(commit):  # a record may be untrusted, and this is copied into a shell
        note += f", commit {commit[:10]}"
        if is_dirty:
            lines.insert(0, f"git checkout {commit[:10]}  # the runs had uncommitted changes")
        else:
            lines.insert(0, f"git checkout {commit[:10]}")
    citation = f"""\
@software{{alexlab,
  title = {{alexlab: {{AlexNet}} as a controlled study}},
  author = {{{{The alexlab maintainers}}}},
  year = {{2026}},
  note = {{{re.sub(r"[^A-Za-z0-9 ,.:-]", "-", note)}}},
}}
{PAPER}"""
    return Repeat("\n".join(" ".join(line.split()) for line in lines), citation)
