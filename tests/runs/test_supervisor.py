"""What the supervisor makes of the answers of its own short processes: the check before runs, and the forecast."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from alexlab.config import ConfigError
from alexlab.errors import UserError
from alexlab.runs import supervisor
from alexlab.runs.supervisor import check, forecast
from support.settings import composed


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the next process end with an exit code, after its answer if it gives one."""

    def ends(code: int, answer: Any = None) -> None:
        def in_children(function: Callable[..., None], calls: list[tuple[Any, ...]]) -> list[int]:
            [(*_, path)] = calls
            if answer is not None:
                path.write_text(json.dumps(answer))
            return [code]

        monkeypatch.setattr(supervisor, "in_children", in_children)

    return ends


def test_a_check_that_was_killed_stops_no_run(child: Callable[..., None]):
    child(-signal.SIGKILL)
    assert check([composed()], is_here=True) is None


def test_a_check_that_finds_something_names_it(child: Callable[..., None]):
    child(0, "trainer.accelerator=gpu: no GPU is here")
    with pytest.raises(ConfigError, match=r"^trainer\.accelerator=gpu: no GPU is here$"):
        check([composed()], is_here=True)


@pytest.mark.parametrize(
    ("code", "answer", "message"),
    [
        (-signal.SIGKILL, None, "the hours cannot be forecast: timing some steps failed (SIGKILL)"),
        (1, None, "the hours cannot be forecast: timing some steps failed (exit status 1)"),
        (0, "no GPU is here", "the hours cannot be forecast: no step can be timed: no GPU is here"),
    ],
)
def test_a_forecast_that_times_no_step_says_why(
    child: Callable[..., None], code: int, answer: str | None, message: str
):
    child(code, answer)
    with pytest.raises(UserError) as caught:
        forecast([composed()])
    assert str(caught.value) == message
