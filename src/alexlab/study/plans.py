"""Read the plan of a study, `runs/studies/<study id>.json`, which may be untrusted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alexlab.config import ConfigError, Rate
from alexlab.errors import one_line
from alexlab.study.claims import CLAIM_TYPES, check_plan_claim, text_of_at_most
from alexlab.tree import ANY, BOOL, INTEGER, NULL, NUMBER, TIME, Kind, Schema, check_types, read_json

PLAN_VERSION = 1


def matching(name: str, pattern: str) -> Kind:
    """The type of a text that matches a pattern as a whole."""
    return Kind(name, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


_MAX_BYTES = 2**24  # the plan of 2,000 runs has 100,000
_LONGEST_MESSAGE = 500
_MAX_CLAIMS, _MAX_ARMS, _MAX_LOOKS = 300, 500, 100
_NAME, _LINE = text_of_at_most(200), text_of_at_most(2000)
_RUN_ID = matching("the id of a run", "[0-9a-f]{12}")
_STUDY_ID = matching("the id of a study", r"\w[\w.-]{0,199}")
_RATE = matching(f"one of {', '.join(Rate.__members__)}", "|".join(Rate.__members__))
_LR = Kind("a number above 0", lambda value: NUMBER.holds(value) and value > 0)
_VALUE = Kind("a number of at least 0", lambda value: NUMBER.holds(value) and value >= 0)
_TRIAL = {"lr": _LR, "seed": INTEGER, "race_epochs": [NUMBER], "run": _RUN_ID, "value": _VALUE | NULL}
_CHOICE = {"overrides": [_LINE], "name": _LINE, "metric": _NAME, "lr": NUMBER | NULL, "warning": _LINE | NULL}
_ARM = {"overrides": [_LINE], "name": _LINE, "lr": NUMBER, "runs": {ANY: _RUN_ID}}
_NEEDED: dict[str, Schema] = {
    **{"id": _STUDY_ID, "digest": _NAME, "line": [_LINE], "name": _NAME, "rate": _RATE, "unmet": {ANY: [_LINE]}},
    **dict.fromkeys(("recipe", "protocol", "model", "data"), _NAME),
    **{"claims": [CLAIM_TYPES], "claims_digest": _NAME, "arms": [_ARM]},
}
_OPTIONAL: dict[str, Schema] = {
    **{"config_dir": _LINE | NULL, "departures": [_NAME], "rates": [{**_CHOICE, "trials": [_TRIAL]}]},
    **{"planned": TIME, "git_commit": _NAME | NULL, "git_dirty": BOOL | NULL, "finished_before": [_RUN_ID]},
}


def read_looks(path: Path) -> list[dict[str, Any]]:
    """Read all plans that a study has registered, oldest first.

    Raises:
        ConfigError: if the file is corrupt, of another version, or not the plan of the study that it is named after.
    """
    try:
        content = read_json(path, {"version": INTEGER}, _MAX_BYTES)
        version, looks = content.get("version"), content.get("looks")
        if version == PLAN_VERSION:
            if not isinstance(looks, list) or not 0 < len(looks) <= _MAX_LOOKS:
                raise ValueError(f"needs 1 to {_MAX_LOOKS} looks")
            for look in looks:
                _check(look, path.stem)
            return looks
    except (ValueError, OSError) as error:
        why = one_line(error)[:_LONGEST_MESSAGE]
        raise ConfigError(f"{path}: is corrupt ({why}); restore it from a copy") from error
    raise ConfigError(f"{path}: is version {version}, this code reads version {PLAN_VERSION}")


def _check(look: Any, study_id: str) -> None:
    """Raise ValueError unless a look is complete and each of its values is of its type."""
    check_types(look, {**_NEEDED, **_OPTIONAL})
    check_names(look, _NEEDED, "it")
    if look["id"] != study_id:
        raise ValueError(f"it is the plan of {look['id']}; rename it to {look['id']}.json")
    for name, most in (("claims", _MAX_CLAIMS), ("arms", _MAX_ARMS)):
        if len(look[name]) > most:
            raise ValueError(f"has {len(look[name]):,} {name}, and a study at most {most}")
    for arm in look["arms"]:
        check_names(arm, _ARM, "an arm")
        if not all(re.fullmatch(r"\d{1,19}", seed) for seed in arm["runs"]):
            raise ValueError(f"arm {arm['name']} has a seed that is not a whole number")
    for rate in look.get("rates", ()):
        check_names(rate, {**_CHOICE, "trials": []}, "a rate")
        for trial in rate["trials"]:
            check_names(trial, _TRIAL, "a trial")
    for claim in look["claims"]:
        check_names(claim, dict.fromkeys(("id", "source", "section", "statement")), "a claim")
        check_plan_claim(claim)


def check_names(value: dict[str, Any], names: Iterable[str], what: str) -> None:
    """Raise ValueError unless a mapping has all of these names."""
    for name in names:
        if name not in value:
            raise ValueError(f"{what} has no {name}")
