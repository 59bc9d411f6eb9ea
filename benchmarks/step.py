"""Time one training step of the paper's AlexNet at full width against the same network written plainly in PyTorch.

All contenders run in one process and take turns, one step each a round; the first round does not count. The last
column says how many tensors of the size of LRN's output the forward pass keeps for the backward pass because of LRN.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexlab.architecture import layers
from alexlab.config import Config, load
from alexlab.models import AlexNet, LocalResponseNorm, build_model
from alexlab.training.sgd import PaperSGD

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
OURS = "ours"
REFERENCE = "plain, our LRN"
WITHOUT = "plain, no LRN"
PLAIN: dict[str, tuple[Callable[[], nn.Module], torch.memory_format]] = {
    REFERENCE: (LocalResponseNorm, torch.channels_last),
    "plain, our LRN, NCHW": (LocalResponseNorm, torch.contiguous_format),
    "plain, torch's LRN": (lambda: nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2), torch.channels_last),
    WITHOUT: (nn.Identity, torch.channels_last),
}


def full_scale(lrn: bool = True) -> Config:
    config = load([*FULL_SCALE, f"model.lrn={str(lrn).lower()}"])
    config.data.num_classes = 1000  # more than the embedded data set has, so that `load` would refuse it
    return config


def plain(lrn: Callable[[], nn.Module], layout: torch.memory_format) -> nn.Sequential:
    network = nn.Sequential(
        *[nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU(inplace=True), lrn(), nn.MaxPool2d(3, 2)],
        *[nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True), lrn(), nn.MaxPool2d(3, 2)],
        *[nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)],
        *[nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True)],
        *[nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2), nn.Flatten()],
        *[nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)],
        *[nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)],
        nn.Linear(4096, 1000),
    )
    return network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]


class Contender:
    """A network, its optimiser and a batch in its layout; starts from the weights of `like`."""

    def __init__(
        self, network: nn.Sequential, like: nn.Module, layout: torch.memory_format, config: Config, batch: int
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.no_grad():
            for mine, theirs in zip(network.parameters(), like.parameters(), strict=True):
                mine.copy_(theirs)
        self.network, self.device, self.seconds = network.to(device), device, list[float]()
        optim = config.optim
        self.optimizer = PaperSGD(network.parameters(), optim.lr, optim.momentum, optim.weight_decay)
        generator = torch.Generator().manual_seed(0)
        side = config.data.crop_size or 0
        pixels = torch.rand(batch, 3, side, side, generator=generator) * 255 - 127.5
        self.inputs = pixels.to(device).contiguous(memory_format=layout)
        self.labels = torch.randint(config.data.num_classes, (batch,), generator=generator).to(device)

    def step(self, number: int) -> None:
        """One step as `alexlab.training.task` takes it."""
        started = time.perf_counter()
        if isinstance(self.network, AlexNet):
            self.network.reseed_dropout(0, "dropout", number)
        loss = F.cross_entropy(self.network(self.inputs), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # last: gradients of all contenders at once would take 1 GB
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - started)
        assert torch.isfinite(loss)

    @torch.no_grad()
    def maps(self) -> Tensor:
        """What leaves the last pooling."""
        x = self.inputs
        for module in self.network:
            x = module(x)
            if isinstance(module, nn.Flatten):
                break
        return x

    def kept_bytes(self) -> int:
        """Of the tensors that a forward pass keeps for the backward pass, each storage counted once."""
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # keeps the storage, so that no other gets its address

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = self.network(self.inputs)
        del logits
        return sum(storages.values())


def contenders(batch: int) -> tuple[dict[str, Contender], dict[str, float]]:
    """Those that are timed, and the activations that each keeps for LRN."""
    config, without = full_scale(), full_scale(lrn=False)
    model = build_model(config)
    found = {OURS: Contender(model, model, torch.channels_last, config, batch)}
    for name, (lrn, layout) in PLAIN.items():
        found[name] = Contender(plain(lrn, layout), model, layout, config, batch)
    expected = found[OURS].maps()
    for name, contender in found.items():
        if name != WITHOUT:
            torch.testing.assert_close(
                contender.maps(), expected, rtol=1e-3, atol=1e-3, msg=f"{name}: not the same net"
            )

    activation = sum(4 * batch * spec.outputs * spec.side**2 for spec in layers(config) if "lrn" in spec.follows)
    ours_without = Contender(build_model(without), model, torch.channels_last, without, batch).kept_bytes()
    plain_without = found[WITHOUT].kept_bytes()
    kept = {
        name: (contender.kept_bytes() - (ours_without if name == OURS else plain_without)) / activation
        for name, contender in found.items()
    }
    return found, kept


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu}, {torch.get_num_threads()} threads, {device}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="images a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count, 2 or more (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.batch < 1 or arguments.rounds < 2:
        parser.error("--batch must be at least 1, --rounds at least 2")

    print(machine())
    found, kept = contenders(arguments.batch)
    for number in range(arguments.rounds + 1):
        turns = list(found.values())
        for contender in turns if number % 2 == 0 else reversed(turns):
            contender.step(number)

    def ratios(name: str, other: str) -> list[float]:
        pairs = zip(found[name].seconds[1:], found[other].seconds[1:], strict=True)
        return [own / others for own, others in pairs]

    print(f"batch {arguments.batch}, {arguments.rounds} rounds")
    print(f"ratio: seconds over those of '{REFERENCE}' in the same round, median\n")
    print(f"{'':22}{'median s':>9}{'ratio':>7}{'half of rounds':>17}{'kept for LRN':>14}")
    for name, contender in found.items():
        low, middle, high = statistics.quantiles(ratios(name, REFERENCE), n=4, method="inclusive")
        seconds = statistics.median(contender.seconds[1:])
        print(f"{name:22}{seconds:9.3f}{middle:7.2f}{f'{low:.2f} to {high:.2f}':>17}{kept[name]:14.2f}")
    worst = max(statistics.median(ratios(OURS, name)) for name in PLAIN if "our LRN" in name)
    print(f"\nours takes {worst:.2f} times the faster of the plain networks with our LRN")


if __name__ == "__main__":
    main()
