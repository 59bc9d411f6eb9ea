"""Collectives among the processes that share one run, one per device.

In a run of one process nothing is sent, and each function returns its input.
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

# Long enough for a slow disk; if a process dies, the process that started them all notices at once.
_TIMEOUT = timedelta(hours=2)
_sent = 0


@dataclass(frozen=True)
class Share:
    """One process's part of something that `of` processes divide: images of a batch, kernels of a layer."""

    rank: int = 0
    of: int = 1

    def bounds(self, total: int, rank: int | None = None) -> tuple[int, int]:
        """Begin and end (exclusive) of this process's part of `total` items, or of another rank's."""
        rank = self.rank if rank is None else rank
        return total * rank // self.of, total * (rank + 1) // self.of

    def sizes(self, total: int) -> list[int]:
        """The number of items of each process."""
        return [end - begin for begin, end in (self.bounds(total, rank) for rank in range(self.of))]


def connect(rank: int, count: int, folder: Path, is_on_gpu: bool) -> None:
    """Join the process group through a folder that all processes see: gloo for CPU tensors, NCCL for GPU tensors.

    A run on the CPU uses no GPU, which may be full. Processes rendezvous through a file, since another program could
    take a free port before it is used.
    """
    backend = "gloo"
    if is_on_gpu:
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(rank % torch.cuda.device_count())
    method = f"file://{folder / 'meeting'}"
    dist.init_process_group(backend, init_method=method, rank=rank, world_size=count, timeout=_TIMEOUT)


def leave() -> None:
    """Leave the process group, at the end of a run."""
    if dist.is_initialized():
        dist.destroy_process_group()


ALONE = Share()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is rank 0, the one process of a run that writes files and prints."""
    return rank() == 0


def any_of(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether any process has set it: processes that decide differently would deadlock."""
    if count() == 1:
        return flags
    summed = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(summed, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in summed)


def gather_objects(value: Any) -> list[Any]:
    """The value of each process, in the order of ranks."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Run the block in rank 0, then in the other processes."""
    if not is_first():
        any_of(False)
    yield
    if is_first():
        any_of(False)


def note_sent(num_bytes: int) -> None:
    """Add to the number of bytes that this process has sent."""
    global _sent
    _sent += num_bytes


def sent() -> int:
    """The bytes of activations and gradients that this process has sent so far."""
    return _sent


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _all_reduce(own)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _all_reduce(grads[0])


def _all_reduce(own: Tensor) -> Tensor:
    summed = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    note_sent(2 * (count() - 1) * summed.nbytes // count())
    return summed


def total(own: Tensor) -> Tensor:
    """The sum over all processes (all-reduce), differentiable: the gradient is the sum of the processes' gradients."""
    return _Total.apply(own)


def gather_parts(own: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate the parts of all processes along the last dimension; `sizes` has the size of each."""
    widest = max(sizes)
    padded = torch.nn.functional.pad(own, (0, widest - own.shape[-1])) if own.shape[-1] < widest else own
    padded = padded.contiguous()
    parts = padded.new_empty((count(), *padded.shape))
    dist.all_gather(list(parts), padded)
    note_sent((count() - 1) * padded.nbytes)
    return torch.cat([part[..., :size] for part, size in zip(parts, sizes, strict=True)], -1)


def sum_parts(full: Tensor, sizes: list[int]) -> Tensor:
    """This process's part of the sum of `full` over all processes (reduce-scatter), along the last dimension."""
    pieces = [piece.contiguous() for piece in full.split(sizes, -1)]
    own = pieces[rank()]
    received = own.new_empty((count(), *own.shape))
    dist.all_to_all_single(
        received.view(-1),
        torch.cat([piece.view(-1) for piece in pieces]),
        [own.numel()] * count(),
        [piece.numel() for piece in pieces],
    )
    note_sent(full.nbytes - own.nbytes)
    return received.sum(0)


def swap_edges(to_lower: Tensor, to_upper: Tensor) -> tuple[Tensor, Tensor]:
    """Send one tensor to the previous rank and one to the next; return what they sent, zeros at either end."""
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
    """Join a tensor of `shape` from the parts of all processes, which differ in size along one dimension."""
    dim = split_dim(own.shape, shape)
    if dim is None:
        return own.detach()
    full = own.new_empty(shape)
    for rank_, size in enumerate(share.sizes(shape[dim])):
        part = own.detach() if rank_ == share.rank else own.new_empty((*shape[:dim], size, *shape[dim + 1 :]))
        part = part.contiguous()
        dist.broadcast(part, rank_)
        full.narrow(dim, share.bounds(shape[dim], rank_)[0], size).copy_(part)
    return full


def split_dim(part: torch.Size, full: torch.Size) -> int | None:
    """The dimension in which a part is smaller than the full tensor; None if there is none."""
    return next((dim for dim, (a, b) in enumerate(zip(part, full, strict=True)) if a != b), None)
