"""The update rule of section 5 against NumPy float64, across a drop of the learning rate."""

from __future__ import annotations

import numpy as np
import torch

from alexlab.training.sgd import PaperSGD


def test_the_rule_across_a_drop():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3))
    v = np.zeros_like(w)
    weight = torch.nn.Parameter(torch.tensor(w))
    optimizer = PaperSGD([weight], lr=0.1, momentum=0.9, weight_decay=5e-2)
    for step in range(30):
        lr = 0.1 if step < 10 else 0.01
        optimizer.param_groups[0]["lr"] = lr
        gradient = rng.normal(size=w.shape)
        v = 0.9 * v - 5e-2 * lr * w - lr * gradient
        w = w + v
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12, atol=1e-14)


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
