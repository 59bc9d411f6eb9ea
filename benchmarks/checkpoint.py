"""Cost of being able to resume: training with and without checkpoints, and one checkpoint at the paper's scale.

Contenders take turns within one process, one training each a round; the first round does not count. The time for a
checkpoint of the paper's net is shown as a share of `checkpoint.every_minutes`, the time between two.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from turns import arguments, machine, take_turns, tell, versions

import lightning as L
import torch
from step import full_scale

from alexlab.config import Config, load
from alexlab.data import build_datamodule
from alexlab.training import ClassificationTask
from alexlab.training.checkpoint import Recorder, States
from alexlab.training.fit import build_trainer, quiet

NOTHING, UNCHECKED, DEFAULTS, EVERY_STEP = (
    *("nothing saved", "nothing saved, no check", "defaults", "a checkpoint every step"),
)


def seconds(name: str, config: Config) -> float:
    """How long Lightning trains."""
    task, data = ClassificationTask(config), build_datamodule(config)
    if name == UNCHECKED:
        task.on_before_optimizer_step = lambda optimizer: None
    config.checkpoint.every_steps = 1 if name == EVERY_STEP else None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        recorder = Recorder(place, States(place / "checkpoints"), config) if name in (DEFAULTS, EVERY_STEP) else None
        trainer = build_trainer(config, "", recorder)
        data.prepare_data()
        started = time.perf_counter()
        trainer.fit(task, datamodule=data)
        return time.perf_counter() - started


def state_of_the_papers_net(folder: Path) -> tuple[float, int]:
    """Seconds and bytes of one checkpoint that includes the best weights; the median of five."""
    config = full_scale()
    network = ClassificationTask(config)
    weights = {name: value.detach() for name, value in network.state_dict().items()}
    velocities = {number: {"velocity": torch.zeros_like(p)} for number, p in enumerate(network.parameters())}
    content = {
        "state_dict": weights,
        "optimizer_states": [{"state": velocities, "param_groups": []}],
        "callbacks": {"Recorder": {"best": {"state_dict": {name: w.clone() for name, w in weights.items()}}}},
    }
    states, times = States(folder), []
    for number in range(6):
        started = time.perf_counter()
        states.save_checkpoint(content, folder / f"{number:08d}")
        times.append(time.perf_counter() - started)
    newest = states.newest()
    assert newest is not None
    return statistics.median(times[1:]), newest.stat().st_size


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--folder", type=Path, help="for the checkpoints of the paper's net; default: the system's")
    args = parser.parse_args()
    quiet()
    L.seed_everything(0, verbose=False)
    config = load(["trainer.max_epochs=2", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"])
    names = (NOTHING, UNCHECKED, DEFAULTS, EVERY_STEP)
    print(f"{machine()}\n{versions()}")
    times = take_turns({name: lambda name=name: seconds(name, config) for name in names}, args.rounds, args.busy)
    tell("demo, 2 epochs", times, NOTHING, args.json)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        took, size = state_of_the_papers_net(Path(folder))
    minutes = config.checkpoint.every_minutes
    assert minutes is not None
    print(f"\nOne checkpoint of the paper's net: {took:.2f} s, {size / 1e6:.0f} MB; every {minutes:g} minutes ", end="")
    print(f"that is {100 * took / (60 * minutes):.2f} % of the time")


if __name__ == "__main__":
    main()
