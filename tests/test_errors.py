"""The text of an error that is not ours, as a message has it."""

from __future__ import annotations

import pytest

from alexlab.errors import one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("needs\n  a\tnumber "), "needs a number"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        (EOFError(), "EOFError"),  # as numpy raises it, else the message would end with "()"
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_one_line(error: Exception, text: str):
    assert one_line(error) == text
