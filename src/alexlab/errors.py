"""Errors that a user can fix: one line and exit status 2, in every command."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can fix; the message is one line that says what is wrong, where, and the fix."""


def one_line(error: BaseException) -> str:
    """The message of an error with its white space collapsed; the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
