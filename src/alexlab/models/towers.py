"""One network split across several devices (two in the paper): each has a slice of every layer's kernels (3.2, 3.5).

A grouped convolution reads only its own device's channels. Layers that read all channels (conv3, the fully connected
ones) first gather those of the other devices; in the backward pass their gradients are sent back. The windows of
response normalisation reach across the boundary between two devices, so they exchange the adjacent channels, unless
`model.lrn_per_tower` keeps windows within a device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alexlab import distributed
from alexlab.distributed import Share
from alexlab.models.alexnet import AlexNet
from alexlab.models.dropout import Dropout
from alexlab.models.locally_connected import LocallyConnected2d
from alexlab.models.lrn import LocalResponseNorm

Weighted = nn.Conv2d | nn.Linear | LocallyConnected2d


class Tower(AlexNet):
    """One device's part of a network: takes the same input on each device and gives the full logits on each.

    Takes the modules of `network`, which must not be used afterwards. Its state dict has the network's names and this
    device's slices; `full_state` and `load_full_state` have full tensors. All devices must call forward, backward and
    `full_state` together. The configuration must be validated, so that the network can be divided among the devices.
    """

    def __init__(self, network: AlexNet, share: Share) -> None:
        super().__init__()
        self._share = share
        self._shapes = {name: value.shape for name, value in network.state_dict().items()}
        is_slice, total = False, 0  # whether the previous output is this device's slice, and of how many channels
        for name, module in list(network.named_children()):
            needs_all = isinstance(module, nn.Flatten) or (isinstance(module, Weighted) and _groups(module) == 1)
            if needs_all and is_slice:
                self.add_module(f"gather_{name}", Gather(share.sizes(total), sums_gradients=True))
                is_slice = False
            if isinstance(module, Weighted):
                is_slice, total = True, _outputs(module)
                _take_part(module, share)
            elif isinstance(module, LocalResponseNorm):
                module = _norm(module, share)
            elif isinstance(module, Dropout):
                module.part = (1, *share.bounds(total), total)
            elif list(module.parameters()):  # batch normalisation, PReLU
                _cut(module, 0, share.bounds(total))
            self.add_module(name, module)
        self.add_module("gather_logits", Gather(share.sizes(total), sums_gradients=False))

    def full_state(self) -> dict[str, Tensor]:
        """The full network's state dict, on each device."""
        return {name: self.full(name, value) for name, value in self.state_dict().items()}

    def load_full_state(self, state: dict[str, Tensor]) -> None:
        """Load this device's part of a full network's state dict."""
        self.load_state_dict({name: self.part(name, value) for name, value in state.items()})

    def full(self, name: str, own: Tensor) -> Tensor:
        """Join the parts of all devices of a value shaped like a parameter or buffer, such as a velocity."""
        return distributed.join_parts(own, self._share, self._shapes[name])

    def part(self, name: str, full: Tensor) -> Tensor:
        """This device's part of a full value: the inverse of `full`."""
        dim = distributed.split_dim(self.get_parameter_or_buffer(name).shape, full.shape)
        begin, end = self._share.bounds(full.shape[dim]) if dim is not None else (0, 0)
        return full if dim is None else full.narrow(dim, begin, end - begin)

    def get_parameter_or_buffer(self, name: str) -> Tensor:
        module, _, kind = name.rpartition(".")
        return getattr(self.get_submodule(module), kind)


def _outputs(module: Weighted) -> int:
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    return module.out_features if isinstance(module, nn.Linear) else module.weight.shape[1]


def _groups(module: Weighted) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 1


def _take_part(module: Weighted, share: Share) -> None:
    groups = _groups(module)
    begin, end = share.bounds(_outputs(module))
    _cut(module, 1 if isinstance(module, LocallyConnected2d) else 0, (begin, end))
    if isinstance(module, nn.Conv2d):
        if groups > 1:
            module.groups, module.in_channels = groups // share.of, module.in_channels // share.of
        module.out_channels = end - begin
    elif isinstance(module, nn.Linear):
        module.out_features = end - begin


def _cut(module: nn.Module, dim: int, bounds: tuple[int, int]) -> None:
    """Reduce a module's parameters and buffers to a slice."""
    begin, end = bounds
    for name, value in module.named_parameters(recurse=False):
        part = value.detach().narrow(dim, begin, end - begin)
        setattr(module, name, nn.Parameter(part.clone(memory_format=torch.preserve_format)))
    for name, value in module.named_buffers(recurse=False):
        if value.dim() > dim:  # the scalar num_batches_tracked is the same on all devices
            setattr(module, name, value.narrow(dim, begin, end - begin).clone())
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = end - begin
    elif isinstance(module, nn.PReLU):
        module.num_parameters = end - begin


def _norm(norm: LocalResponseNorm, share: Share) -> nn.Module:
    if norm.groups > 1:
        norm.groups //= share.of  # its windows stop at the boundaries of towers
        return norm
    return NormAcrossDevices(norm) if norm.size > 1 else norm


class Gather(nn.Module):
    """Concatenate all devices' channels or units, dimension 1.

    With `sums_gradients`, each device computes something different from the result, so gradients are summed over
    devices. Without it, all devices compute the same and so have the same gradient already.
    """

    def __init__(self, sizes: list[int], sums_gradients: bool) -> None:
        super().__init__()
        self.sizes, self.sums_gradients = sizes, sums_gradients

    def forward(self, x: Tensor) -> Tensor:
        return _Gather.apply(x, self.sizes, self.sums_gradients)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], sums_gradients: bool) -> Tensor:
        ctx.sizes, ctx.sums_gradients = sizes, sums_gradients
        return distributed.gather_parts(x.movedim(1, -1), sizes).movedim(-1, 1)  # channels last, as in memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grads[0].movedim(1, -1)
        own = (
            distributed.sum_parts(grad, ctx.sizes)
            if ctx.sums_gradients
            else grad.split(ctx.sizes, -1)[distributed.rank()]
        )
        return own.movedim(-1, 1), None, None


class NormAcrossDevices(nn.Module):
    """Response normalisation whose windows reach into the next device's channels."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        super().__init__()
        self.norm, self.reach = norm, norm.size // 2

    def forward(self, x: Tensor) -> Tensor:
        wide = _Neighbours.apply(x, self.reach)
        own = self.norm(wide).narrow(1, self.reach, x.shape[1])
        return own.contiguous(memory_format=torch.channels_last)


class _Neighbours(torch.autograd.Function):
    """x with `reach` adjacent channels of the previous and next device; zeros, which add nothing, at either end."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int) -> Tensor:
        ctx.reach = reach
        before, after = distributed.swap_edges(x[:, :reach], x[:, -reach:])
        return torch.cat([before, x, after], 1).contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grads
        reach = ctx.reach
        before, after = distributed.swap_edges(grad[:, :reach], grad[:, -reach:])
        own = grad[:, reach:-reach].clone(memory_format=torch.channels_last)
        own[:, :reach] += before
        own[:, -reach:] += after
        return own, None
