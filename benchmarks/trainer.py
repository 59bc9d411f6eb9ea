"""Cost of Lightning's Trainer with our callbacks over a bare loop with the same batches and the same steps.

Both train two epochs without validation, from the store to the last update; ours with its live progress bar, metrics,
check for non-finite values, row per epoch and checkpoints.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from turns import Apart, arguments, machine, settled, take_turns, tell, versions

import torch
from step import SCALES
from torch.nn import functional as F

from alexlab.config import Config
from alexlab.data import build_datamodule
from alexlab.models import build_model
from alexlab.runs.worker import keep_memory
from alexlab.training import ClassificationTask
from alexlab.training.checkpoint import Recorder, States
from alexlab.training.fit import build_trainer, quiet
from alexlab.training.module import parameter_groups
from alexlab.training.optim import PaperSGD

EPOCHS = 2
FEW = ["data.train_images=192", "data.val_images=32", "data.test_images=32", "data.batch_size=16"]


def config_of(scale: str) -> Config:
    config = SCALES[scale][0](*(FEW if scale == "paper" else []), "trainer.limit_val_batches=0")
    config.trainer.max_epochs, config.data.num_classes = EPOCHS, 10  # as in the embedded data set
    return config


class Bare:
    """A loop as in a tutorial."""

    def __init__(self, scale: str) -> None:
        keep_memory()
        self.config = config_of(scale)
        self.data = build_datamodule(self.config)
        self.data.prepare_data()
        self.data.setup()

    def step(self) -> float:
        optim, device = self.config.optim, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, loader = build_model(self.config).to(device), self.data.train_dataloader()
        update = PaperSGD(parameter_groups(network, self.config), optim.lr, optim.momentum, optim.weight_decay)
        started, done = time.perf_counter(), 0
        for epoch in range(EPOCHS):
            loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
            for batch in loader:
                on_device = self.data.transfer_batch_to_device(batch, device, 0)
                inputs, labels = self.data.on_after_batch_transfer(on_device, 0)
                network.reseed_dropout(0, "dropout", done)
                update.zero_grad()
                F.cross_entropy(network(inputs), labels).backward()
                update.step()
                done += 1
        settled()
        return time.perf_counter() - started


class Ours(Bare):
    def __init__(self, scale: str) -> None:
        super().__init__(scale)
        quiet()
        sys.stderr = open("/dev/null", "w")  # noqa: PTH123, SIM115
        sys.stderr.isatty = lambda: True  # so that the bar is live

    def step(self) -> float:
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(Path(folder), States(Path(folder) / "checkpoints"), self.config)
            task, trainer = ClassificationTask(self.config), build_trainer(self.config, "run 1 of 1", recorder)
            ended: list[float] = []
            # The last checkpoint is a cost of a run, not of a step: benchmarks/checkpoint.py.
            recorder.on_train_end = lambda *given: ended.append(time.perf_counter())
            started = time.perf_counter()
            trainer.fit(task, datamodule=self.data)
            return ended[0] - started


def main() -> None:
    parser = arguments(__doc__, 7)
    parser.add_argument("--scale", choices=SCALES, nargs="+", default=["demo", "paper"])
    args = parser.parse_args()
    print(f"{machine()}\n{versions()}")
    for scale in args.scale:
        contenders = {"a bare loop": Apart(Bare, scale), "ours": Apart(Ours, scale)}
        times = take_turns(contenders, args.rounds, args.busy)
        tell(f"{EPOCHS} epochs, {scale}", times, "a bare loop", args.json)
        for contender in contenders.values():
            contender.end()


if __name__ == "__main__":
    main()
