"""Cost against work: where cost stops being proportional to images, width, arms and devices.

"Per work" is the cost over the first row's, divided by the work over the first row's: 1 if cost is proportional.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from turns import Ratio, arguments, machine, record, take_turns, versions

from step import SCALES, products

from alexlab.config import load
from alexlab.runs.worker import keep_memory
from alexlab.training.estimate import seconds_per_image
from alexlab.training.fit import fit
from sweep import sweep

BRIEF = ["trainer.max_epochs=2", "data.val_images=100", "data.test_images=100", "evaluate.train_images=100"]
BRIEF += ["trainer.enable_progress_bar=false"]


def images(count: int) -> Callable[[], float]:
    config = load([*BRIEF, f"data.train_images={count}"])

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return fit(config, Path(folder), "run").seconds["fit"]

    return run


def show(
    title: str, calls: dict[str, Callable[[], float]], work: dict[str, float], rounds: int, args: argparse.Namespace
) -> None:
    times = take_turns(dict(calls), rounds, args.busy)
    show_part(title, times.quiet, work, args.json)
    if args.busy:
        show_part(f"{title}, busy", times.busy, work, args.json)


def show_part(title: str, seconds: dict[str, list[float]], work: dict[str, float], to: Path | None) -> None:
    first = next(iter(seconds))
    print(f"\n| {title} | s | work | cost | per work | half of rounds |\n|---|--:|--:|--:|--:|---|")
    for name, times in seconds.items():
        cost, share = Ratio.of(times, seconds[first]), work[name] / work[first]
        low, high = cost.low / share, cost.high / share
        row = f"| {name} | {statistics.median(times):.3g} | {share:.3g} | {cost.median:.2f} | {cost.median / share:.2f}"
        print(f"{row} | {low:.2f} to {high:.2f} |", flush=True)
        if name != first:
            record(to, {f"{title}: {name}, per work": Ratio(cost.median / share, low, high)})


def main() -> None:
    parser = arguments(__doc__, 3)
    args = parser.parse_args()
    keep_memory()
    print(f"{machine()}\n{versions()}")
    counts = (320, 1280, 2560)
    work = {f"{count:,}": float(count) for count in counts}
    show("training images", {f"{count:,}": images(count) for count in counts}, work, args.rounds, args)

    widths = (0.125, 0.25, 0.5, 1.0)
    nets = {f"width {width:g}": SCALES["paper"][0](f"model.width={width}") for width in widths}
    calls = {
        name: lambda config=config: statistics.median(seconds_per_image(config)[0]) for name, config in nets.items()
    }
    show("an image of a step", calls, {name: products(net) for name, net in nets.items()}, args.rounds, args)

    brief = [*BRIEF, "data.train_images=320"]
    runs = {"4 runs": ["seed=0"], "8 runs": ["seed=0,1"], "16 runs": ["seed=0,1,2,3"]}
    calls = {name: lambda more=more: sweep(1, [*brief, *more]) for name, more in runs.items()}
    show("a sweep", calls, {name: float(name.split()[0]) for name in calls}, 2, args)


if __name__ == "__main__":
    main()
