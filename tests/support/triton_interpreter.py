"""Run by tests/models/test_lrn.py with TRITON_INTERPRET=1: the GPU's LRN, on a CPU, against the formula in float64."""

from __future__ import annotations

import numpy as np
import torch

from alexlab.models.lrn_triton import normalise
from support.lrn_formula import CONSTANTS, reference, reference_gradient


def main() -> None:
    rng = np.random.default_rng(0)
    for maps, groups in [(1, 1), (2, 1), (7, 1), (24, 1), (24, 2), (6, 3)]:
        for constants in CONSTANTS:
            a = rng.normal(0, 60, (2, maps, 3, 2)).astype(np.float32)
            grad = rng.normal(0, 1, a.shape).astype(np.float32)
            for layout in (torch.channels_last, torch.contiguous_format):
                x = torch.tensor(a).contiguous(memory_format=layout).requires_grad_()
                y = normalise(x, *constants, groups)  # pyright: ignore[reportCallIssue]
                y.backward(torch.tensor(grad))
                assert x.grad is not None
                split = (np.split(one.astype(float), groups, 1) for one in (a, grad))
                towers = list(zip(*split, strict=True))
                expected = np.concatenate([reference(own, *constants) for own, _ in towers], 1)
                gradient = np.concatenate([reference_gradient(own, g, *constants) for own, g in towers], 1)
                np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
                scale = np.abs(gradient).max()
                np.testing.assert_allclose(x.grad.numpy() / scale, gradient / scale, atol=2e-6)
    x = torch.randn(2, 6, 3, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(torch.ops.alexlab.lrn.default, (x, 5, 2.0, 1e-4, 0.75, 3))
    x = torch.from_numpy(rng.normal(0, 60, (2, 6, 3, 2))).bfloat16()
    y = normalise(x, 5, 2.0, 1e-4, 0.75, 3)
    assert y.dtype is torch.bfloat16
    expected = np.concatenate([reference(own, 5, 2.0, 1e-4, 0.75) for own in np.split(x.double().numpy(), 3, 1)], 1)
    np.testing.assert_allclose(y.double().numpy(), expected, rtol=2**-7)  # cut off once, at the end
    print("agrees")


if __name__ == "__main__":
    main()
