"""The update rule of section 5 against NumPy float64, across a drop of the learning rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexlab.training.optim import PaperSGD


@pytest.mark.parametrize("fused", [True, False])
def test_the_rule_across_a_drop(fused: bool):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3))
    v = np.zeros_like(w)
    weight = torch.nn.Parameter(torch.tensor(w))
    optimizer = PaperSGD([weight], lr=0.1, momentum=0.9, weight_decay=5e-2, fused=fused)
    for step in range(30):
        lr = 0.1 if step < 10 else 0.01
        optimizer.param_groups[0]["lr"] = lr
        gradient = rng.normal(size=w.shape)
        v = 0.9 * v - 5e-2 * lr * w - lr * gradient
        w = w + v
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("fused", [True, False])
def test_layouts_are_each_tensors_own(momentum: float, fused: bool):
    """A loaded velocity, or a gradient, may lie in memory in another way than its weight."""
    rng, shape = np.random.default_rng(0), (4, 3, 5, 5)
    w, v, g = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    weight = torch.nn.Parameter(torch.tensor(w).contiguous(memory_format=torch.channels_last))
    optimizer = PaperSGD([weight], lr=0.1, momentum=momentum, weight_decay=5e-2, fused=fused)
    weight.grad = torch.tensor(g)
    optimizer.state[weight]["velocity"] = torch.tensor(np.stack([v, v], 4))[..., 0]  # not even dense
    for _ in range(2):
        v = momentum * v - 5e-2 * 0.1 * w - 0.1 * g
        w = w + v
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(optimizer.state[weight]["velocity"].numpy(), v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_is_skipped_changes_nothing(fused: bool):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = PaperSGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1, fused=fused)
    weight.grad = torch.full((3,), float("nan"))
    optimizer.skip = torch.ones(())
    optimizer.step()
    assert torch.equal(weight, torch.ones(3))
    assert torch.equal(optimizer.state[weight]["velocity"], torch.zeros(3))
    weight.grad = torch.ones(3)
    optimizer.step()  # the next one is taken
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.89))


def test_pytorchs_sgd_differs_only_after_the_drop():
    ours, theirs = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    paper = PaperSGD([ours], lr=0.1, momentum=0.9, weight_decay=0.01)
    torch_sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(8):
        if step == 5:
            torch.testing.assert_close(ours, theirs)
            for optimizer in (paper, torch_sgd):
                optimizer.param_groups[0]["lr"] = 0.01
        for weight, optimizer in ((ours, paper), (theirs, torch_sgd)):
            weight.grad = weight.detach() * 0.5
            optimizer.step()
    assert (ours - theirs).abs().max() > 0.01


def test_parameters_without_gradient_stay_and_state_can_be_saved():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = PaperSGD([used, unused], lr=0.1, momentum=0.9, weight_decay=0.0)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    again = PaperSGD([torch.nn.Parameter(used.detach().clone()), unused], lr=0.1, momentum=0.9, weight_decay=0.0)
    again.load_state_dict(optimizer.state_dict())
    torch.testing.assert_close(again.state[again.param_groups[0]["params"][0]]["velocity"], torch.full((2,), -0.1))
