"""Cost of ten views over one: time per image, and memory of an evaluation."""

from __future__ import annotations

import resource

from turns import Apart, arguments, device, machine, take_turns, tell, versions

import torch
from step import SCALES

from alexlab.data import build_datamodule
from alexlab.models import build_model
from alexlab.runs.worker import keep_memory
from alexlab.training.evaluate import VIEW_KINDS, EnsembleMember, evaluate

IMAGES = {"demo": 256, "paper": 64}


class Evaluation:
    def __init__(self, scale: str, kinds: tuple[str, ...]) -> None:
        keep_memory()
        few = [f"data.{split}_images={IMAGES[scale]}" for split in ("train", "val", "test")]
        config = SCALES[scale][0](*few, "data.eval_batch_size=32", "data.batch_size=16")
        config.data.num_classes = 10  # as in the embedded data set
        self.data, self.kinds = build_datamodule(config), kinds
        self.data.prepare_data()
        self.data.setup()
        self.network = build_model(config).to(device())
        self.before = self.peak()

    def step(self) -> None:
        evaluate([EnsembleMember(self.network, self.data.test_dataloader(), self.data)], device(), self.kinds)

    def peak(self) -> float:
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    def grown(self) -> float:
        return self.peak() - self.before


def main() -> None:
    parser = arguments(__doc__, 7)
    parser.add_argument("--scale", choices=IMAGES, nargs="+", default=list(IMAGES))
    args = parser.parse_args()
    print(f"{machine()}\n{versions()}")
    names = {"centre": ("center",), "ten": ("ten",), "ten, and the centre": VIEW_KINDS}
    for scale in args.scale:
        contenders = {name: Apart(Evaluation, scale, kinds) for name, kinds in names.items()}
        times = take_turns(contenders, args.rounds, args.busy)
        memory = {name: f"{contender.ask('grown'):.0f}" for name, contender in contenders.items()}
        tell(f"{IMAGES[scale]} images, {scale}", times, "centre", args.json, {"MB more": memory})


if __name__ == "__main__":
    main()
