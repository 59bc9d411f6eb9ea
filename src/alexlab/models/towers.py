"""One net over several devices, as the paper's was over two: on each a stretch of every layer's kernels (3.2, 3.5).

A convolution in groups reads its own device's maps alone. What reads all maps (conv3, the fully connected layers) first
gets those of the others; backward, their gradients go back. Response normalisation reaches over the seam between two
devices, unless `model.lrn_per_tower` keeps it within them, so they swap the maps next to it.
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
from alexlab.models.locally_connected import Unshared2d
from alexlab.models.lrn import LocalResponseNorm

Weighty = nn.Conv2d | nn.Linear | Unshared2d


class Tower(AlexNet):
    """One device's part of a network, which it takes apart: the same input on each, the whole network's logits on each.

    Its state dict has the network's names and this device's values; `full_state` and `load_full_state` are the whole
    network's. All devices must call forward, backward and `full_state` alike. That the network divides over them was
    checked with the configuration.
    """

    def __init__(self, network: AlexNet, share: Share) -> None:
        super().__init__()
        self._share = share
        self._shapes = {name: value.shape for name, value in network.state_dict().items()}
        is_own, total = False, 0  # of what the layer before gives: whether it is this device's maps alone, of how many
        for name, module in list(network.named_children()):
            needs_all = isinstance(module, nn.Flatten) or (isinstance(module, Weighty) and _groups(module) == 1)
            if needs_all and is_own:
                self.add_module(f"gather_{name}", Gather(share.sizes(total), shares_use=True))
                is_own = False
            if isinstance(module, Weighty):
                is_own, total = True, _outputs(module)
                _take_part(module, share)
            elif isinstance(module, LocalResponseNorm):
                module = _norm(module, share)
            elif isinstance(module, Dropout):
                module.part = (1, *share.bounds(total), total)
            elif list(module.parameters()):  # batch normalisation, PReLU
                _cut(module, 0, share.bounds(total))
            self.add_module(name, module)
        self.add_module("gather_logits", Gather(share.sizes(total), shares_use=False))

    def full_state(self) -> dict[str, Tensor]:
        """The whole network's state dict, on each device."""
        return {name: self.full(name, value) for name, value in self.state_dict().items()}

    def load_full_state(self, state: dict[str, Tensor]) -> None:
        """Take this device's part of a whole network's state dict."""
        self.load_state_dict({name: self.part(name, value) for name, value in state.items()})

    def full(self, name: str, own: Tensor) -> Tensor:
        """The whole of a value that belongs to a parameter or buffer, such as its velocity, from all devices' parts."""
        return distributed.join_parts(own, self._share, self._shapes[name])

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This device's part of such a value."""
        dim = distributed.split_dim(self.get_parameter_or_buffer(name).shape, whole.shape)
        begin, end = self._share.bounds(whole.shape[dim]) if dim is not None else (0, 0)
        return whole if dim is None else whole.narrow(dim, begin, end - begin)

    def get_parameter_or_buffer(self, name: str) -> Tensor:
        module, _, kind = name.rpartition(".")
        return getattr(self.get_submodule(module), kind)


def _outputs(module: Weighty) -> int:
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    return module.out_features if isinstance(module, nn.Linear) else module.weight.shape[1]


def _groups(module: Weighty) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 1


def _take_part(module: Weighty, share: Share) -> None:
    groups = _groups(module)
    begin, end = share.bounds(_outputs(module))
    _cut(module, 1 if isinstance(module, Unshared2d) else 0, (begin, end))
    if isinstance(module, nn.Conv2d):
        if groups > 1:
            module.groups, module.in_channels = groups // share.of, module.in_channels // share.of
        module.out_channels = end - begin
    elif isinstance(module, nn.Linear):
        module.out_features = end - begin


def _cut(module: nn.Module, dim: int, bounds: tuple[int, int]) -> None:
    """Leave a stretch of a module's parameters and buffers."""
    begin, end = bounds
    for name, value in module.named_parameters(recurse=False):
        part = value.detach().narrow(dim, begin, end - begin)
        setattr(module, name, nn.Parameter(part.clone(memory_format=torch.preserve_format)))
    for name, value in module.named_buffers(recurse=False):
        if value.dim() > dim:  # a count of batches is everyone's
            setattr(module, name, value.narrow(dim, begin, end - begin).clone())
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = end - begin
    elif isinstance(module, nn.PReLU):
        module.num_parameters = end - begin


def _norm(norm: LocalResponseNorm, share: Share) -> nn.Module:
    if norm.groups > 1:
        norm.groups //= share.of  # its windows end where towers do
        return norm
    return NormOverSeams(norm) if norm.size > 1 else norm


class Gather(nn.Module):
    """Join all devices' maps or units, dimension 1.

    With `shares_use` each device uses them for a part of its own, and the gradients of all uses are added up. Without,
    all devices do the same with them, and so have the same gradient.
    """

    def __init__(self, sizes: list[int], shares_use: bool) -> None:
        super().__init__()
        self.sizes, self.shares_use = sizes, shares_use

    def forward(self, x: Tensor) -> Tensor:
        return _Gather.apply(x, self.sizes, self.shares_use)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], shares_use: bool) -> Tensor:
        ctx.sizes, ctx.shares_use = sizes, shares_use
        return distributed.gather_parts(x.movedim(1, -1), sizes).movedim(-1, 1)  # maps last, as they lie in memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grads[0].movedim(1, -1)
        own = (
            distributed.sum_parts(grad, ctx.sizes) if ctx.shares_use else grad.split(ctx.sizes, -1)[distributed.rank()]
        )
        return own.movedim(-1, 1), None, None


class NormOverSeams(nn.Module):
    """Response normalisation whose windows reach over to the next device's maps."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        super().__init__()
        self.norm, self.reach = norm, norm.size // 2

    def forward(self, x: Tensor) -> Tensor:
        wide = _Neighbours.apply(x, self.reach)
        own = self.norm(wide).narrow(1, self.reach, x.shape[1])
        return own.contiguous(memory_format=torch.channels_last)


class _Neighbours(torch.autograd.Function):
    """x with the `reach` maps beside it of the devices before and behind; zeros, which add nothing, at the ends."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int) -> Tensor:
        ctx.reach = reach
        before, behind = distributed.swap_edges(x[:, :reach], x[:, -reach:])
        return torch.cat([before, x, behind], 1).contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grads
        reach = ctx.reach
        before, behind = distributed.swap_edges(grad[:, :reach], grad[:, -reach:])
        own = grad[:, reach:-reach].clone(memory_format=torch.channels_last)
        own[:, :reach] += before
        own[:, -reach:] += behind
        return own, None
