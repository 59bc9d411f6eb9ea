"""`--net`: the layers of a net, their sizes and costs, before it runs."""

from __future__ import annotations

from alexlab.architecture import Layer, bytes_sent, kept_bytes, layers
from alexlab.cli.columns import Column, print_columns
from alexlab.compose import Job
from alexlab.config import Config, ConfigError, DataConfig
from alexlab.console import Console
from alexlab.own_net import unpinned
from alexlab.sweep.plan import varied, what_varies

_MEGA = 1e6


def print_nets(jobs: list[Job], console: Console) -> None:
    """Print each different net once, with its totals and those of the paper's net."""
    varying, seen = what_varies(jobs), []
    for job in jobs:
        if (build := job.config.model.build) is not None:
            raise ConfigError(f"--net: knows AlexNet's layers, not those of model.build={unpinned(build)}")
        net, config = layers(job.config), job.config
        kept = [kept_bytes(layer, config) * config.data.batch_size for layer in net]
        if (net, kept) not in seen:
            seen.append((net, kept))
            _print_net(net, kept, config, varied(job, varying), console)


def _print_net(net: list[Layer], kept: list[int], config: Config, what: str, console: Console) -> None:
    batch, side = config.data.batch_size, config.data.crop_size
    rows = []
    for layer, size in zip(net, kept, strict=True):
        kernel = f"{layer.kernel}x{layer.kernel}" if layer.is_conv else ""
        rows.append(
            (
                layer.name,
                f"{kernel}{'' if layer.shared else ' local'}",
                str(layer.stride) if layer.is_conv else "",
                str(layer.groups) if layer.is_conv else "",
                f"{layer.outputs}x{layer.side}²" if layer.is_conv else str(layer.outputs),
                f"{layer.pooled_side}²" if layer.pooled_side != layer.side else "",
                f"{layer.parameters:,}",
                _millions(layer.multiply_adds),
                f"{size / _MEGA:,.1f}",
            )
        )
    parameters, multiply_adds, neurons = _totals(net)
    papers = _totals(layers(Config(data=DataConfig(crop_size=224))))
    empty = [""] * 5
    rows.append(("total", *empty, f"{parameters:,}", _millions(multiply_adds), f"{sum(kept) / _MEGA:,.1f}"))
    rows.append(("the paper", *empty, f"{papers[0]:,}", _millions(papers[1]), ""))
    headings = ("layer", "kernel", "stride", "groups", "output", "pooled", "parameters", "million\nmult-adds")
    headings = (*headings, f"MB at\nbatch {batch}")
    ranks = {"groups": 1, "stride": 2}
    columns = [
        Column(heading, right=place > 1, rank=ranks.get(heading, 0), cells=list(cells))
        for place, (heading, cells) in enumerate(zip(headings, zip(*rows, strict=True), strict=True))
    ]
    console.print()
    title = f"The net for images of {side} x {side} pixels{f', {what}' if what else ''}"
    print_columns(title, columns, console, rules=[len(net)])
    console.say(
        f"{neurons:,} neurons; the paper's net has {papers[2]:,} (its text: 60 million parameters, 650,000 neurons).\n"
        f"MB: what training keeps of each layer for its backward pass, in float32. Weights, gradients and velocities "
        f"take {12 * parameters / _MEGA:,.0f} MB more.\n{_sending(config)}"
    )


def _sending(config: Config) -> str:
    """A sentence on the bytes that two devices, or trainer.devices of them, send each other."""
    devices = max(2, config.trainer.devices)
    sent = bytes_sent(config, devices)
    return (
        f"Over {devices} devices each sends {sent['ddp'] / _MEGA:,.1f} MB a step with trainer.strategy=ddp, "
        f"{sent['towers'] / _MEGA:,.1f} MB with towers."
    )


def _totals(net: list[Layer]) -> tuple[int, int, int]:
    """Parameters, multiply-adds and neurons of one image."""
    return (
        sum(layer.parameters for layer in net),
        sum(layer.multiply_adds for layer in net),
        sum(layer.neurons for layer in net),
    )


def _millions(number: int) -> str:
    return f"{number / _MEGA:,.2f}"
