"""A notice on a terminal: there until something else is printed, and nowhere else."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from alexlab import output
from alexlab.files import is_first_time
from alexlab.output import show_notice, survive_closed, take_over_notice


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def replace_streams(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, Terminal]:
    """Standard output as a file, standard error as a terminal; in the test itself, since pytest replaces them, too."""
    found = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", found[0])
    monkeypatch.setattr(sys, "stderr", found[1])
    monkeypatch.setattr(output, "_notice_is_shown", False)
    monkeypatch.setenv("TERM", "xterm")
    survive_closed()
    return found


def test_the_first_output_replaces_it(monkeypatch: pytest.MonkeyPatch):
    streams = replace_streams(monkeypatch)
    show_notice("starting ...")
    assert streams[1].getvalue() == "starting ..."
    print("a line")
    print("another")
    assert streams[0].getvalue() == "a line\nanother\n"
    assert streams[1].getvalue() == "starting ...\r\x1b[K"


def test_another_process_replaces_it(monkeypatch: pytest.MonkeyPatch):
    streams = replace_streams(monkeypatch)
    take_over_notice()
    print("a line", file=sys.stderr)
    assert streams[1].getvalue() == "\r\x1b[Ka line\n"


def test_a_file_or_a_simple_terminal_gets_none(monkeypatch: pytest.MonkeyPatch):
    streams = replace_streams(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    show_notice("starting ...")
    assert streams[1].getvalue() == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    survive_closed()
    show_notice("starting ...")
    print("a line")
    assert "\x1b" not in streams[0].getvalue()


def test_a_message_is_new_once(tmp_path: Path):
    assert is_first_time(tmp_path, "one")
    assert not is_first_time(tmp_path, "one")
    assert is_first_time(tmp_path, "two")
    assert is_first_time(None, "one")
    assert is_first_time(tmp_path / "gone", "one")
