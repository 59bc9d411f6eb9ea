"""Time a batch's transforms on its device: from grey crops to the network's input, with the paper's colour shifts.

Compared with torchvision's transforms, applied to each image as is usual and to the whole batch; and with the time that
the machine needs to read the crops and write the input once, at its measured bandwidth.
"""

from __future__ import annotations

import statistics

from turns import arguments, bandwidth, device, machine, settled, take_turns, tell, versions

import torch
from torch import Tensor
from torchvision.transforms import v2

from alexlab.data.augment import Normalisation, training_input

BATCH, SIZE = 128, 256


def main() -> None:
    args = arguments(__doc__, 9).parse_args()
    print(f"{machine()}\n{versions()}")
    limits = {}
    for crop, batch in ((224, BATCH), (96, 32)):
        generator = torch.Generator().manual_seed(0)
        place, rate = device(), bandwidth()
        crops = torch.randint(0, 256, (batch, crop, crop, 3), generator=generator, dtype=torch.uint8).to(place)
        windows = torch.randint(0, SIZE - crop, (batch, 3), generator=generator).to(place)
        windows[:, 2] %= 2
        shifts = (3 * torch.randn(batch, 3, generator=generator)).to(place)
        norm = Normalisation(torch.rand(SIZE, SIZE, 3, generator=generator) * 255, 1.0, False).to(place)
        change = v2.Compose(
            [v2.ToDtype(torch.float32), v2.Normalize((123.7, 116.3, 103.5), (1.0, 1.0, 1.0))]  # no mean image there
        )

        def ours(crops: Tensor = crops, windows: Tensor = windows, shifts: Tensor = shifts, norm=norm) -> None:
            training_input(crops, windows, shifts, 1.0, norm)
            settled()

        def each(crops: Tensor = crops, shifts: Tensor = shifts, change=change) -> None:
            torch.stack([change(one) + shift[:, None, None] for one, shift in zip(_maps(crops), shifts, strict=True)])
            settled()

        def whole(crops: Tensor = crops, shifts: Tensor = shifts, change=change) -> None:
            change(_maps(crops)).add_(shifts[:, :, None, None])
            settled()

        names = {"torchvision v2, each image": each, "torchvision v2, the batch": whole, "ours": ours}
        times = take_turns(names, args.rounds, args.busy)
        limits[crop] = 5 * crops.numel() / rate / statistics.median(times.quiet["ours"])
        tell(f"{batch} crops of {crop}", times, "torchvision v2, each image", args.json)
    told = ", ".join(f"{100 * share:.0f} % at {crop} pixels" for crop, share in limits.items())
    print(f"\nReading the crops and writing the input at the machine's bandwidth is {told} of what ours takes.")


def _maps(crops: Tensor) -> Tensor:
    return crops.permute(0, 3, 1, 2)


if __name__ == "__main__":
    main()
