"""A sweep's intervals, main effects and planned seeds, against SciPy, least squares and simulated sweeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from alexlab.compose import to_yaml
from alexlab.runs.record import Record
from alexlab.study.power import upper_sd
from alexlab.study.records import RunData
from alexlab.study.samples import Measured
from alexlab.study.spreads import Sample, shrink
from alexlab.study.statistics import contrast, effect
from alexlab.study.sweep_statistics import Sensitivity, SweepArm, _sensitivity, analyse, compare
from support.settings import composer

IMAGES = 400


def made_run(folder: Path, setting: str, seed: int, wrong: np.ndarray, *overrides: str, store: str = "a") -> RunData:
    """A finished run with these answers, as bool [images]."""
    record = Record(folder, f"{setting}-{seed}".replace("=", "").replace(" ", ""))
    record.path.mkdir(parents=True)
    top5 = np.full((len(wrong), 5), 5)
    top5[:, 0] = wrong
    np.savez(record.file("predictions.npz"), labels=np.zeros(len(wrong), int), ten_top5=top5, center_top5=top5)
    errors = {"top1_error": float(wrong.mean()), "top5_error": float(wrong.mean())}
    result = {"seed": seed, "test": {"images": len(wrong), "ten": errors, "center": errors}, "data": {"store": store}}
    record.file("config.yaml").write_text(to_yaml(composer().job([*overrides, f"seed={seed}"]).config))
    run = RunData(record, {"state": "DONE"})
    run.__dict__["result"] = result  # a cached property
    return run


def answers(rng: np.random.Generator, errors: list[float]) -> list[np.ndarray]:
    """Answers with exactly these numbers of errors, rounded to whole images."""
    return [rng.permutation(np.arange(IMAGES) < round(IMAGES * error)) for error in errors]


def made_arm(folder: Path, name: str, wrongs: list[np.ndarray], first: int = 0, *overrides: str) -> SweepArm:
    runs = [made_run(folder, name, first + number, wrong, *overrides) for number, wrong in enumerate(wrongs)]
    return SweepArm({"model.lrn": name}, runs)


def test_two_settings_have_welchs_interval(tmp_path: Path):
    rng = np.random.default_rng(0)
    errors = [0.20, 0.23, 0.21, 0.26], [0.30, 0.22, 0.35, 0.27, 0.25]
    wrongs = [answers(rng, list(own)) for own in errors]
    made = [made_arm(tmp_path, name, own, 10 * i) for i, (name, own) in enumerate(zip("ab", wrongs, strict=True))]
    found = analyse(made)
    (nothing, told) = found.differences
    assert nothing is None
    assert told is not None
    values = [np.array([wrong.mean() for wrong in own], dtype=np.float64) for own in wrongs]
    test: Any = stats.ttest_ind(values[1], values[0], equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert told.difference == pytest.approx((low + high) / 2, abs=1e-12)
    assert told.fixed == pytest.approx((high - low) / 2, rel=1e-9)
    # For new images: the variance over images of the difference of shares, less what single runs add to it.
    shares = [np.stack(own).mean(0) for own in wrongs]
    noise = sum(np.stack(own).var(axis=0, ddof=1).mean() / len(own) for own in wrongs)
    images = max(0.0, ((shares[1] - shares[0]).var(ddof=1) - noise) / IMAGES)
    error = sum(own.var(ddof=1) / len(own) for own in values)
    df = test.df * ((error + images) / error) ** 2
    assert told.new == pytest.approx(np.sqrt(error + images) * stats.t.ppf(0.975, df), rel=1e-9)
    assert told.decisive == told.new  # of one difference
    assert found.main_effects == []


def test_a_larger_table_widens_the_interval_that_holds_for_all_its_rows(tmp_path: Path):
    rng = np.random.default_rng(0)
    wrongs = [answers(rng, own) for own in ([0.20, 0.23, 0.21, 0.26], [0.30, 0.22, 0.35, 0.27, 0.25])]
    made = [made_arm(tmp_path, name, own, 10 * i) for i, (name, own) in enumerate(zip("ab", wrongs, strict=True))]
    (_, alone), (_, one_of_five) = analyse(made).differences, analyse(made, least_family=5).differences
    assert alone is not None
    assert one_of_five is not None
    assert one_of_five.fixed == alone.fixed
    ratio = stats.t.ppf(1 - 0.025 / 5, alone.df) / stats.t.ppf(0.975, alone.df)
    assert one_of_five.study == pytest.approx(ratio * alone.study)


def test_seeds_that_settings_share_count_where_their_nets_start_alike(tmp_path: Path):
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 0.03, 8)
    base, own = (answers(rng, list(centre + luck + rng.normal(0, 0.003, 8))) for centre in (0.2, 0.3))
    alike = [made_arm(tmp_path / "alike", name, wrongs) for name, wrongs in (("a", base), ("b", own))]
    other = [alike[0], made_arm(tmp_path / "other", "c", own, 0, "model.width=0.5")]
    (_, paired), (_, apart) = analyse(alike).differences, analyse(other).differences
    assert paired is not None
    assert apart is not None
    values = [np.array([wrong.mean() for wrong in wrongs]) for wrongs in (base, own)]
    assert paired.difference == pytest.approx(values[1].mean() - values[0].mean(), abs=1e-12)
    assert paired.correlation == pytest.approx(np.corrcoef(values[0], values[1])[0, 1], rel=1e-9)
    assert paired.fixed < 0.3 * apart.fixed
    low, high = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    assert apart.correlation is None
    assert apart.fixed == pytest.approx((high - low) / 2, rel=1e-9)


def grid(folder: Path, wrongs: Mapping[tuple[str, ...], list[np.ndarray]]) -> list[SweepArm]:
    made = []
    for number, ((lrn, overlap), own) in enumerate(wrongs.items()):
        runs = [made_run(folder, f"{lrn}{overlap}", 10 * number + place, one) for place, one in enumerate(own)]
        made.append(SweepArm({"model.lrn": lrn, "pool.overlap": overlap}, runs))
    return made


def test_main_effects_are_those_of_analysis_of_variance(tmp_path: Path):
    """Cells of one variance: the pooled one, with 4 (3 - 1) degrees of freedom, as in least squares on signs."""
    rng = np.random.default_rng(2)
    cells: list[tuple[str, ...]] = [*product(("true", "false"), repeat=2)]
    centres = dict(zip(cells, (0.2, 0.25, 0.3, 0.38), strict=True))
    wrongs = {cell: answers(rng, [centres[cell] + off for off in (-0.02, 0.0, 0.02)]) for cell in cells}
    found = analyse(grid(tmp_path, wrongs)).main_effects
    assert [(one.factor, one.value, one.base) for one in found] == [
        ("model.lrn", "false", "true"),
        ("pool.overlap", "false", "true"),
    ]
    signs = [[1 if value == "false" else -1 for value in cell] for cell in cells for _ in range(3)]
    design = np.column_stack([np.ones(12), np.array(signs) / 2, np.prod(signs, axis=1) / 2])
    values = np.array([wrong.mean() for cell in cells for wrong in wrongs[cell]])
    estimates, rest, *_ = np.linalg.lstsq(design, values, rcond=None)
    errors = np.sqrt(rest[0] / 8 * np.linalg.inv(design.T @ design).diagonal())
    for one, estimate, error in zip(found, estimates[1:3], errors[1:3], strict=True):
        assert one.effect.difference == pytest.approx(estimate, abs=1e-12)
        assert one.effect.fixed == pytest.approx(error * stats.t.ppf(0.975, 8), rel=1e-9)
        assert one.effect.study == pytest.approx(error * stats.t.ppf(1 - 0.025 / 2, 8), rel=1e-9)  # of two effects


def test_a_contrasts_interval_by_welch_and_satterthwaite():
    rng = np.random.default_rng(3)
    samples = [Sample(rng.normal(0.2, sd, count)) for sd, count in ((0.01, 3), (0.03, 5), (0.02, 4))]
    weights = (1.0, -0.5, -0.5)
    found = contrast(samples, [*shrink(dict(zip("abc", samples, strict=True))).values()], weights, 1)
    parts = [w**2 * one.values.var(ddof=1) / len(one.values) for w, one in zip(weights, samples, strict=True)]
    df = sum(parts) ** 2 / sum(part**2 / (len(one.values) - 1) for part, one in zip(parts, samples, strict=True))
    assert found.welch
    assert found.difference == pytest.approx(sum(w * s.values.mean() for w, s in zip(weights, samples, strict=True)))
    assert found.fixed == pytest.approx(np.sqrt(sum(parts)) * stats.t.ppf(0.975, df), rel=1e-9)


def test_a_grid_with_a_hole_has_no_main_effects(tmp_path: Path):
    rng = np.random.default_rng(4)
    cells: list[tuple[str, ...]] = [*product(("true", "false"), repeat=2)]
    wrongs = {cell: answers(rng, [0.2, 0.22, 0.25]) for cell in cells}
    assert len(analyse(grid(tmp_path / "full", wrongs)).main_effects) == 2
    assert analyse(grid(tmp_path / "missing", {cell: wrongs[cell] for cell in cells[:3]})).main_effects == []
    assert analyse(grid(tmp_path / "failed", {**wrongs, cells[3]: []})).main_effects == []


def test_one_seed_has_no_interval_over_seeds(tmp_path: Path):
    rng = np.random.default_rng(5)
    made = [made_arm(tmp_path, name, answers(rng, [0.2])) for name in "ab"]
    found = analyse(made)
    assert found.differences == [None, None]
    assert found.sensitivity is None


def test_other_test_images_are_not_compared(tmp_path: Path):
    rng = np.random.default_rng(6)
    base = made_arm(tmp_path, "a", answers(rng, [0.2, 0.21, 0.25]))
    wrongs = answers(rng, [0.3, 0.31, 0.35])
    runs = [made_run(tmp_path, "b", 10 + place, wrong, store="b") for place, wrong in enumerate(wrongs)]
    assert analyse([base, SweepArm({"model.lrn": "b"}, runs)]).differences == [None, None]


@pytest.mark.parametrize("image_sd", [0.0, 0.001])
def test_the_planned_seeds_tell_the_target(tmp_path: Path, image_sd: float):
    """As many seeds as it says find a difference of the target's size in 9 of 10 simulated sweeps, and far fewer not.

    By Welch's interval with the images' part added, as the table has it, at the upper estimate of the sd.
    """
    rng = np.random.default_rng(7)
    runs = [RunData(Record(tmp_path, f"run{number}"), {}) for number in range(4)]
    measured = [Measured(runs, Sample(rng.normal(0.2, 0.01, 4)), None) for _ in range(2)]
    pair = [one.sample for one in measured]
    spreads = shrink({"a": pair[0], "b": pair[1]})
    told = effect(pair[1], pair[0], (spreads["b"], spreads["a"]), 1)
    told = dataclasses.replace(told, image_variance=image_sd**2)
    found = _sensitivity([told], measured, 1)
    assert found is not None
    assert found.seeds_needed is not None
    assert found.target <= told.decisive / 2
    sd = upper_sd(one.sample.values for one in measured)
    assert sd is not None
    squares = sum(one.variance for one in pair) / 2
    assert sd == pytest.approx(np.sqrt(squares * 6 / stats.chi2.ppf(0.2, 6)))

    def share(seeds: int) -> float:
        values = rng.normal(0, sd, (4000, 2, seeds))
        difference = found.target + values[:, 1].mean(1) - values[:, 0].mean(1) + rng.normal(0, image_sd, 4000)
        parts = values.var(axis=2, ddof=1) / seeds
        error = parts.sum(1)
        df = error**2 / (parts**2 / (seeds - 1)).sum(1) * ((error + image_sd**2) / error) ** 2
        return float((difference > np.sqrt(error + image_sd**2) * stats.t.ppf(0.975, df)).mean())

    assert share(found.seeds_needed) == pytest.approx(0.9, abs=0.025)
    assert share(found.seeds_needed // 2) < 0.75


def test_where_the_test_images_are_the_limit_it_says_so():
    line = str(Sensitivity((3, 3), 200, (0.042, 0.042), 0.02, 11, 0.01))
    assert line == (
        "3 seeds, 200 test images: differences under 4.2 points cannot be distinguished from chance; about 11 seeds "
        "would detect 2 (power 0.9)."
    )
    line = str(Sensitivity((2, 3), 200, (0.042, 0.061), 0.02, None, 0.035))
    assert line.startswith("2 to 3 seeds, 200 test images: differences under 4.2 to 6.1 points")
    assert "more seeds alone cannot detect less than 3.5, more test images can" in line


def test_two_sweeps_are_compared_arm_by_arm(tmp_path: Path):
    rng = np.random.default_rng(8)
    values = [0.20, 0.22, 0.27], [0.30, 0.36, 0.33]
    wrongs = [answers(rng, list(own)) for own in values]
    first, other = (made_arm(tmp_path / str(i), "a", own, 10 * i) for i, own in enumerate(wrongs))
    shared, alone = (made_arm(tmp_path, name, answers(rng, [0.2, 0.21, 0.23])) for name in ("b", "c"))
    found = compare([first, shared], [shared, other, alone])
    one, same = found.cells
    assert one.effect is not None
    low, high = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    assert one.effect.difference == pytest.approx((low + high) / 2, abs=1e-12)
    assert one.effect.fixed == pytest.approx((high - low) / 2, rel=1e-9)
    assert one.errors == ([0.2, 0.22, 0.27], [0.3, 0.36, 0.33])
    assert same.shares_runs
    assert same.effect is None
    assert found.alone == ([], ["model.lrn=c"])


def test_two_sweeps_of_one_seed_are_compared_on_their_test_images(tmp_path: Path):
    rng = np.random.default_rng(9)
    wrongs = [answers(rng, [0.2]), answers(rng, [0.3])]
    first, other = (
        made_arm(tmp_path / str(i), "a", own, i, f"trainer.max_epochs={i + 2}") for i, own in enumerate(wrongs)
    )
    found = compare([first], [other])
    [one] = found.cells
    each = wrongs[1][0].astype(float) - wrongs[0][0]
    assert one.effect is None
    assert one.images == pytest.approx((0.1, 1.959964 * each.std(ddof=1) / np.sqrt(IMAGES)))
    assert found.differing == {"trainer.max_epochs": (2, 3)}
