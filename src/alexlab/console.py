"""Text that may come from anyone, without control characters; and the console on which every command prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import rich.console
from rich.segment import Segment

# C0 and C1 but for tabs and line feeds: an escape sequence sets a terminal's title or the clipboard, and is no XML.
# Marks of direction make a text look like another one; a surrogate alone has no encoding.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Remove control characters but tabs and line feeds."""
    return _CONTROL.sub("", text)


def one_line(text: object) -> str:
    """A text as one printable line, its white space collapsed."""
    return " ".join(printable(str(text)).split())


class Console(rich.console.Console):
    """A console that shows text as it is: no control characters, no markup, no highlighting of numbers.

    Characters that the terminal's encoding lacks are shown as question marks.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render to segments, of which rich's own control codes are separate ones."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._shown(segment.text), segment.style)

    def _shown(self, text: str) -> str:
        text = printable(text)
        return text if self.encoding.startswith("utf") else text.encode(self.encoding, "replace").decode(self.encoding)
