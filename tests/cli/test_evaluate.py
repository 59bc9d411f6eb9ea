"""`python src/evaluate.py`: ensembles of nets against one computed here, files of weights, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from alexlab.cli.evaluate import main
from alexlab.compose import to_yaml
from alexlab.config import PROJECT_DIR
from alexlab.data import build_datamodule
from alexlab.data.locate import prepare, store_path
from alexlab.errors import UserError
from alexlab.evidence import load_runs
from alexlab.models import build_model
from alexlab.report.neighbours import answers
from alexlab.runs.process import Launch
from alexlab.runs.record import DONE, FAILED, Record
from alexlab.runs.supervisor import execute
from alexlab.sweep.plan import make_plan
from alexlab.training.evaluate import EnsembleMember, evaluate
from support.records import weights_in
from support.settings import TINY, composed


def train(overrides: list[str]) -> Record:
    """The record of a run, trained in a process of its own as the command does."""
    [run] = make_plan(overrides).runs
    with tempfile.TemporaryDirectory() as folder:
        assert execute(run.config, run.labels, "run", Launch(Path(folder)))["state"] == DONE
    return run.record


class Trained(NamedTuple):
    """Runs of some seconds, whose last layers start large, so that their probabilities are far from equal."""

    runs: Path
    overrides: dict[str, list[str]]  # by run id

    @property
    def ids(self) -> list[str]:
        return list(self.overrides)

    def averaged(self, ids: list[str], *more: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Result and predictions of the average that a command makes."""
        before = set(self.runs.glob("averages/*"))
        places = [one for one in self.overrides[ids[0]] if one.startswith(("data.cache=", "paths.runs="))]
        arguments = [f"runs=[{','.join(ids)}]", *places, "trainer.accelerator=cpu", *more]
        assert main(arguments) == 0
        [folder] = set(self.runs.glob("averages/*")) - before
        assert sorted(path.name for path in folder.iterdir()) == ["predictions.npz", "result.json"]
        with np.load(folder / "predictions.npz") as arrays:
            return json.loads((folder / "result.json").read_text()), dict(arrays)

    def probabilities(self, run_id: str, kind: str, logits_first: bool = False) -> np.ndarray:
        """Of the test images, by crops cut here and a plain forward pass in float64."""
        config = composed(self.overrides[run_id])
        network = build_model(config).double().eval()
        saved = torch.load(self.runs / run_id / "checkpoints" / "last.ckpt")["state_dict"]
        network.load_state_dict(saved)
        store, size, crop = store_path(config.data), config.data.size, config.data.crop_size
        assert crop is not None
        images = np.load(store / "test.npy").astype(np.float64) - np.load(store / "mean.npy")
        end, middle = size - crop, (size - crop) // 2
        corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)] if kind == "ten" else [(middle, middle)]
        logits = []
        for y, x in corners:
            view = (images[:, y : y + crop, x : x + crop] * config.data.pixel_scale).transpose(0, 3, 1, 2)
            for one in (view, view[..., ::-1]) if kind == "ten" else (view,):
                with torch.inference_mode():
                    logits.append(network(torch.from_numpy(one.copy())).numpy())
        return softmax(np.mean(logits, 0)) if logits_first else np.mean([softmax(one) for one in logits], 0)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three seeds, and a fourth net that differs in stored size, crop, batches and precision."""
    runs = tmp_path_factory.mktemp("average") / "runs"
    base = [*TINY, f"data.cache={cache}", f"paths.runs={runs}"]
    base += ["trainer.max_epochs=1", "optim.lr=1e-4", "model.init_last_std=20"]
    other = ["seed=3", "data.size=100", "data.crop_size=88", "data.eval_batch_size=16", "trainer.precision=64-true"]
    overrides = [*([*base, f"seed={seed}"] for seed in range(3)), [*base, *other]]
    return Trained(runs, {train(each).run_id: each for each in overrides})


def errors(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    order = np.argsort(-probabilities, 1)
    return {f"top{k}_error": float(1 - (order[:, :k] == labels[:, None]).any(1).mean()) for k in (1, 5)}


@pytest.mark.slow
class TestAverage:
    @pytest.mark.parametrize("members", [(0, 1, 2), (0, 3)], ids=["seeds", "another size"])
    @pytest.mark.parametrize("average", ["softmax", pytest.param("logits", marks=pytest.mark.long)])
    def test_is_the_mean_of_the_members_probabilities(self, trained: Trained, members: tuple[int, ...], average: str):
        """The logits of views, averaged first, are not what the runs recorded: the members' errors are computed too."""
        ids = [trained.ids[number] for number in members]
        result, arrays = trained.averaged(ids[::-1], f"evaluate.average={average}")
        labels = arrays["labels"]
        assert result["test"]["images"] == len(labels) == 37
        for kind in ("center", "ten"):
            singles = {one: trained.probabilities(one, kind, average == "logits") for one in ids}
            expected = np.mean(list(singles.values()), 0)
            of_logits = softmax(np.mean(np.log(list(singles.values())), 0))
            assert np.abs(expected - of_logits).max() > 0.1  # so that the mean of something else would be seen
            logarithms = np.log(expected[np.arange(37), labels])
            np.testing.assert_allclose(arrays[f"{kind}_log_probability"], logarithms, rtol=1e-4, atol=1e-4)
            likeliest = np.take_along_axis(expected, arrays[f"{kind}_top5"], 1)
            np.testing.assert_allclose(likeliest, np.sort(expected, 1)[:, :-6:-1], atol=1e-5)
            assert result["test"][kind] == pytest.approx(errors(expected, labels))
            own = [errors(single, labels) for single in singles.values()]
            for one, error in zip(ids, own, strict=True):
                assert result["members"][one]["test"][kind] == pytest.approx(error)
            for name in ("top1_error", "top5_error"):
                assert result["mean"][kind][name] == pytest.approx(np.mean([error[name] for error in own]))

    @pytest.mark.parametrize("number", [0, 3])
    def test_of_one_run_is_its_own_result(self, trained: Trained, number: int):
        record = Record(trained.runs, trained.ids[number])
        result, arrays = trained.averaged([record.run_id])
        assert result["test"] == result["members"][record.run_id]["test"] == record.result()["test"]
        assert result["mean"] == {kind: result["test"][kind] for kind in ("center", "ten")}
        with np.load(record.file("predictions.npz")) as own:
            assert set(own) == set(arrays)
            for name in own:
                np.testing.assert_allclose(arrays[name], own[name], rtol=1e-5)

    def test_asked_again_it_is_shown(
        self, trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setenv("COLUMNS", "80")
        ids = trained.ids[1:3]
        result, _ = trained.averaged(ids)
        first = capsys.readouterr().out
        monkeypatch.setattr("alexlab.training.evaluate.evaluate", None)
        assert main([f"runs=[{ids[1]}, {ids[0]}]", f"paths.runs={trained.runs}"]) == 0
        again = capsys.readouterr().out
        assert "Evaluated before; nothing is computed again." in again
        assert "Evaluated before" not in first
        for text in (first, again):
            assert all(len(line) <= 80 for line in text.split("Record: ")[0].splitlines())
            for run_id in ids:
                assert re.search(rf" {run_id}$", text, re.MULTILINE)
            assert re.search(rf"^ensemble of the 2 nets .* {result['average_id']}$", text, re.MULTILINE)
            assert re.search(r"^mean of the 2 ", text, re.MULTILINE)
            assert "±: 95 % interval over the 37 test images alone; it does not cover seeds." in text
        assert sorted(first.splitlines()[2:]) == sorted(again.splitlines()[3:])  # the rows as asked for

    def test_of_best_weights(self, trained: Trained):
        """The best weights of one run are made those of another, whose errors are to be found."""
        run_id, other = trained.ids[:2]
        best = trained.runs / run_id / "checkpoints" / "best.ckpt"
        shutil.copy(trained.runs / other / "checkpoints" / "last.ckpt", best)
        result, arrays = trained.averaged([run_id], "evaluate.checkpoint=best")
        assert result["checkpoint"] == "best"
        assert result["test"] == result["members"][run_id]["test"] == Record(trained.runs, other).result()["test"]
        with np.load(trained.runs / other / "predictions.npz") as expected:
            np.testing.assert_allclose(arrays["ten_log_probability"], expected["ten_log_probability"], rtol=1e-5)

    def test_with_a_member_whose_weights_are_not_finite_is_not_made(
        self, trained: Trained, capsys: pytest.CaptureFixture[str]
    ):
        run_id, other = trained.ids[1:3]
        best = trained.runs / run_id / "checkpoints" / "best.ckpt"
        content = torch.load(best)
        saved = best.read_bytes()
        content["state_dict"]["fc7.bias"][2] = float("nan")
        torch.save(content, best)
        cache = next(one for one in trained.overrides[run_id] if one.startswith("data.cache="))
        arguments = [f"runs=[{run_id},{other}]", "evaluate.checkpoint=best", cache, f"paths.runs={trained.runs}"]
        try:
            assert main(arguments) == 2
        finally:
            best.write_bytes(saved)
        assert f"weights={best}: fc7.bias has non-finite values (1 of 16)" in capsys.readouterr().err
        assert main(arguments) == 0  # nothing was kept of the first attempt

    def test_is_no_run(self, trained: Trained):
        trained.averaged(trained.ids[2:4])
        assert sorted(load_runs(trained.runs)["run_id"]) == sorted(trained.ids)


DIGITS, FAILING, OTHER_DATA, BEST = "001234567890", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"
FREE = (
    "evaluate.checkpoint, evaluate.average, data.root, data.cache, data.stage, data.format, data.eval_batch_size, "
    "data.num_workers, trainer.accelerator, paths.runs, paths.code"
)
MISTAKES = {
    (): "give one of runs=[ID,ID,...], the ids of finished runs, and weights=FILE, a net's weights",
    ("rusn=[a]",): "give one of runs=[ID,ID,...], the ids of finished runs, and weights=FILE, a net's weights",
    (f"runs=[{DIGITS}]", "weights=x.ckpt"): (
        "give only one of runs=[ID,ID,...], the ids of finished runs, and weights=FILE, a net's weights"
    ),
    ("runs=[]",): "runs=[]: has an empty item; name one or more runs, as in runs=[ID,ID]",
    ("runs=[a,,b]",): "runs=[a,,b]: has an empty item; name one or more runs, as in runs=[ID,ID]",
    ("runs=[a]", "runs=[b]"): "runs=[b]: runs= is given twice; name all runs in one list",
    (f"runs=[{DIGITS}, {DIGITS}]",): f"runs=[{DIGITS}, {DIGITS}]: names {DIGITS} twice; write each once",
    ("runs=[bbbbbbbbbbba]",): "runs: there is no run 'bbbbbbbbbbba' in RUNS; did you mean 'bbbbbbbbbbbb'?",
    ("runs=[averages]",): "runs: there is no run 'averages' in RUNS; paths.runs=FOLDER looks elsewhere",
    (f"runs=[../runs/{DIGITS}]",): f"runs: there is no run '../runs/{DIGITS}' in RUNS; did you mean '{DIGITS}'?",
    (f"runs=[{DIGITS},{FAILING}]",): f"runs: {FAILING} is FAILED, not DONE; train it to its end or leave it out",
    (f"runs=[{DIGITS},{OTHER_DATA}]",): (
        f"runs: {DIGITS} has the data shapes-v1-10-60+30+37-seed0, {OTHER_DATA} has shapes-v1-10-60+30+37-seed1; "
        "an ensemble has one data set"
    ),
    (f"runs=[{DIGITS},{BEST}]",): f"evaluate.checkpoint: {DIGITS} has last, {BEST} has best; set it for all",
    (f"runs=[{DIGITS}]",): (
        f"runs: {DIGITS} has no RUNS/{DIGITS}/checkpoints/last.ckpt; set evaluate.checkpoint or leave the run out"
    ),
    (f"runs=[{BEST}]",): (
        f"runs: {BEST} has no RUNS/{BEST}/checkpoints/best.ckpt; set evaluate.checkpoint or leave the run out"
    ),
    (f"runs=[{DIGITS}]", "evaluate.chekpoint=best"): (
        "evaluate.chekpoint=best: there is no key 'evaluate.chekpoint'; did you mean 'evaluate.checkpoint'?"
    ),
    (f"runs=[{DIGITS}]", "evaluate.checkpoint=first"): "evaluate.checkpoint=first: must be one of last, best",
    (f"runs=[{DIGITS}]", "model.lrn=false"): (
        f"model.lrn=false: cannot be set for runs that are done; only {FREE} can"
    ),
    (f"runs=[{DIGITS}]", "recipe=demo"): f"recipe=demo: cannot be set for runs that are done; only {FREE} can",
    (f"runs=[{DIGITS}]", "trainer.fast_dev_run=true"): (
        f"trainer.fast_dev_run=true: cannot be set for runs that are done; only {FREE} can"
    ),
    (f"runs=[{DIGITS}]", "-m"): "-m: there is no such flag here; --help lists all",
    ("weights=no.ckpt",): "weights=no.ckpt: no such file",
    ("weights=null",): "weights=null: name a file",
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records that need no training, since nothing is to come of them."""
    runs = tmp_path_factory.mktemp("mistakes") / "runs"
    for run_id, state, more in (
        (DIGITS, DONE, []),
        (FAILING, FAILED, []),
        (OTHER_DATA, DONE, ["data.files_seed=1"]),
        (BEST, DONE, ["evaluate.checkpoint=best"]),
    ):
        record = Record(runs, run_id)
        record.path.mkdir(parents=True)
        record.begin(to_yaml(composed([*TINY, *more])), {"ablation": "none"})
        record.set_status(state)
    return runs


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.items(), ids=lambda value: str(value)[:50])
def test_a_mistake_is_one_line(arguments, message: str, records: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*arguments, f"paths.runs={records}"]) == 2
    told = capsys.readouterr()
    assert told.err.replace(str(records), "RUNS") == f"error: {message}\n"
    assert told.out == ""
    assert not (records / "averages").exists()


MEMBER = {"labels": {"ablation": "none"}, "seed": 0, "data_seed": 0}
ERRORS = {kind: {"top1_error": 0.5, "top5_error": 0.1} for kind in ("ten", "center")}
KEPT = {"average_id": "x", "mean": ERRORS, "test": {**ERRORS, "images": 30}}


@pytest.mark.parametrize(
    "members", [{}, [], {DIGITS: 3}, {DIGITS: MEMBER}, {DIGITS: {**MEMBER, "test": {**ERRORS, "ten": "x"}}}], ids=str
)
def test_an_ensemble_of_others_that_is_corrupt_is_one_line(
    records: Path, tmp_path: Path, members: object, capsys: pytest.CaptureFixture[str]
):
    """What `averages/` holds may be anyone's; values of other types ended in a traceback."""
    shutil.copytree(records, tmp_path / "runs")
    name = hashlib.sha256(f"{DIGITS} last softmax".encode()).hexdigest()[:12]
    folder = tmp_path / "runs" / "averages" / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({**KEPT, "members": members}))
    assert main([f"runs=[{DIGITS}]", f"paths.runs={tmp_path / 'runs'}"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: {re.escape(str(folder / 'result.json'))}: is corrupt \(.*\); remove .*\n", error), (
        error
    )


def test_no_folder_that_a_record_names_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A record may be a stranger's: it has neither a store made nor one copied where it says."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    record = Record(tmp_path / "runs", DIGITS)
    record.path.mkdir(parents=True)
    folders = [f"data.cache={theirs}/cache", f"data.stage={theirs}/stage"]
    record.begin(to_yaml(composed([*TINY, *folders])), {"ablation": "none"})
    record.file("checkpoints").mkdir()
    record.file("checkpoints/last.ckpt").touch()
    record.set_status(DONE)
    said = f"runs: {DIGITS} has no store at {mine}/stores/shapes-v1-10-60+30+37-seed0-"
    assert main([f"runs=[{DIGITS}]", f"paths.runs={record.path.parent}", f"data.cache={mine}"]) == 2
    assert said in capsys.readouterr().err
    with pytest.raises(UserError, match=re.escape(said)):
        answers(record, cache=str(mine))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_help():
    done = subprocess.run(
        [sys.executable, str(PROJECT_DIR / "src" / "evaluate.py"), "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "runs=[" in done.stdout
    assert "weights=" in done.stdout


def to_torchvision(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of ours by the names of torchvision's layers, counted off its source."""
    places = {"conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8"}
    places |= {"conv5": "features.10", "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}
    return {re.sub(r"^\w+", lambda match: places[match[0]], name): value for name, value in state.items()}


class TestWeights:
    def test_a_runs_weights_keep_its_settings(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        """Under others the figure is not the run's; a key that the line names is the reader's choice."""
        recorded = composed(["model.lrn=false", "data.mean=channel", "optim.lr=0.5", "model.init_bias=1"])
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "config.yaml").write_text(to_yaml(recorded))
        weights = tmp_path / "checkpoints" / "last.ckpt"
        weights.write_bytes(b"no weights")
        said = f"weights={weights}: was trained with "
        for line, message in (
            ([], f"{said}data.mean=channel model.lrn=false; add that, or evaluate runs=[{tmp_path.name}]"),
            (["data.mean=image"], f"{said}model.lrn=false; add"),
            (["data.mean=image", "model.lrn=true"], "is not a checkpoint"),
            (["data.mean=channel", "model.lrn=false", "model.lrn_size=3"], "is not a checkpoint"),
        ):
            assert main([*line, f"weights={weights}", f"data.cache={tmp_path}"]) == 2
            assert message in capsys.readouterr().err

    def test_a_file_is_evaluated_and_nothing_kept(
        self, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.chdir(tmp_path)
        arguments = [*tiny, "model=torchvision", "data.mean=torchvision", "data.pixel_scale=1", "seed=4"]
        config = composed(arguments)
        network = build_model(config)
        torch.save(to_torchvision(network.state_dict()), "net.pth")
        data = build_datamodule(config)
        data.setup()
        expected = evaluate([EnsembleMember(network, data.test_dataloader(), data)], torch.device("cpu"))
        assert main([*arguments, "weights=net.pth", "seed=5"]) == 0  # other weights of its own
        out = capsys.readouterr().out
        [row] = re.findall(r"^net.pth +([\d.]+)±[\d.]+ +([\d.]+) +([\d.]+) +([\d.]+)$", out, re.MULTILINE)
        ten, center = expected["ten"].errors(), expected["center"].errors()
        wanted = [ten["top1_error"], ten["top5_error"], center["top1_error"], center["top5_error"]]
        assert row == tuple(f"{100 * error:.1f}" for error in wanted)
        assert "This evaluation is not saved" in out
        assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["data.num_classes=5"], r"fc8.weight is \(10, 16\), this network's is \(5, 16\); set data.num_classes=10"),
            (["model.remove=[fc7]"], "has fc7.weight, which this network lacks; it was trained with another `model`"),
            (["model.hidden=256"], r"fc6.weight is \(16, 64\), this network's is \(32, 64\)"),
            (["model.activation=prelu"], "has no prelu1.weight; it was trained with another `model`"),
        ],
    )
    def test_of_another_net_are_refused(
        self, tiny: list[str], tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ):
        path = tmp_path / "net.pth"
        torch.save(build_model(composed(tiny)).state_dict(), path)
        assert main([*tiny, f"weights={path}", *more]) == 2
        told = capsys.readouterr().err
        assert re.fullmatch(rf"error: weights={path}: {message}\n", told), told

    def test_of_a_corrupt_store_are_one_line(self, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        """Outside of a run, an empty list of a store ended a command in a traceback."""
        path, cache = tmp_path / "net.pth", f"data.cache={tmp_path / 'cache'}"
        config = composed([*tiny, cache])
        torch.save(build_model(config).state_dict(), path)
        store = prepare(config.data).path
        (store / "test_labels.npy").write_bytes(b"")
        assert main([*tiny, cache, f"weights={path}"]) == 2
        error = capsys.readouterr().err
        assert re.match(rf"error: .*{re.escape(str(store))}.*corrupt", error.splitlines()[-1]), error
        assert "Traceback" not in error

    @pytest.mark.filterwarnings("ignore:Validating sparse tensor")
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.fill_(float("nan")), r"conv1.weight has non-finite values .2178 of 2178.; use weights"),
            (
                lambda w: w[0, 0, 0, 0].fill_(float("-inf")),
                r"conv1.weight has non-finite values .1 of \d+.; use weights",
            ),
            (lambda w: w.double().mul_(1e300), r"conv1.weight has non-finite values .2178 of 2178.; use weights"),
            (
                lambda w: w.fill_(1e38),
                "outputs for 37 of 37 images are not finite; conv1.weight has values up to 1e.38",
            ),
            (lambda w: w.int(), "conv1.weight has the type int32; save it as float32"),
            (lambda w: w.bool(), "conv1.weight has the type bool; save it as float32"),
            (lambda w: w.to_sparse(), "conv1.weight is not a dense tensor; save it as one"),
        ],
        ids=["nan", "one infinity", "too large for float32", "overflow", "int", "bool", "sparse"],
    )
    def test_that_give_no_numbers_are_refused(
        self, tiny: list[str], tmp_path: Path, change: Any, message: str, capsys: pytest.CaptureFixture[str]
    ):
        path, state = tmp_path / "net.pth", build_model(composed(tiny)).state_dict()
        changed = change(state["conv1.weight"])
        state["conv1.weight"] = changed if changed.dim() == 4 else state["conv1.weight"]
        torch.save(state, path)
        assert main([*tiny, f"weights={path}"]) == 2
        shown = capsys.readouterr()
        assert re.match(rf"error: (weights=)?{path}: {message}", shown.err.splitlines()[-1]), shown.err
        assert shown.out == ""

    def test_torchvisions_input(self, tiny: list[str]):
        """`data.mean=torchvision` gives what its preset makes of the centre crop of the same image."""
        functional = pytest.importorskip("torchvision.transforms.v2.functional")
        config = composed([*tiny, "data.mean=torchvision", "data.pixel_scale=1"])
        data = build_datamodule(config)
        data.setup()
        images = next(iter(data.test_dataloader())).images[:8]
        [centre] = data.views(images, data.windows("center"))
        cropped = functional.center_crop(images.permute(0, 3, 1, 2), [96, 96])
        scaled = functional.to_dtype(cropped, torch.float32, scale=True)
        expected = functional.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(centre, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_device_that_is_not_there(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save(build_model(composed(tiny)).state_dict(), tmp_path / "net.pth")
    assert main([*tiny, f"weights={tmp_path / 'net.pth'}", "trainer.accelerator=gpu"]) == 2
    assert re.fullmatch(r"error: trainer.accelerator=gpu: .* Set it to auto or cpu\n", capsys.readouterr().err)


@pytest.mark.slow
def test_fine_tuning_starts_from_anothers_features(tiny: list[str]):
    first = train([*tiny, "data.num_classes=5"])
    path = first.file("checkpoints/last.ckpt")
    second = [*tiny, "seed=1", "trainer.max_epochs=1", "optim.lr=1e-9"]
    tuned = train([*second, f"weights={path}"])
    assert tuned.run_id != make_plan(second).runs[0].run_id
    theirs, fresh = weights_in(path), build_model(composed(second)).state_dict()
    for name, weight in weights_in(tuned.file("checkpoints/last.ckpt")).items():
        start = fresh if name.startswith("fc8.") else theirs
        torch.testing.assert_close(weight, start[name], rtol=1e-4, atol=1e-6)
        assert name.endswith("bias") or not torch.equal(fresh[name], theirs[name])
