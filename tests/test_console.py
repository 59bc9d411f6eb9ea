"""What commands print: text from anyone stays text, in a terminal too."""

from __future__ import annotations

import ast
import io
import re

import pytest
from rich.table import Table
from rich.text import Text

from alexlab.command import exit_status
from alexlab.config import PROJECT_DIR, ConfigError
from alexlab.console import Console, duration, printable, wrap
from alexlab.progress import Progress

TITLE, CLIPBOARD, COLOUR = "\x1b]0;title\x07", "\x1b]52;c;aWQ=\x1b\\", "\x1b[31m"
HOSTILE = f"a{TITLE}{CLIPBOARD}{COLOUR}\x9b31m\r\x08\u202e b [red]c[/red] [/y]\n\td"
SHOWN = "a]0;title]52;c;aWQ=\\[31m31m b [red]c[/red] [/y]\n\td"


def test_control_characters_are_removed_but_tabs_and_line_feeds():
    assert printable(HOSTILE) == SHOWN
    assert printable("".join(map(chr, [*range(32), *range(127, 160)]))) == "\t\n"
    assert printable("naïve ± × – 漢字 \u00a0") == "naïve ± × – 漢字 \u00a0"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_control_character_of_a_text_reaches_the_terminal(is_terminal: bool):
    """Escape sequences set a terminal's title and the clipboard (OSC 52)."""
    console = Console(
        file=io.StringIO(), width=200, force_terminal=is_terminal, color_system="standard" if is_terminal else None
    )
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(HOSTILE, style="dim", soft_wrap=True)
    console.print(table)
    console.print(Text(HOSTILE))
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    own = re.compile(r"\x1b\[[0-9;]*m")  # styles: of the title, of the header and `dim`
    assert bool(own.search(printed)) == is_terminal
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", own.sub("", printed))
    assert printed.count("]52;c;aWQ=") == 5
    assert printed.count("[red]c[/red] [/y]") == 5  # and no markup is read


def test_a_terminal_without_a_sign_shows_a_question_mark():
    """With a locale of ISO-8859-1 or ASCII, the tables' ± ended a report."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80)
    table = Table("± 漢")
    console.print(table)
    console.print("1.5 ± 0.2", style="dim", soft_wrap=True)
    stream.seek(0)
    printed = stream.read()
    assert "? ?" in printed
    assert "1.5 ? 0.2" in printed


def test_an_error_message_is_one_printable_line(capsys: pytest.CaptureFixture[str]):
    def command() -> int:
        raise ConfigError(f"x: {HOSTILE}")

    assert exit_status(command) == 2
    err = capsys.readouterr().err
    assert err == f"error: x: {' '.join(SHOWN.split())}\n"


def test_a_path_in_an_error_message_is_as_it_was_typed(capsys: pytest.CaptureFixture[str]):
    def command() -> int:
        raise ConfigError("data.raw=/two  spaces: no such folder")

    assert exit_status(command) == 2
    assert capsys.readouterr().err == "error: data.raw=/two  spaces: no such folder\n"


def test_brackets_in_a_title_of_a_live_bar_are_no_markup(monkeypatch: pytest.MonkeyPatch):
    """`[/y]` in a path ended a command, and `[job]` was not shown."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with Progress("/data/[/y]/[job]\x1b]0;t\x07", 2, unit="images") as progress:
        progress.advance(2)
    assert "/data/[/y]/[job]]0;t" in stream.getvalue()
    assert "\x1b]" not in stream.getvalue()


def test_every_console_of_the_package_is_this_one():
    """A console of rich's own is made nowhere else, nor a column that reads markup."""
    for path in (PROJECT_DIR / "src" / "alexlab").rglob("*.py"):
        tree = ast.parse(path.read_text())
        ours = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "alexlab.console"
            for alias in node.names
        }
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, "id", None)
            if name == "Console":
                assert "Console" in ours, path
            if name == "TextColumn":
                assert [ast.literal_eval(one.value) for one in call.keywords if one.arg == "markup"] == [False], path


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((0, "0 s"), (48.4, "48 s"), (59.6, "1 min"), (151, "2 min 31 s"), (3599, "59 min 59 s"), (3600, "1 h")),
        *((4320, "1 h 12 min"), (86399, "23 h 59 min"), (90000, "1 d 1 h"), (3_722_500, "43 d 2 h")),
    ],
)
def test_durations_as_people_say_them(seconds: float, said: str):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (12, ["pool.", "overlap=", "false 0.0625", "/tmp/a/b_c.", "json"]),
        (20, ["pool.overlap=false", "0.0625", "/tmp/a/b_c.json"]),
        (40, ["pool.overlap=false 0.0625", "/tmp/a/b_c.json"]),
        (3, ["poo", "l.", "ove", "rla", "p=", "fal", "se", "0.0", "625", "/", "tmp", "/a/", "b_", "c.", "jso", "n"]),
    ],
)
def test_lines_break_between_words(width: int, lines: list[str]):
    assert wrap("pool.overlap=false 0.0625 /tmp/a/b_c.json", width) == lines
