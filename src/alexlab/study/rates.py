"""Remarks on how a study chose each arm's learning rate."""

from __future__ import annotations

from typing import Any

RACE, LENGTH = "trainer.race_epochs=", "trainer.max_epochs="
OF_TRIALS = ("optim.lr=", RACE, LENGTH)  # what a trial of a learning rate sets beside its arm's overrides


def rate_remarks(plan: dict[str, Any]) -> list[str]:
    """Lines for a report: each arm's rate, and the ratios at rates that two arms share.

    The ratios are of single trials, so they are not verdicts.
    """
    rates = plan.get("rates", ())
    lines = []
    for one in rates:
        chosen = f"learning rate {one['lr']:g}" if one["lr"] else one["warning"] or "learning rate not chosen yet"
        lines.append(f"{one['name']}: {chosen}, by {len(one['trials'])} trials ({one['metric']})")
    if rates and rates[0]["metric"] == "epochs_to_25":
        base = first_seed_values(rates[0])
        for one in rates[1:]:
            values = first_seed_values(one)
            ratios = [f"{lr:g}: {values[lr] / base[lr]:.2f}" for lr in sorted(base.keys() & values.keys())]
            if ratios:
                lines.append(
                    f"{one['name']} / {rates[0]['name']}, epochs to 25 % at common rates, single trials, no verdict: "
                    f"{', '.join(ratios)}"
                )
    return lines


def first_seed_values(rate: dict[str, Any]) -> dict[float, float]:
    """{rate: value} of an arm's trials on the first seed, without those that have no value."""
    trials = rate["trials"]
    return {t["lr"]: t["value"] for t in trials if t["seed"] == trials[0]["seed"] and t["value"] is not None}
