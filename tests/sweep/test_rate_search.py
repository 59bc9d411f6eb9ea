"""The choice of a learning rate by trials, against simulated learning curves whose best rate is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexlab.config import RACE_ERRORS
from alexlab.report.wording import rate_sentences
from alexlab.runs.identity import run_id
from alexlab.runs.record import RECORD_VERSION
from alexlab.study.rates import read_trials
from alexlab.sweep.rate_search import (
    Choice,
    Search,
    Trial,
    TrialResult,
    extending_search,
    grid_search,
    race_limits,
    replay,
)
from alexlab.sweep.study_plan import Study, document, make_study, register
from support.settings import composer

SEEDS = [1000, 1001]
CAP = 150.0


class Curves:
    """A made-up net: its error falls as .9 exp(-t / tau), with tau smallest at `best`; it diverges from `wild` on."""

    def __init__(self, best: float, fastest: float = 8.0, wild: float = math.inf, sd: float = 0.0, width: float = 0.5):
        self.best, self.fastest, self.wild, self.sd, self.width = best, fastest, wild, sd, width
        self.epochs, self.trials, self.first_seed = 0.0, list[Trial](), 0

    def time(self, lr: float, seed: int) -> float:
        """Epochs to 25 %, were nothing stopped."""
        noise = np.random.default_rng([self.first_seed + seed, int(lr * 1e9)]).normal(0, self.sd)
        return self.fastest * math.exp(self.width * math.log(lr / self.best) ** 2 + noise)

    def errors(self, lr: float, seed: int, epochs: np.ndarray) -> np.ndarray:
        return 0.9 * np.exp(-epochs * math.log(0.9 / 0.25) / self.time(lr, seed))

    def look(self, trial: Trial) -> TrialResult:
        if trial.lr >= self.wild:
            return TrialResult(math.inf, "diverged")
        times = [math.log(0.9 / e) / math.log(0.9 / 0.25) * self.time(trial.lr, trial.seed) for e in RACE_ERRORS]
        lost = [limit for time, limit in zip(times, trial.race_epochs, strict=False) if time > limit]
        total = self.time(trial.lr, trial.seed)
        ends = min(total, CAP, *lost)
        if trial not in self.trials:
            self.trials.append(trial)
            self.epochs += ends
        return TrialResult(math.log(total) if ends == total else math.inf, reached=tuple(times))


def run(search: Callable[[], Search], look: Callable[[Trial], TrialResult | None]) -> tuple[list[Trial], Choice | None]:
    rounds, choice = replay(search(), look)
    return [trial for round_ in rounds for trial in round_], choice


def extend(start: float = 0.0005) -> Callable[[], Search]:
    return lambda: extending_search(start, SEEDS)


@pytest.mark.parametrize("best", [0.0001, 0.0005, 0.0021, 0.0031, 0.016, 0.11])
def test_without_noise_it_is_the_best_of_a_grid_of_the_root_of_2(best: float):
    curves = Curves(best)
    trials, choice = run(extend(), curves.look)
    grid = [0.0005 * 2 ** (step / 2) for step in range(-30, 30)]
    assert choice is not None
    assert choice.lr is not None
    assert choice.warning is None
    assert choice.lr == pytest.approx(min(grid, key=lambda lr: curves.time(lr, 1000)), rel=1e-5)
    rates = sorted({trial.lr for trial in trials})
    assert choice.lr is not None
    assert rates[0] < choice.lr < rates[-1]
    coarse = [trial.lr for trial in trials if math.log2(trial.lr / 0.0005) % 1 in (0, pytest.approx(1, abs=1e-4))]
    assert max(coarse) >= 8 * 0.99 * min(coarse, key=lambda lr: curves.time(lr, 1000))  # three factors of 2 past it


def test_the_order_of_trials():
    """By the rule, written out: upwards from .0005, three past the best, then around it, then on the other seed."""
    trials, choice = run(extend(), Curves(0.002, width=1.0).look)
    first = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.00141421, 0.00282843]
    again = [0.00141421, 0.002, 0.00282843]
    expected = [(lr, 1000) for lr in first] + [(lr, 1001) for lr in again]
    assert [(trial.lr, trial.seed) for trial in trials] == expected
    assert trials[0].race_epochs == ()
    assert choice == Choice(0.002)


def test_the_best_on_both_seeds_wins_against_the_best_on_one():
    """On seed 1000 the middle one of three is best by a hair, on seed 1001 the lower one by much."""
    times = {1000: {0.002: 8.0, 0.00141421: 8.1, 0.00282843: 8.2}, 1001: {0.002: 9.0, 0.00141421: 7.0, 0.00282843: 9.0}}

    def look(trial: Trial) -> TrialResult:
        time = times[trial.seed].get(trial.lr, 20.0)
        return TrialResult(math.log(time), reached=(1.0, 2.0, 3.0, 4.0, 5.0))

    _, choice = run(extend(), look)
    means = {lr: math.log(times[1000][lr]) + math.log(times[1001][lr]) for lr in times[1000]}
    assert choice == Choice(min(means, key=lambda lr: means[lr]))


def test_divergence_ends_the_way_up():
    curves = Curves(0.004, wild=0.008)
    trials, choice = run(extend(), curves.look)
    assert max(trial.lr for trial in trials) == 0.008
    assert choice is not None
    assert choice.lr is not None
    assert choice.lr < 0.008


def test_where_the_first_rate_diverges_it_goes_down():
    _, choice = run(extend(1.0), Curves(0.01, wild=0.1).look)
    assert choice is not None
    assert choice.lr == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("too_low", [0.0006, 0.005])
def test_a_rate_too_low_to_learn_does_not_end_the_way_up(too_low: float):
    """The best rate is 0.01; up to `too_low`, training stays at the loss of guessing."""
    curves = Curves(0.01)

    def look(trial: Trial) -> TrialResult:
        return TrialResult(math.inf, "does not learn") if trial.lr <= too_low else curves.look(trial)

    trials, choice = run(extend(), look)
    assert choice is not None
    assert choice.lr == pytest.approx(0.01, rel=0.2)
    assert min(trial.lr for trial in trials) == 0.0005


def test_a_rate_too_high_to_learn_ends_the_way_up():
    """As ReLUs that are all dead; from 4 on, training diverges."""
    curves = Curves(0.01, wild=4)

    def look(trial: Trial) -> TrialResult:
        return TrialResult(math.inf, "does not learn") if 0.03 < trial.lr < 4 else curves.look(trial)

    for start, highest in ((0.0005, 0.032), (0.5, 4.0), (2.0, 4.0)):
        trials, choice = run(extend(start), look)
        assert choice is not None
        assert choice.lr == pytest.approx(0.01, rel=0.2)
        assert max(trial.lr for trial in trials) == highest


def test_rates_that_never_get_there_are_tried_upwards_until_one_does():
    curves = Curves(0.03, fastest=100.0, width=0.5)
    trials, choice = run(extend(), curves.look)
    assert choice is not None
    assert choice.lr == pytest.approx(0.03, rel=0.2)
    assert not any(trial.race_epochs for trial in trials if trial.lr < 0.008)  # nothing yet to be raced against


def test_where_no_rate_gets_there_there_is_no_choice():
    trials, choice = run(extend(), lambda trial: TrialResult(math.inf))
    assert len(trials) == 12
    assert choice is not None
    assert choice.lr is None
    assert "no rate from 0.0005 to 1.024 succeeds" in (choice.warning or "")


def test_a_race_is_against_1_3_times_the_best_trial_so_far():
    slow, fast = (
        TrialResult(3.0, reached=(5.0, 6.0, 7.0, 8.0, 9.0)),
        TrialResult(2.0, reached=(2.0, 3.0, 4.0, 5.0, 6.0)),
    )
    assert race_limits([]) == ()
    assert race_limits([TrialResult(math.inf, reached=(1.0,) * 5)]) == ()
    assert race_limits([slow, fast, slow]) == pytest.approx([2.6, 3.9, 5.2, 6.5, 7.8])


def test_racing_saves_epochs_and_changes_no_choice():
    """Against the same search without races, over many noisy nets."""
    raced_epochs, full_epochs, same = 0.0, 0.0, 0
    for number in range(100):
        random = np.random.default_rng(number)
        best, fastest = math.exp(random.uniform(math.log(0.001), math.log(0.05))), random.uniform(5, 40)
        raced, full = (Curves(best, fastest, sd=0.05) for _ in range(2))
        _, one = run(extend(), raced.look)
        _, two = run(extend(), lambda trial, net=full: net.look(Trial(trial.lr, trial.seed)))
        raced_epochs, full_epochs = raced_epochs + raced.epochs, full_epochs + full.epochs
        same += one == two
    assert raced_epochs < 0.8 * full_epochs
    assert same == 100


def test_the_chosen_rate_is_nearly_the_fastest():
    """Noise of 10 % between runs: the expected time at the chosen rate is within 10 % of the best, nearly always."""
    losses = []
    for number in range(200):
        random = np.random.default_rng(number)
        curves = Curves(math.exp(random.uniform(math.log(0.001), math.log(0.05))), sd=0.1)
        curves.first_seed = 10_000 * number
        _, choice = run(extend(), curves.look)
        assert choice is not None
        assert choice.lr is not None
        losses.append(math.exp(curves.width * math.log(choice.lr / curves.best) ** 2))
    assert np.quantile(losses, 0.95) < 1.25
    assert np.median(losses) < 1.06


@pytest.mark.parametrize("sd", [0.0, 0.1])
def test_stopped_anywhere_the_same_trials_follow(sd: float):
    """With the results of the first n trials alone, the next round is that of the whole search."""
    curves = Curves(0.004, sd=sd)
    whole, _ = replay(extend()(), curves.look)
    trials = [trial for round_ in whole for trial in round_]
    for count in range(len(trials)):
        known = set(trials[:count])
        rounds, choice = replay(extend()(), lambda trial, k=known: curves.look(trial) if trial in k else None)
        assert choice is None
        assert rounds == whole[: len(rounds)]
        assert set(trials[:count]) <= {trial for round_ in rounds for trial in round_}


def test_a_grid_takes_the_smallest_mean_and_warns_of_its_edge():
    errors = {
        (0.5, 1000): 0.3,
        (0.5, 1001): 0.5,
        (1.0, 1000): 0.35,
        (1.0, 1001): 0.36,
        (2.0, 1000): 0.9,
        (2.0, 1001): 0.2,
    }
    [round_], choice = replay(grid_search([0.5, 1.0, 2.0], SEEDS), lambda t: TrialResult(errors[t.lr, t.seed]))
    assert [(trial.lr, trial.seed) for trial in round_] == list(errors)
    assert choice == Choice(1.0)
    errors[2.0, 1000] = 0.1
    _, choice = replay(grid_search([0.5, 1.0, 2.0], SEEDS), lambda t: TrialResult(errors[t.lr, t.seed]))
    assert choice == Choice(2.0, "the best rate, 2, is at the edge of those tried, 0.5 to 2; set study.rates")
    _, choice = replay(grid_search([0.5, 1.0, 2.0], SEEDS), lambda t: TrialResult(math.inf, "diverged"))
    assert choice is not None
    assert choice.lr is None


# Through studies and records

LINE = ["study=figure1", "data=shapes", "study.claims=[paper/relu_speed]", "study.rates=[4]"]  # from .004 upwards


def write_trial(folder: Path, name: str, curves: Curves, trial: Trial) -> None:
    """The record of a trial, as training leaves it, by a made-up learning curve."""
    path = folder / name
    path.mkdir(parents=True)
    status = {"run_id": name, "version": RECORD_VERSION, "state": "DONE", "attempt": 1, "labels": {}}
    result = curves.look(trial)
    if result.has_diverged:
        status |= {"state": "FAILED", "failure": "diverged"}
    total = curves.time(trial.lr, trial.seed)
    lost = [limit for t, limit in zip(result.reached, trial.race_epochs, strict=False) if t > limit]
    last = math.ceil(min(total, CAP, *lost))
    epochs = np.arange(1, 4 * last + 1) / 4
    rows = ["epoch,step,train_top1_error"]
    for epoch, error in zip(epochs, curves.errors(trial.lr, trial.seed, epochs), strict=True):
        rows.append(f"{epoch},{int(epoch * 100)},{error}")
    (path / "train_error.csv").write_text("\n".join(rows) + "\n")
    (path / "status.json").write_text(json.dumps(status))


NETS = {
    "none": Curves(0.0029, fastest=8.0, wild=0.03),
    "model.activation=tanh": Curves(0.007, fastest=46.0),
}


def next_round(folder: Path) -> Study:
    return make_study(composer(), [*LINE, f"paths.runs={folder}"])


def do_round(folder: Path, study: Study, most: int = 99) -> int:
    """Write the records of a round's trials that are missing; how many there were."""
    done = 0
    for rate in study.rates:
        for trial in rate.rounds[-1]:
            if rate.choice is None and not (folder / rate.runs[trial]).exists() and done < most:
                write_trial(folder, rate.runs[trial], NETS[rate.name], trial)
                done += 1
    return done


def test_figure_1_chooses_each_arms_rate_by_its_own_metric_and_then_runs_as_many_of_each(tmp_path: Path):
    rounds = 0
    while (study := next_round(tmp_path)).round:
        rounds += 1
        assert study.rate.name == "choose"
        assert {job.config.seed for _, job in study.jobs()} <= {1000, 1001}
        for rate in study.rates:  # the ids are those of the configurations that the launcher composes
            composed = {run_id(composer().job(list(job.overrides)).config) for _, job in study.jobs()}
            assert rate.choice is not None or {rate.runs[trial] for trial in rate.rounds[-1]} <= composed
        register(document(study), tmp_path / "studies")
        assert do_round(tmp_path, study) > 0
        assert rounds < 30
    assert study.rate.name == "own"
    rates = {arm.name: {job.config.optim.lr for _, job in arm.jobs()} for arm in study.arms}
    grid = [0.004 * 2 ** (step / 2) for step in range(-20, 20)]
    for name, curves in NETS.items():
        best = min(grid, key=lambda lr, c=curves: c.time(lr, 1000))
        assert list(rates[name]) == pytest.approx([best], rel=1e-5)
    assert {arm.seeds for arm in study.arms} == {(0, 1, 2, 3, 4, 5)}
    for _, job in study.jobs():
        assert job.config.trainer.race_epochs == []
        assert job.config.trainer.stop_at_train_error == 0.25
    plan = document(study)
    assert plan["rate"] == "own"
    assert [one["warning"] for one in plan["rates"]] == [None] * 2
    said = rate_sentences(read_trials(plan, {}))[-1].partition("no verdict: ")[2]
    common = {float(lr): float(ratio) for lr, _, ratio in (one.partition(": ") for one in said.split(", "))}
    assert 0.004 in common
    assert 0.016 not in common  # where ReLUs lost the race
    for lr, ratio in common.items():
        times = [NETS[name].time(lr, 1000) for name in ("model.activation=tanh", "none")]
        assert ratio == pytest.approx(times[0] / times[1], rel=0.02)
    [choosing] = (tmp_path / "studies").glob("*choose*.json")
    assert len(json.loads(choosing.read_text())["looks"]) == 1  # rounds are no looks
    assert register(plan, tmp_path / "studies") == []
    assert "data.name" in plan["departures"]
    assert not {"trainer.max_epochs", "trainer.stop_at_train_error"} & set(plan["departures"])


@pytest.mark.long
@pytest.mark.slow
def test_killed_after_any_trial_the_same_rounds_follow(tmp_path: Path):
    for name, most in (("whole", 99), ("killed", 1)):
        while (study := next_round(tmp_path / name)).round:
            do_round(tmp_path / name, study, most)
    whole, killed = (document(next_round(tmp_path / name)) for name in ("whole", "killed"))
    assert whole["rates"] == killed["rates"]
    assert whole["arms"] == killed["arms"]
    assert {p.name for p in (tmp_path / "whole").iterdir()} == {p.name for p in (tmp_path / "killed").iterdir()}
