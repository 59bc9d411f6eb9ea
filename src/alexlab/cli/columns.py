"""Tables that fit the terminal: no word is broken, and columns that matter least are left out first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from alexlab.console import Console, parts, wrap

_LEAST = 12  # characters of a column that holds several others
# With a rule between sections too: the fifth line of a box is the one between rows.
_RULED = box.Box("\n".join(" ── " if i in (2, 4) else "    " for i in range(8)) + "\n")


@dataclass
class Column:
    """A column as text. `rank`: 0 always stays; of the others the highest is left out first."""

    heading: str  # of one or two lines
    name: str = ""  # if the heading alone does not say it
    right: bool = False
    rank: int = 0
    wraps: bool = False  # whether its cells may be broken at spaces and after `.`, `=`, `_` and the like
    is_factor: bool = False  # may be shown in one column with others, as `heading=cell`
    cells: list[str] = field(default_factory=list)

    @property
    def natural(self) -> int:
        """The width of its longest line."""
        return max(len(line) for text in (self.heading, *self.cells) for line in text.split("\n"))

    @property
    def least(self) -> int:
        """The smallest width at which no word is broken."""
        return _longest_part([self.heading, *self.cells]) if self.wraps else self.natural


def _longest_part(texts: Iterable[str]) -> int:
    return max((len(part) for text in texts for word in text.split() for part in parts(word)), default=0)


def factor_columns(names: Sequence[str]) -> list[Column]:
    """A column for each factor, with its values alone."""
    return [Column(name, wraps=True, is_factor=True) for name in names]


def print_columns(
    title: str, columns: Sequence[Column], console: Console, rules: Sequence[int] = (), hint: str = ""
) -> None:
    """Print a table at the console's width; the arguments are those of `laid_out`."""
    console.print(laid_out(title, columns, console.width, rules, hint), crop=False)


def laid_out(title: str, columns: Sequence[Column], total: int, rules: Sequence[int] = (), hint: str = "") -> Group:
    """A table of at most `total` characters, its title, and below it which columns were left out.

    `rules`: the rows before which there is a rule. `hint`: where to find what is left out.
    """
    kept = list(columns)
    gaps = lambda: len(kept) - 1  # noqa: E731
    while sum(column.least for column in kept) + gaps() > total:
        if max(column.rank for column in kept) > 0:
            kept.remove(max(kept, key=lambda column: column.rank))
        elif sum(column.is_factor for column in kept) > 1:
            kept = _merged(kept)
        else:
            break
    widths = _widths(kept, total)
    table = Table(box=_RULED if rules else box.SIMPLE_HEAD, padding=0, show_edge=False)
    lines = [
        [("\n".join(wrap(cell, width)) if column.wraps else cell) for cell in column.cells]
        for column, width in zip(kept, widths, strict=True)
    ]
    rows = list(zip(*lines, strict=True))
    if any("\n" in cell for row in rows for cell in row) and not rules:
        table.leading = 1  # an empty line between rows of several lines
    headings = [_heading(column, width) for column, width in zip(kept, widths, strict=True)]
    height = max(heading.count("\n") for heading in headings)
    for column, width, heading in zip(kept, widths, headings, strict=True):
        padded = "\n" * (height - heading.count("\n")) + heading
        table.add_column(padded, justify="right" if column.right else "left", width=width, no_wrap=True)
    for number, row in enumerate(rows):
        if number in rules:
            table.add_section()
        table.add_row(*row)
    names = [
        column.name or " ".join(column.heading.split()) for column in columns if column not in kept and column.rank
    ]
    shown = [_note(title, total, "italic"), table]
    if names:
        left_out = f"Left out at {total} columns: {', '.join(names)}{f'; {hint}' if hint else ''}."
        shown.append(_note(left_out, total, "dim"))
    return Group(*shown)


def _note(text: str, width: int, style: str) -> Text:
    return Text("\n".join(wrap(text, width)), style, no_wrap=True, overflow="ignore")


def _heading(column: Column, width: int) -> str:
    return "\n".join(line for part in column.heading.split("\n") for line in wrap(part, width))


def _merged(columns: list[Column]) -> list[Column]:
    """The columns, with all factors merged into one, a line each."""
    factors = [column for column in columns if column.is_factor]
    cells = [
        "\n".join(f"{column.heading}={cell}" for column, cell in zip(factors, row, strict=True))
        for row in zip(*(column.cells for column in factors), strict=True)
    ]
    first = columns.index(factors[0])
    others = [column for column in columns if not column.is_factor]
    return [*others[:first], replace(factors[0], heading="what varied", cells=cells), *others[first:]]


def _widths(columns: list[Column], total: int) -> list[int]:
    """Natural widths, reduced to fit by narrowing the widest columns that may wrap."""
    widths = [column.natural for column in columns]
    room = total - (len(columns) - 1)
    least = [column.least for column in columns]
    while sum(widths) > room:
        shrinking = [place for place, column in enumerate(columns) if column.wraps and widths[place] > least[place]]
        if not shrinking:  # a name that is longer than the line is cut
            shrinking = [place for place, column in enumerate(columns) if column.wraps and widths[place] > _LEAST]
        if not shrinking:
            break
        widths[max(shrinking, key=widths.__getitem__)] -= 1
    return widths
