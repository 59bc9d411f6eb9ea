"""Time one training step against the same net written plainly in PyTorch, and against the machine's limits.

Also: the memory that LRN keeps for the backward pass, in units of its layers' outputs. On a GPU: every precision,
compiled or not, images per second, and the hours that the paper's 90 cycles would take at that rate (the paper's took
five to six days).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from turns import (
    AS_SHIPPED,
    Apart,
    arguments,
    bandwidth,
    device,
    environment,
    machine,
    matrix_rate,
    settled,
    take_turns,
    tell,
    versions,
)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexlab.architecture import layers
from alexlab.config import Config, load
from alexlab.models import Dropout, LocalResponseNorm, build_model, compiled
from alexlab.runs.worker import keep_memory
from alexlab.training.module import parameter_groups
from alexlab.training.optim import PaperSGD

FULL_SCALE = [
    "model.width=1",
    "model.hidden_width=1",
    "data.map_size=55",
    "data.size=256",
    "data.pixel_scale=1",
    "model.lrn_scale=1",
    "model.init=normal",
    "model.init_last_std=null",
    "model.dropout=0.5",
]
EPOCHS, IMAGES = 90, 1_281_167  # of the paper's training
PLAIN, PLAIN_WITHOUT, OURS, OURS_WITHOUT = "plain, NCHW", "plain, no LRN", "ours", "ours, no LRN"
LIKE_OURS = "threads wait as in ours"
OVERRIDES = {
    "no LRN": "model.lrn=false",
    "four passes of the update": "trainer.fused_optimizer=false",
    "NCHW": "trainer.channels_last=false",
    "LRN not fused": "trainer.fused_lrn=false",
}


def full_scale(*overrides: str) -> Config:
    config = load([*FULL_SCALE, *overrides])
    config.data.num_classes = 1000  # more than the embedded data set has, so that `load` would refuse it
    return config


SCALES: dict[str, tuple[Callable[..., Config], int]] = {
    "paper": (full_scale, 16),
    "cifar": (lambda *overrides: load(["recipe=cifar10", "data=shapes", *overrides]), 128),
    "demo": (lambda *overrides: load([*overrides]), 32),
}


def products(config: Config) -> float:
    """Multiply-adds of a training step per image."""
    specs = layers(config)
    return 3 * sum(spec.multiply_adds for spec in specs) - specs[0].multiply_adds  # no gradient of the pixels


def plain(like: nn.Sequential, has_lrn: bool) -> nn.Sequential:
    """The same layers from torch, with the same weights."""
    made: list[nn.Module] = []
    for module in like:
        if isinstance(module, nn.Conv2d):
            sizes = (module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding)
            made.append(nn.Conv2d(*sizes, groups=module.groups))  # pyright: ignore[reportArgumentType]
        elif isinstance(module, nn.Linear):
            made.append(nn.Linear(module.in_features, module.out_features))
        elif isinstance(module, LocalResponseNorm):
            theirs = nn.LocalResponseNorm(module.size, module.alpha * module.size, module.beta, module.k)
            made.append(theirs if has_lrn else nn.Identity())
        elif isinstance(module, Dropout):
            made.append(nn.Dropout(module.rate))
        else:
            made.append(module)
    network = nn.Sequential(*made)
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), like.parameters(), strict=True):
            mine.copy_(theirs)
    return network


class Contender:
    """A network with its optimizer and precision; `name` is one of `names()`."""

    def __init__(self, scale: str, batch: int, name: str) -> None:
        how = name.split(", ")
        self.is_ours, self.tf32 = how[0] == "ours", "tf32" in how
        self.autocast, self.compiled, self.steps = torch.bfloat16 if "bf16" in how else None, None, 0
        if self.is_ours:
            keep_memory()  # as src/train.py does
        make, place = SCALES[scale][0], device()
        config = make(*(line for word, line in OVERRIDES.items() if word in how and self.is_ours))
        layout = torch.contiguous_format if "NCHW" in how else torch.channels_last
        network, optim = build_model(config), config.optim
        side, classes = config.data.crop_size, config.data.num_classes
        assert side is not None
        assert classes is not None
        if self.is_ours:
            self.network: Any = network.to(place)
            groups, fused = parameter_groups(network, config), config.trainer.fused_optimizer
            self.optimizer: Any = PaperSGD(groups, optim.lr, optim.momentum, optim.weight_decay, fused)
        else:
            self.network = plain(network, "no LRN" not in how).to(place, memory_format=layout)  # pyright: ignore[reportCallIssue]
            parameters = self.network.parameters()
            self.optimizer = torch.optim.SGD(parameters, optim.lr, optim.momentum, weight_decay=optim.weight_decay)
        if "compiled" in how or "graphs" in how:
            mode = "reduce-overhead" if "graphs" in how else None
            self.compiled = compiled(self.network, mode)
        generator = torch.Generator().manual_seed(0)
        images = (torch.rand(batch, side, side, 3, generator=generator) * 255 - 127.5) * config.data.pixel_scale
        self.inputs = images.to(place).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        self.labels = torch.randint(classes, (batch,), generator=generator).to(place)

    def step(self) -> None:
        """Take a step as `alexlab.training.module` does."""
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        if self.is_ours:
            self.network.reseed_dropout(0, "dropout", self.steps)
        self.steps += 1
        with torch.autocast(self.inputs.device.type, self.autocast) if self.autocast else nullcontext():
            loss = F.cross_entropy((self.compiled or self.network)(self.inputs), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        settled()

    @torch.no_grad()
    def logits(self) -> list[float]:
        """The logits of the first image, in evaluation mode."""
        given = self.network.eval()(self.inputs)[0].tolist()
        self.network.train()
        return given

    def kept_bytes(self) -> int:
        """Bytes of the tensors that a forward pass keeps for the backward pass; each storage is counted once."""
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # keeps the storage, so that no other gets its address

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = self.network(self.inputs)
        del logits
        return sum(storages.values())


def names() -> list[str]:
    found = [
        PLAIN,
        f"{PLAIN}, {LIKE_OURS}",
        "plain",
        PLAIN_WITHOUT,
        OURS,
        OURS_WITHOUT,
        "ours, four passes of the update",
        "ours, NCHW",
    ]
    if torch.cuda.is_available():
        found.append("ours, LRN not fused")
        for how in ("tf32", "bf16"):
            found += [f"{PLAIN}, {how}", f"ours, {how}", f"ours, {how}, compiled", f"ours, {how}, graphs"]
    return [*found, "ours, compiled"]


def apart(scale: str, batch: int, name: str) -> Apart:
    """A contender in a process of its own; a plain net's threads wait as torch ships them, unless named otherwise."""
    with environment(AS_SHIPPED) if name.startswith("plain") and LIKE_OURS not in name else nullcontext():
        return Apart(Contender, scale, batch, name)


def main() -> None:
    parser = arguments(__doc__, 9)
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--batch", type=int, help="images per step (default: 16; demo: 32)")
    parser.add_argument("--quick", action="store_true", help="only ours and the plain net")
    args = parser.parse_args()
    make, batch = SCALES[args.scale]
    batch = args.batch or batch
    print(f"{machine()}\n{versions()}")
    found = {name: apart(args.scale, batch, name) for name in ([PLAIN, OURS] if args.quick else names())}
    logits = {name: contender.ask("logits") for name, contender in found.items()}
    for name, given in logits.items():
        if "no LRN" not in name:  # in evaluation our dropout multiplies, and torch's does not
            likeness = torch.corrcoef(torch.tensor([given, logits[OURS]]))[0, 1]
            assert likeness > 0.98, f"{name}: another net"
        found[name]()  # compiles
    times = take_turns(dict(found), args.rounds, args.busy)

    specs = layers(make())
    work = 2 * batch * products(make())
    rate, rate_bf16, memory = matrix_rate(), matrix_rate(torch.bfloat16), bandwidth()
    columns: dict[str, dict[str, str]] = {"images/s": {}, "of the matrix rate": {}, "hours of 90 cycles": {}}
    for name, seconds in times.quiet.items():
        pace = batch / statistics.median(seconds)
        columns["images/s"][name] = f"{pace:,.0f}"
        columns["of the matrix rate"][name] = f"{100 * work / statistics.median(seconds) / rate:.0f} %"
        columns["hours of 90 cycles"][name] = f"{EPOCHS * IMAGES / pace / 3600:,.1f}"
    if args.scale != "paper":
        del columns["hours of 90 cycles"]
    activation = sum(4 * batch * spec.outputs * spec.side**2 for spec in specs if "lrn" in spec.follows)
    if activation and not args.quick:
        kept = {name: found[name].ask("kept_bytes") for name in (PLAIN, "plain", PLAIN_WITHOUT, OURS, OURS_WITHOUT)}
        columns["kept for LRN"] = {
            name: f"{(kept[name] - kept[without]) / activation:.2f}"
            for name, without in ((PLAIN, PLAIN_WITHOUT), ("plain", PLAIN_WITHOUT), (OURS, OURS_WITHOUT))
        }
    tell(f"a step, {args.scale}, batch {batch}", times, PLAIN, args.json, columns)
    print(f"\nmatrix rate {rate / 1e9:,.0f} GFLOP/s (float32; bf16 {rate_bf16 / 1e9:,.0f})", end="")
    print(f", bandwidth {memory / 1e9:.0f} GB/s; a step's products are {work / 1e9:.2f} GFLOP")


if __name__ == "__main__":
    main()
