"""`--json`: one JSON document on standard output, and everything else that a command prints on standard error.

The schemas of the documents are in `src/alexlab/schemas`; `docs/reference/json.md` describes them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from alexlab.console import printable
from alexlab.output import write_answer

FLAG = "--json"


class Answer:
    """What a command answers with --json; not printed if the command ends with an error."""

    def __init__(self, is_wanted: bool) -> None:
        self.is_wanted = is_wanted
        self.text = ""

    def give(self, schema: str, content: Mapping[str, Any]) -> None:
        """Set the document. `schema`: name and version, such as `runs-list/1`."""
        document = {"schema": f"alexlab.{schema}", **content}
        # ASCII is UTF-8 whatever the encoding of the terminal or pipe, and no control character reaches a terminal.
        self.text = json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


@contextmanager
def json_answer(argv: Sequence[str]) -> Iterator[Answer]:
    """Context of a command; with --json in its line, all that it prints goes to stderr, and its answer to stdout."""
    answer = Answer(FLAG in argv and not {"--help", "-h"} & {*argv})
    with redirect_stdout(sys.stderr) if answer.is_wanted else nullcontext():
        yield answer
    if not answer.text:
        return
    try:
        write_answer(answer.text)
    except OSError as error:
        print(f"error: {FLAG}: standard output: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def plain(value: Any) -> Any:
    """A value for JSON: non-finite numbers become null, types that JSON lacks text; control characters are removed.

    A record may be untrusted: YAML has dates and keys that are not text.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {printable(str(name)): plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return printable(str(value))
