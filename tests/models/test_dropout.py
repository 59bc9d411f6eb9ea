"""Dropout in both of its forms."""

from __future__ import annotations

import pytest
import torch

from alexlab.models import Dropout


def test_papers_form_leaves_survivors_and_scales_at_test():
    layer = Dropout(0.3)
    x = torch.full((200, 500), 7.0)
    y = layer.train()(x)
    assert set(y.unique().tolist()) == {0.0, 7.0}
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(layer.eval()(x), x * 0.7)


def test_todays_form_scales_survivors_and_is_nothing_at_test():
    layer = Dropout(0.3, scale_at_test=False)
    x = torch.full((200, 500), 7.0)
    y = layer.train()(x)
    torch.testing.assert_close(y.max(), torch.tensor(10.0))
    assert y.mean().item() == pytest.approx(7.0, abs=0.1)
    assert torch.equal(layer.eval()(x), x)


def test_the_mask_follows_from_the_seed_alone():
    layer, x = Dropout(0.5).train(), torch.ones(4, 64)
    layer.reseed(1)
    first = layer(x)
    torch.rand(100)  # another draw from the global generator in between
    assert torch.equal(layer(x), first)
    layer.reseed(2)
    assert not torch.equal(layer(x), first)


def test_gradient_passes_through_survivors_alone():
    layer, x = Dropout(0.5).train(), torch.ones(1000, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
