"""Text for people: without control characters and wrapped between words; and the commands' console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import rich.console
from rich.segment import Segment

# C0 and C1 except tabs and line feeds: escape sequences can set a terminal's title or clipboard, and are invalid in
# XML. Direction marks can make a text look like another one; a lone surrogate cannot be encoded.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Remove control characters except tabs and line feeds."""
    return _CONTROL.sub("", text)


def printable_line(text: object) -> str:
    """A text as one printable line, its white space collapsed."""
    return " ".join(printable(str(text)).split())


# Where a word without spaces, such as `pool.overlap=false` or a path, may be broken; a number is not.
_JOINT = re.compile(r"(?<=[/=_,:])|(?<=[.-])(?=[A-Za-z_])")


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` characters: at spaces, else after `.`, `/`, `=`, `_` and the like.

    Only a piece that is longer than a line is cut.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + 1 + len(word) <= width:
                line += f" {word}"
                continue
            if line:
                lines.append(line)
            line = ""
            for part in parts(word) if len(word) > width else [word]:
                if len(line) + len(part) > width and line:
                    lines.append(line)
                    line = ""
                while len(part) > width:
                    lines.append(part[:width])
                    part = part[width:]
                line += part
        lines.append(line)
    return lines


def parts(word: str) -> list[str]:
    """The pieces of a word between which it may be broken."""
    return [part for part in _JOINT.split(word) if part] or [word]


def duration(seconds: float) -> str:
    """A readable duration in its two largest units: `48 s`, `2 min 31 s`, `1 h 12 min`, `43 d 2 h`."""
    whole = round(seconds)
    for (size, unit), (small, small_unit) in pairwise(((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))):
        if whole >= size:
            large, rest = divmod(whole // small, size // small)
            return f"{large:,} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def plural(number: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ask(question: str) -> bool:
    """Ask on the terminal; True for y or yes. The end of input (Ctrl-D) is a no."""
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


class Console(rich.console.Console):
    """A console that shows text as it is: no control characters, no markup, no highlighting of numbers.

    Characters that the terminal's encoding lacks are shown as question marks.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, **options)

    def say(self, text: str, style: str = "") -> None:
        """Print a note, broken between words."""
        self.print("\n".join(wrap(text, self.width)), style=style, no_wrap=True, overflow="ignore", crop=False)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render to segments; rich's own control codes are separate ones and are kept."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._shown(segment.text), segment.style)

    def _shown(self, text: str) -> str:
        text = printable(text)
        return text if self.encoding.startswith("utf") else text.encode(self.encoding, "replace").decode(self.encoding)
