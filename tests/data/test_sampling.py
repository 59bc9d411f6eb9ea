"""What an epoch draws."""

from __future__ import annotations

import numpy as np

from alexlab.config import AugmentConfig
from alexlab.data.sampling import Draws, Window, draw, image_order, training_windows, view_windows


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    first = image_order(0, 0, 1000)
    assert sorted(first) == list(range(1000))
    assert np.array_equal(first, image_order(0, 0, 1000))
    assert not np.array_equal(first, image_order(0, 1, 1000))
    assert not np.array_equal(first, image_order(1, 0, 1000))


def test_draws_depend_on_seed_epoch_and_step():
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = [draw(*place, 64).crop for place in places]
    for i in range(len(places)):
        assert np.array_equal(drawn[i], draw(*places[i], 64).crop)
        assert all(not np.array_equal(drawn[i], drawn[j]) for j in range(i))


def test_training_windows_are_the_papers_2048():
    """Random 224 x 224 patches of 256 x 256 and their reflections: "a factor of 2048" (4.1)."""
    seen = set()
    for step in range(200):
        seen.update(training_windows(draw(0, 0, step, 256), 256, 224, AugmentConfig()))
    assert seen == {Window(y, x, flip) for y in range(32) for x in range(32) for flip in (False, True)}


def test_switches_change_nothing_else():
    draws = draw(0, 0, 0, 100)
    both = training_windows(draws, 110, 96, AugmentConfig())
    no_flip = training_windows(draws, 110, 96, AugmentConfig(flip=False))
    no_crop = training_windows(draws, 110, 96, AugmentConfig(crop=False))
    assert [(w.y, w.x) for w in both] == [(w.y, w.x) for w in no_flip]
    assert [w.flip for w in both] == [w.flip for w in no_crop]
    assert {w.flip for w in no_flip} == {False}
    assert {(w.y, w.x) for w in no_crop} == {(7, 7)}


def test_a_crop_as_large_as_the_image():
    ones = Draws(np.full((4, 2), 0.999999), np.zeros(4), np.zeros((4, 3)))
    assert {(w.y, w.x) for w in training_windows(ones, 96, 96, AugmentConfig())} == {(0, 0)}


def test_ten_views():
    """Four corners and the centre, and their reflections (4.1)."""
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    assert view_windows("ten", 256, 224) == [Window(y, x, f) for f in (False, True) for y, x in corners]
    assert view_windows("center", 256, 224) == [Window(16, 16, False)]


def test_inclusive_offsets_make_2178():
    """The released code draws from 33 offsets in each direction."""
    seen = set()
    for step in range(200):
        seen.update(training_windows(draw(0, 0, step, 256), 256, 224, AugmentConfig(inclusive_offsets=True)))
    assert seen == {Window(y, x, flip) for y in range(33) for x in range(33) for flip in (False, True)}


def test_images_in_a_row_can_share_a_draw():
    draws = draw(0, 0, 0, 100)
    alone = training_windows(draws, 256, 224, AugmentConfig())
    shared = training_windows(draws, 256, 224, AugmentConfig(shared_by=32))
    assert shared == [alone[i // 32 * 32] for i in range(100)]
    assert len(set(shared)) == 4
