"""What a user can fix: one line and exit status 2, whichever command it comes from."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can fix; the message is one line that says what is wrong, where, and the fix."""
