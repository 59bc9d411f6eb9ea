"""The processes that share one run, one on each device: which one this is, and what they tell each other.

Where there is one process alone, nothing is sent, and each function gives what it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

_PATIENCE = timedelta(hours=2)  # one that dies is noticed by the process that started them; a slow disk is none
_sent = 0


@dataclass(frozen=True)
class Share:
    """What is this process's of something that `of` processes share out: images of a batch, kernels of a layer."""

    rank: int = 0
    of: int = 1

    def bounds(self, total: int, rank: int | None = None) -> tuple[int, int]:
        """First and behind the last of `total` that are this process's, or another's."""
        rank = self.rank if rank is None else rank
        return total * rank // self.of, total * (rank + 1) // self.of

    def sizes(self, total: int) -> list[int]:
        """How many each process has."""
        return [end - begin for begin, end in (self.bounds(total, rank) for rank in range(self.of))]


def connect(rank: int, count: int, folder: Path) -> None:
    """Find the others, by a folder that all of them see; CPU tensors go by gloo, those of GPUs by NCCL.

    By a file in it, since a port that is free now may be taken a moment later.
    """
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(rank % torch.cuda.device_count())
    method = f"file://{folder / 'meeting'}"
    dist.init_process_group(backend, init_method=method, rank=rank, world_size=count, timeout=_PATIENCE)


def leave() -> None:
    """Part from the others, when all is done."""
    if dist.is_initialized():
        dist.destroy_process_group()


ALONE = Share()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the one process of the run that writes and shows anything."""
    return rank() == 0


def any_of(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set in any process: they must decide alike, or they wait for each other for ever."""
    if count() == 1:
        return flags
    told = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in told)


def gathered(value: Any) -> list[Any]:
    """A value of each process, in their order."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does this before the others do."""
    if not is_first():
        any_of(False)
    yield
    if is_first():
        any_of(False)


def note_sent(num_bytes: int) -> None:
    """Count what this process has sent to others in a step."""
    global _sent
    _sent += num_bytes


def sent() -> int:
    """The bytes of activations and gradients that this process has sent so far."""
    return _sent


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _summed(own)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _summed(grads[0])


def _summed(own: Tensor) -> Tensor:
    whole = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(whole)
    note_sent(2 * (count() - 1) * whole.nbytes // count())
    return whole


def total(own: Tensor) -> Tensor:
    """The sum over all processes, on each; its gradient is the sum of theirs."""
    return _Total.apply(own)


def gather_parts(own: Tensor, sizes: list[int]) -> Tensor:
    """Join the parts of all processes along the last dimension, of which each has its size."""
    widest = max(sizes)
    padded = torch.nn.functional.pad(own, (0, widest - own.shape[-1])) if own.shape[-1] < widest else own
    padded = padded.contiguous()
    parts = padded.new_empty((count(), *padded.shape))
    dist.all_gather(list(parts), padded)
    note_sent((count() - 1) * padded.nbytes)
    return torch.cat([part[..., :size] for part, size in zip(parts, sizes, strict=True)], -1)


def sum_parts(whole: Tensor, sizes: list[int]) -> Tensor:
    """The sum over all processes of this process's part of `whole`, along the last dimension."""
    pieces = [piece.contiguous() for piece in whole.split(sizes, -1)]
    own = pieces[rank()]
    received = own.new_empty((count(), *own.shape))
    dist.all_to_all_single(
        received.view(-1),
        torch.cat([piece.view(-1) for piece in pieces]),
        [own.numel()] * count(),
        [piece.numel() for piece in pieces],
    )
    note_sent(whole.nbytes - own.nbytes)
    return received.sum(0)


def swap_edges(to_lower: Tensor, to_upper: Tensor) -> tuple[Tensor, Tensor]:
    """Send one tensor to the process before this one and one to that behind; what those two sent, zeros at an end."""
    to_lower, to_upper = to_lower.contiguous(), to_upper.contiguous()
    from_lower, from_upper = torch.zeros_like(to_upper), torch.zeros_like(to_lower)
    calls = []
    if rank() > 0:
        calls += [dist.P2POp(dist.isend, to_lower, rank() - 1), dist.P2POp(dist.irecv, from_lower, rank() - 1)]
        note_sent(to_lower.nbytes)
    if rank() < count() - 1:
        calls += [dist.P2POp(dist.isend, to_upper, rank() + 1), dist.P2POp(dist.irecv, from_upper, rank() + 1)]
        note_sent(to_upper.nbytes)
    for work in dist.batch_isend_irecv(calls):
        work.wait()
    return from_lower, from_upper


def join_parts(own: Tensor, share: Share, shape: torch.Size) -> Tensor:
    """A tensor of `shape` of which each process has its share along the one dimension in which they differ."""
    dim = split_dim(own.shape, shape)
    if dim is None:
        return own.detach()
    whole = own.new_empty(shape)
    for rank_, size in enumerate(share.sizes(shape[dim])):
        part = own.detach() if rank_ == share.rank else own.new_empty((*shape[:dim], size, *shape[dim + 1 :]))
        part = part.contiguous()
        dist.broadcast(part, rank_)
        whole.narrow(dim, share.bounds(shape[dim], rank_)[0], size).copy_(part)
    return whole


def split_dim(part: torch.Size, whole: torch.Size) -> int | None:
    """The dimension in which a part is smaller than the whole."""
    return next((dim for dim, (a, b) in enumerate(zip(part, whole, strict=True)) if a != b), None)
