"""Local response normalisation against the paper's formula, written out in NumPy float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alexlab.models import LocalResponseNorm, lrn
from support.lrn_formula import CONSTANTS, reference, reference_gradient


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize("maps", [1, 2, 7])
def test_forward_and_gradient_follow_the_formula(maps, constants, channels_last):
    rng = np.random.default_rng(0)
    a = rng.normal(0, 60, (3, maps, 4, 5))
    grad = rng.normal(0, 1, a.shape)
    x = torch.tensor(a)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = LocalResponseNorm(*constants)(x)
    y.backward(torch.tensor(grad))
    assert x.grad is not None
    np.testing.assert_allclose(y.detach().numpy(), reference(a, *constants), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), reference_gradient(a, grad, *constants), rtol=1e-9, atol=1e-12)


def test_float32_keeps_to_the_formula():
    rng = np.random.default_rng(1)
    a = rng.normal(0, 100, (2, 96, 5, 5)).astype(np.float32)
    y = LocalResponseNorm()(torch.tensor(a)).numpy()
    expected = reference(a.astype(np.float64), 5, 2.0, 1e-4, 0.75)
    np.testing.assert_allclose(y, expected, rtol=3e-6, atol=1e-6)


def test_alpha_multiplies_the_sum():
    """Five activities of 100: 100 / (2 + 1e-4 * 5 * 100^2)^.75 in the middle, three in the window at the edge."""
    y = LocalResponseNorm(5, 2.0, 1e-4, 0.75)(torch.full((1, 5, 1, 1), 100.0)).flatten()
    assert y[2].item() == pytest.approx(23.237, abs=1e-3)
    assert y[0].item() == y[4].item() == pytest.approx(29.907, abs=1e-3)


def test_pytorchs_layer_with_alpha_times_size_is_the_same():
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64) * 50
    ours = LocalResponseNorm(5, 2.0, 1e-4, 0.75)(x)
    torch.testing.assert_close(ours, nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)(x))


def test_gradcheck():
    x = torch.randn(2, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(5, 2.0, 0.3, 0.75), x)


def test_half_precision_is_computed_in_float32():
    x = (torch.randn(2, 8, 4, 4) * 30).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = LocalResponseNorm()(x)
    assert y.dtype == torch.float32
    expected = reference(x.double().numpy(), 5, 2.0, 1e-4, 0.75)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("shape", "is_fused"), [((2, 8), 0), ((2, 8, 5), 0), ((2, 8, 5, 5), 1), ((2, 8, 5, 5, 5), 0)])
def test_on_a_gpu_one_kernel_takes_feature_maps_and_nothing_else(
    shape: tuple[int, ...], is_fused: bool, monkeypatch: pytest.MonkeyPatch
):
    """By tensors of a GPU without data; the kernel's layout, channels last, exists for four dimensions alone."""
    taken: list[torch.Size] = []
    kernel = SimpleNamespace(normalise=lambda x, *_: (taken.append(x.shape), x)[1])
    monkeypatch.setattr(lrn, "_HAS_TRITON", True)
    monkeypatch.setitem(sys.modules, "alexlab.models.lrn_triton", kernel)
    with FakeTensorMode():
        x = torch.empty(shape, device="cuda")
        assert x.is_cuda
        assert LocalResponseNorm()(x).shape == shape
    assert len(taken) == is_fused


def test_even_size_is_refused():
    with pytest.raises(ValueError, match="size=4"):
        LocalResponseNorm(size=4)


def _triton() -> dict[str, str]:
    pytest.importorskip("triton", reason="no triton, as with torch's builds for a CPU alone")
    tests = str(Path(__file__).parents[1])  # for tests/support
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}


@pytest.mark.slow
def test_the_gpus_kernels_follow_the_formula():
    """By triton's interpreter, which needs no GPU."""
    script = Path(__file__).parents[1] / "support" / "triton_interpreter.py"
    done = subprocess.run([sys.executable, script], env=_triton(), capture_output=True, text=True, check=False)
    assert done.stdout == "agrees\n", done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["_forward", "_backward"])
def test_the_gpus_kernels_are_translated(name: str, capability: int):
    """To a GPU's own code (A100, H100), for float32 and towers, with no register spilt."""
    _triton()
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from alexlab.models import lrn_triton

    kernel = getattr(lrn_triton, name)
    fixed = {"GROUP": 48, "IS_SPLIT": True, "REACH": 2, "POSITIONS": 8, "CHANNELS": 128}
    kinds = {**dict.fromkeys(fixed, "constexpr"), "P": "i32", "C": "i32", "k": "fp32", "alpha": "fp32", "beta": "fp32"}
    signature = {argument: kinds.get(argument, "*fp32") for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(argument),): value for argument, value in fixed.items()}
    made = triton.compile(ASTSource(kernel, signature, places), target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"]
    assert "ld.local" not in made.asm["ptx"]
