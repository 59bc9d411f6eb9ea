"""`--paper`: every choice of the paper as a key, with its value under each protocol, as a Markdown table."""

from __future__ import annotations

import re

from alexlab.cli.help import comment_of
from alexlab.compose import from_file
from alexlab.config import CONF_DIR, Config, flat, shown, walk

PROTOCOLS = ("paper", "source2012", "caffe")
_SECTIONS = re.compile(r" ?\((\d[\d., ]*)(?:[:,] [^)]*)?\)")

HEADER = """\
# The paper's choices as keys

The table has each choice in the paper, the section that states it, the key that sets it, and the key's value under each
protocol: `paper` is the text, `source2012` the authors' released code, `caffe` the public replica. An empty cell means
the same value as under `paper`. The paper does not state a value in brackets, or only partly; the row says why it was
chosen. Choices that only the released code or the replica makes are at the end. `trainer=towers2` splits the net over
two devices as in section 3.2; one device computes the same.

This page is generated from the schema by `alexlab train --paper > docs/paper.md`.

| choice | section | key | paper | source2012 | caffe |
|---|---|---|---|---|---|"""

FILES = """
## Nets and ablations

Each is a file of `conf/` that changes some of the keys above.

| option | what it is |
|---|---|"""


def markdown() -> str:
    """The page, with a final newline."""
    values = [flat(from_file(CONF_DIR / "protocol" / f"{name}.yaml")) for name in PROTOCOLS]
    rows: list[tuple[str, str]] = []
    for name, _, entry in walk(Config()):
        meaning = entry.metadata["meaning"]
        sections, unstated = _SECTIONS.findall(meaning), entry.metadata["unstated"].replace("|", "\\|")
        differ = any(value[name] != values[0][name] for value in values)
        if sections or differ:
            section = ", ".join(sorted({part.strip() for found in sections for part in found.split(",")}))
            choice = _SECTIONS.sub("", meaning).rstrip(".").replace("|", "\\|")
            text, *others = (value[name] for value in values)
            if unstated:
                choice = f"{choice}. Unstated in the paper: {unstated}"
            paper = f"({shown(text)})" if unstated else shown(text)
            cells = [choice, section, f"`{name}`", paper, *(shown(v) if v != text else "" for v in others)]
            rows.append((section or "none", f"| {' | '.join(cells)} |"))
    rows.sort(key=lambda row: row[0])  # a stable sort: within a section the schema's order
    lines = [HEADER, *(line for _, line in rows), FILES]
    for group in ("model", "ablation"):
        for path in sorted((CONF_DIR / group).glob("*.yaml")):
            comment = comment_of(path).replace("|", "\\|")
            lines.append(f"| `{group}={path.stem}` | {comment} |")
    return "\n".join(lines) + "\n"
