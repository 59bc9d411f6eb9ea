"""A study's arms and seeds, their order, what is rejected, what is registered, and each arm's own learning rate."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from alexlab.compose import Composer
from alexlab.config import ConfigError
from alexlab.runs.identity import run_id
from alexlab.runs.record import RECORD_VERSION, Record
from alexlab.study.plans import read_looks
from alexlab.sweep import study_plan
from alexlab.sweep.plan import make_plan
from alexlab.sweep.study_plan import document, is_study, make_study, register
from support.settings import TINY, Typed, composer
from support.studies import made_study

CHECK_ONCE = Composer.check_once  # which tests are spared otherwise


def test_arms_are_those_of_the_claims_and_seeds_are_outermost():
    study = make_study(composer(), ["study=lrn", "study.seeds=2"])
    assert [arm.name for arm in study.arms] == ["none", "no_lrn", "lrn_scale_only"]
    order = [(name, job.config.seed) for name, job in study.jobs()]
    block = ["none", "no_lrn", "lrn_scale_only"]
    assert order == [
        *[(name, 0) for name in block],
        *[(name, 1) for name in block],
    ]  # as many seeds of the base, for two other arms: round(sqrt(2)) = 1


def test_each_job_is_what_its_own_line_composes():
    """A seed is set on a copy of the arm's configuration; composing it must give the same run."""
    for line in (["study=pooling", "study.seeds=1"], ["study=pooling", "study.seeds=1", "data.seed=3"]):
        for _, job in make_study(composer(), line).jobs():
            composed = composer().job(list(job.overrides)).config
            assert composed == job.config
            assert run_id(composed) == run_id(job.config)


def test_a_missing_store_is_looked_for_once(monkeypatch: pytest.MonkeyPatch):
    """Not in each of the many arms, which takes seconds."""
    line, composed = ["study=paper", "data=imagenet2012"], []
    one = composer()
    real = one.job
    monkeypatch.setattr(one, "job", lambda *args, **more: (composed.append(args), real(*args, **more))[1])
    with pytest.raises(ConfigError, match=r"data\.name=imagenet2012: has no store at .*; make it: python src/prepare"):
        make_study(one, line)
    assert len(composed) == 1


def test_a_claim_whose_requirements_are_not_met_brings_no_arms():
    names = [arm.name for arm in make_study(composer(), ["study=paper", "study.seeds=1"]).arms]
    assert "cifar_lrn" not in names
    assert "no_dropout" in names  # of another claim than the one that requires the plateau rule
    assert len(names) == len(set(names))
    cifar = make_study(composer(), ["study=cifar_lrn", "data=shapes"])
    assert document(cifar)["unmet"] == {}
    assert [arm.name for arm in cifar.arms] == ["none", "cifar_lrn"]
    assert "data.name" in document(cifar)["departures"]  # so no verdict is given on the drawn images
    with pytest.raises(
        ConfigError, match=r"none of its claims can be tested here: paper/lrn_cifar requires model\.lrn"
    ):
        make_study(composer(), ["study=lrn", "study.claims=[paper/lrn_cifar]"])


def test_figure_1_is_of_its_own_net_alone():
    """Without regularisation, as the figure says; so no other study trains its tanh arm."""
    with pytest.raises(ConfigError, match=r"paper/relu_speed requires optim\.weight_decay=0 .*augment\.crop=false"):
        make_study(composer(), ["study=figure1", "data=shapes", "model=cifar_13pct"], stored=False)
    for recipe in ("imagenet2012", "demo"):
        study = make_study(composer(), ["study=paper", f"recipe={recipe}", "data.num_classes=10"], stored=False)
        assert not any("tanh" in arm.name for arm in study.arms)


def test_an_arm_that_the_net_cannot_have_is_named_with_the_studies_that_fit():
    with pytest.raises(ConfigError) as error:
        make_study(composer(), ["study=paper", "recipe=cifar10", "data=shapes"], stored=False)
    message = str(error.value)
    assert message.startswith("study=paper: its arm ablation=half_net does not fit recipe=cifar10 model=cifar_13pct; ")
    assert "studies made for recipe=cifar10: cifar_lrn, figure1 (model.kernel_sizes=" in message
    assert "\n" not in message


def test_studies_of_other_nets_have_their_recipe():
    study = make_study(composer(), ["study=figure1", "data=shapes"], stored=False)
    assert (study.choices["recipe"], study.choices["model"]) == ("cifar10", "cifar_fig1")
    assert make_study(composer(), ["study=source2012"]).choices["protocol"] == "source2012"
    aa = make_study(composer(), ["study=aa"])
    assert [(arm.name, arm.seeds) for arm in aa.arms] == [("none", (*range(10),)), ("none again", (*range(10, 20),))]
    assert [arm["overrides"] for arm in document(aa)["arms"]] == [[], []]
    pilot = make_study(composer(), ["study=pilot"])
    assert {job.config.trainer.max_epochs for _, job in pilot.jobs()} == {3}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["study=lrn", "seed=1"], "seed=1: a study sets the seeds; use study.seeds and study.first_seed"),
        (["study=lrn", "seed=1,2"], "seed=1,2: a study takes one value per key; run one command for each"),
        (["study=lrn", "recipe=demo,imagenette"], "recipe=demo,imagenette: a study takes one value per key"),
        (["study=lrn", "ablation=no_pca"], "ablation: the study's arms set it (ablation=no_lrn); remove it"),
        # The command line comes last, so that both arms would be without LRN, under two names.
        (["study=lrn", "model.lrn=false"], "model.lrn: the study's arms set it (ablation=no_lrn); remove it"),
        (["study=lrm"], "study=lrm: there is no study 'lrm'; did you mean 'lrn'?"),
        (["study=lrn", "study.claims=[paper/lnr]"], "study.claims: paper.yaml has no claim 'lnr'; did you mean 'lrn'?"),
        (["study=lrn", "study.seeds=0"], "study.seeds=0: must be at least 1"),
        (["study=lrn", "study.first_seed=999"], "study.first_seed=999: seeds from 1000 on choose rates"),
        (["study=lrn", "study.sedes=3"], "study.sedes=3: there is no key 'study.sedes'; did you mean 'study.seeds'?"),
        (
            ["study=lrn", "study.rate=choose", "study.rates=[3, 1, 0.3]"],
            "study.rates=[3, 1, 0.3]: from 0.3 to 1 is a factor of 3.33; add rates between them, at most a factor of 2",
        ),
        (["study=lrn", "claims=paper"], "claims=paper: there is no key 'claims'"),
    ],
)
def test_a_mistake_is_one_line(line: list[str], message: str):
    with pytest.raises(ConfigError) as error:
        make_plan(line)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "twice"),
    [
        (["study=lrn", "optim.lr=0.1", "optim.lr=0.2"], "optim.lr=0.1 optim.lr=0.2: optim.lr is"),
        (["study=lrn", "optim.lr=0.1", "+optim.lr=0.1"], "optim.lr=0.1 +optim.lr=0.1: optim.lr is"),
        (["study=lrn", "recipe=demo", "study=paper"], "study=lrn study=paper: study is"),
        # Before anything is composed, which would find no such images here.
        (["study=lrn", "recipe=demo", "recipe=cifar10"], "recipe=demo recipe=cifar10: recipe is"),
    ],
)
def test_what_is_set_twice_is_refused(line: list[str], twice: str, monkeypatch: pytest.MonkeyPatch):
    """A study takes one value per key, so there is no hint at `train -m`."""
    monkeypatch.setattr(Composer, "check_once", CHECK_ONCE)
    with pytest.raises(ConfigError) as caught:
        make_plan(line)
    assert str(caught.value) == f"{twice} set twice and only the last would count; remove one"


def test_arms_that_are_one_run_are_merged(tmp_path: Path):
    plan = make_plan(["study=paper", "study.claims=[paper/biases]", "study.seeds=1", f"paths.runs={tmp_path}"])
    assert plan.merged == [("biases_0", "none")]  # the demo's biases start at 0 already
    assert [run.varied for run in plan.runs] == ["none"]
    assert plan.num_jobs == 2


@pytest.mark.parametrize(
    ("claims", "others", "base"), [(["lrn"], 1, 2), (["lrn", "overlap"], 2, 2), (["conv3", "pca", "crops"], 3, 4)]
)
def test_the_base_has_the_rounded_root_of_the_other_arms_times_the_seeds(claims: list[str], others: int, base: int):
    line = ["study=lrn", f"study.claims=[{','.join(f'paper/{name}' for name in claims)}]", "study.seeds=2"]
    arms = make_study(composer(), line).arms
    assert (len(arms) - 1, len(arms[0].seeds)) == (others, base)


def test_departures_are_from_the_recipe_and_what_the_studys_file_sets():
    def departures(*line: str) -> list[str]:
        return make_study(composer(), ["study=lrn", *line]).departures

    assert departures() == []  # its file sets the schedule
    assert departures("trainer.compile=default") == []
    for line in ("optim.schedule=constant", "optim.drops=[0.5]", "optim.drop_factor=0.2", "data.holdout=3"):
        assert line.partition("=")[0] in departures(line)
    assert departures("trainer.precision=bf16-mixed", "trainer.accelerator=cpu") == ["trainer.precision"]


def test_nothing_ends_runs_early_where_the_claim_is_about_early_learning():
    study = make_study(composer(), ["study=lrn", "study.claims=[paper/biases,paper/lrn]", "study.seeds=1"])
    assert {arm.name: arm.job.config.trainer.chance_epochs for arm in study.arms} == {
        **{"none": None, "biases_0": None, "no_lrn": 2},
    }
    assert study.has_base
    assert not make_study(composer(), ["study=lrn", "study.claims=[paper/biases]"]).has_base


def test_is_study():
    assert is_study(["study=lrn"])
    assert not is_study(["study.seeds=3", "seed=1"])
    assert not is_study(["study=lrn", "study=none"])


def test_a_registered_plan_stays(tmp_path: Path):
    study = make_study(composer(), ["study=lrn", "study.seeds=1"])
    plan = document(study)
    assert register(plan, tmp_path) == []
    path = tmp_path / f"{study.id}.json"
    before = path.read_bytes()
    assert register(document(study), tmp_path) == []  # the same command again
    assert path.read_bytes() == before
    more = document(make_study(composer(), ["study=lrn", "study.seeds=2"]))
    assert more["id"] == plan["id"]
    [warning] = register(more, tmp_path)
    assert "look 2" in warning
    looks = read_looks(path)
    assert [look["arms"][0]["runs"].keys() for look in looks] == [{"0"}, {"0", "1"}]
    assert looks[0]["planned"] <= looks[1]["planned"]
    assert {"git_commit", "git_dirty"} <= looks[0].keys()
    other = document(make_study(composer(), ["study=lrn", "optim.lr=0.02"]))
    assert other["id"] != plan["id"]  # other runs: a study of its own


def test_of_two_commands_at_once_none_loses_the_others_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each reads the plan, adds its look and writes all of it: what was added in between would be gone."""
    plans = [document(make_study(composer(), ["study=lrn", f"study.seeds={seeds}"])) for seeds in (1, 2)]
    other = threading.Thread(target=register, args=(plans[1], tmp_path))
    write = study_plan.write_atomic

    def pause(path: Path, content: str) -> None:
        monkeypatch.setattr(study_plan, "write_atomic", write)
        other.start()
        other.join(1)  # it waits for this one
        write(path, content)

    monkeypatch.setattr(study_plan, "write_atomic", pause)
    register(plans[0], tmp_path)
    other.join()
    looks = read_looks(tmp_path / f"{plans[0]['id']}.json")
    assert [look["arms"] for look in looks] == [plan["arms"] for plan in plans]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 99, "looks": []}', '{"version": 1}'])
def test_a_corrupt_plan_is_one_line(tmp_path: Path, content: str):
    path = tmp_path / "lrn.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"lrn\.json: is ") as error:
        read_looks(path)
    assert "\n" not in str(error.value)


def test_each_arm_is_tried_at_each_rate_and_takes_the_best_of_its_own(tmp_path: Path):
    line = ["study=lrn", "study.claims=[paper/lrn]", f"paths.runs={tmp_path}"]
    chooses = make_study(composer(), [*line, "study.rate=choose"])
    assert [arm.overrides for arm in chooses.arms] == [
        *[(f"optim.lr={rate}",) for rate in ("0.005", "0.01", "0.02")],
        *[("ablation=no_lrn", f"optim.lr={rate}") for rate in ("0.005", "0.01", "0.02")],
    ]
    assert {seed for arm in chooses.arms for seed in arm.seeds} == {1000, 1001}  # none of those compared
    first = make_study(composer(), [*line, "study.rate=own"])
    assert first.rate.name == "choose"  # the trials come first
    assert first.id == chooses.id
    assert [run_id(job.config) for _, job in first.jobs()] == [run_id(job.config) for _, job in chooses.jobs()]
    errors = {"optim.lr=0.005": 0.5, "optim.lr=0.01": 0.3, "optim.lr=0.02": 0.4}
    no_lrn = {"no_lrn optim.lr=0.005": 0.2, "no_lrn optim.lr=0.01": 0.3, "no_lrn optim.lr=0.02": 0.1}
    made_study(tmp_path, [*line, "study.rate=choose"], {**errors, **no_lrn}, failed={"no_lrn optim.lr=0.02": 1})
    own = make_study(composer(), [*line, "study.rate=own"])
    rates = {arm.name: {job.config.optim.lr for _, job in arm.jobs()} for arm in own.arms}
    assert rates == {"none": {0.01}, "no_lrn": {0.005}}  # a rate at which a run failed is not chosen
    assert own.arms[0].seeds == tuple(range(5))
    plan = document(own)
    assert plan["rate"] == "own"
    warnings = {one["name"]: one["warning"] for one in plan["rates"]}
    assert warnings["none"] is None
    assert warnings["no_lrn"].startswith("the best rate, 0.005, is at the edge of those tried, 0.005 to 0.02")


def test_an_arm_without_any_rate_that_trains_is_left_out(tmp_path: Path):
    line = ["study=lrn", "study.claims=[paper/lrn]", f"paths.runs={tmp_path}"]
    failed = {f"no_lrn optim.lr={rate}": 2 for rate in ("0.005", "0.01", "0.02")}
    made_study(tmp_path, [*line, "study.rate=choose"], failed=failed)
    own = make_study(composer(), [*line, "study.rate=own"])
    assert [arm.name for arm in own.arms] == ["none"]
    assert "no rate from 0.005 to 0.02 succeeds" in document(own)["rates"][1]["warning"]


def test_trials_of_rates_take_a_stated_share_of_the_length(tmp_path: Path):
    study = make_study(composer(), ["study=cifar_lrn", "data=shapes", "study.rate=own", f"paths.runs={tmp_path}"])
    assert {job.config.trainer.max_epochs for _, job in study.jobs()} == {40}  # of 160
    assert {job.config.optim.lr for _, job in study.jobs()} == {0.0005, 0.001, 0.002}
    assert {job.config.seed for _, job in study.jobs()} == {1000, 1001}
    for _, job in study.jobs():
        composed = composer().job(list(job.overrides)).config
        assert composed == job.config


def test_figure_1_has_no_verdict_at_one_common_rate():
    with pytest.raises(ConfigError, match=r"paper/relu_speed requires study\.rate=own"):
        make_study(composer(), ["study=figure1", "data=shapes", "study.rate=protocol"])
    with pytest.raises(ConfigError, match=r"paper/relu_speed requires optim\.weight_decay=0"):
        make_study(composer(), ["study=figure1", "data=shapes", "model=cifar_13pct"])
    with pytest.raises(ConfigError, match=r"study\.rates=\[1, 2\]: rate_search=extend starts at one rate; set one"):
        make_study(composer(), ["study=figure1", "data=shapes", "study.rates=[1,2]"])


@pytest.mark.slow
def test_a_study_trains_its_plan_resumes_and_stops_where_the_base_does_not_learn(
    tmp_path: Path, cache: Path, typed: Typed
):
    small = [f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}", "study.claims=[paper/lrn]"]
    line = [
        "study=lrn",
        *(one for one in TINY if not one.startswith("trainer.max_epochs=")),
        *small,
        "study.seeds=1",
        "study.base_seeds=2",
        "model.batch_norm=before",
        "trainer.max_epochs=12",
    ]
    done = typed(*line)
    assert done.status == 0, done
    assert "1 claim, 2 arms, 3 runs" in done.output
    assert "study.seeds=1: a verdict needs at least 3" in done.output
    [path] = (tmp_path / "runs" / "studies").glob("*.json")
    [look] = read_looks(path)
    planned = {run_id for arm in look["arms"] for run_id in arm["runs"].values()}
    records = {one.parent.name for one in (tmp_path / "runs").glob("*/result.json")}
    assert records == planned
    again = typed(*line)
    assert "3 of 3 already done" in again.output
    assert again.status == 0

    kept = [one for one in line if not one.startswith(("trainer.max_epochs=", "paths.runs="))]
    stopped = typed(*kept, "trainer.max_epochs=1", "optim.lr=1e-9", f"paths.runs={tmp_path / 'still'}")
    assert stopped.status == 1
    assert "not started, because the study's base does not learn: its training loss is 2." in stopped.output
    states = [json.loads(one.read_text())["state"] for one in (tmp_path / "still").glob("*/status.json")]
    assert states == ["DONE"]  # the base alone


def test_a_trial_without_validation_is_an_error_that_names_the_key(tmp_path: Path):
    made_study(tmp_path, ["study=lrn", "study.seeds=1"])
    folder = next(tmp_path.glob("*/metrics.csv")).parent
    record = Record(tmp_path, folder.name)
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    place = lines[0].index("val_top1_error")
    found = study_plan.trial_result(record, "top1_error")
    assert found is not None
    assert found.score == float(lines[-1][place])
    (folder / "metrics.csv").write_text("\n".join(",".join(line[:place] + line[place + 1 :]) for line in lines))
    with pytest.raises(ConfigError, match=r"no validation error .*; set trainer\.limit_val_batches=1\.0"):
        study_plan.trial_result(record, "top1_error")


@pytest.mark.parametrize("failure", ["diverged", "does not learn"])
def test_the_outcome_of_a_trial_says_how_it_failed(tmp_path: Path, failure: str):
    line = ["study=lrn", "study.claims=[paper/lrn]", "study.rate=choose", f"paths.runs={tmp_path}"]
    [rate, _] = make_study(composer(), line).rates
    [trial, *_] = rate.rounds[0]
    record = Record(tmp_path, rate.runs[trial])
    record.path.mkdir()
    status = {"version": RECORD_VERSION, "run_id": record.path.name, "attempt": 1, "state": "FAILED"}
    record.file("status.json").write_text(json.dumps({**status, "failure": failure}))
    [rate, _] = make_study(composer(), line).rates
    assert rate.shown(trial) == f"none optim.lr=0.005 seed=1000: {failure}"
    assert rate.results[trial].has_diverged == (failure == "diverged")
