"""TensorBoard's own reader finds each step of a record once, its settings and its pictures."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorboard", reason="pip install '.[tensorboard]'")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]

from alexlab.runs.record import PREEMPTED, Record
from alexlab.runs.trackers import Copies, send
from support.hand_made import FINAL, ROWS, RUN_ID, STEPS, begin, complete
from support.settings import composed


def reader(record: Record) -> EventAccumulator:
    [folder] = (record.path / "tensorboard").iterdir()
    return EventAccumulator(str(folder)).Reload()


def steps(found: EventAccumulator, name: str = "train_loss") -> list[int]:
    return [event.step for event in found.Scalars(name)]


def test_a_copy_has_all_of_the_record(tiny: list[str]):
    config = composed([*tiny, "logger=tensorboard", "optim.lr=0.125"])
    record = begin(config)
    complete(record)
    assert send("tensorboard", config, record)
    found = reader(record)
    for name in ("epoch", "lr", "train_loss", "val_top1_error"):
        rows = {row["step"]: row[name] for row in ROWS if row[name] != ""}
        assert steps(found, name) == [*rows], name
        assert [event.value for event in found.Scalars(name)] == pytest.approx([*rows.values()]), name
    for name, value in FINAL.items():
        assert [(event.step, event.value) for event in found.Scalars(name)] == [(12, value)], name
    assert set(found.Tags()["scalars"]) == {"epoch", "lr", "train_loss", "val_top1_error", *FINAL}
    [kernels] = found.Images("conv1")
    picture = np.asarray(Image.open(BytesIO(kernels.encoded_image_string)))
    assert picture.shape == (4 * 11, 4 * (16 * 12 - 1), 4)  # 16 kernels and the gaps between them, 4 pixels a weight
    assert len(found.Images("confusion")) == 1
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["optim.lr"].number_value == 0.125
    assert values["model.lrn"].string_value == "true"
    assert values["model.remove"].string_value == "[]"
    assert values["run_id"].string_value == RUN_ID
    assert values["commit"].string_value == "f" * 40
    assert values["ablation"].string_value == "none"
    files = b"".join(path.read_bytes() for path in record.path.glob("tensorboard/*/*"))
    assert str(record.path.parent).encode() not in files
    assert b"a-machine" not in files


def test_a_resumed_run_has_each_step_once(tiny: list[str]):
    """Also in a TensorBoard that was running meanwhile; the state it resumes from may be before the last row."""
    config = composed([*tiny, "logger=tensorboard"])
    record = begin(config)
    first = Copies(config, record)
    first.start()
    for row in ROWS[:3]:
        first.row(row)
    found = reader(record)
    assert steps(found) == STEPS[:3]  # while it trains
    record.set_status(PREEMPTED)
    first.finish()
    record = begin(config)
    again = Copies(config, record)
    again.start()
    for row in [*ROWS[:2], *ROWS[2:]]:
        again.row(row)
    complete(record)
    again.finish()
    assert steps(found.Reload()) == STEPS
    assert len(found.Images("conv1")) == 1
    assert steps(reader(record)) == STEPS
    assert steps(reader(record), "test/ten/top1_error") == [12]
    assert send("tensorboard", config, record)
    assert steps(reader(record)) == STEPS
    assert steps(found.Reload(), "seconds") == [12]
    assert len([*record.path.glob("tensorboard/*/*")]) == 2


def test_a_name_is_a_folder_whatever_the_arm(tiny: list[str]):
    config = composed([*tiny, "logger=tensorboard"])
    record = begin(config, ablation=f"model.init_stds=[../../{'conv1:0.01, ' * 40}]")
    complete(record)
    assert send("tensorboard", config, record)
    assert steps(reader(record)) == STEPS
    assert [path.name for path in record.path.parent.iterdir()] == [RUN_ID]


def test_a_full_disk_ends_the_copy_alone(tiny: list[str], capsys: pytest.CaptureFixture[str]):
    config = composed([*tiny, "logger=tensorboard"])
    record = begin(config)
    copies = Copies(config, record)
    copies.start()
    copies._started["tensorboard"]._path = Path("/dev/full")  # pyright: ignore[reportAttributeAccessIssue]
    for row in ROWS:
        copies.row(row)
    copies.finish()
    out, err = capsys.readouterr()
    assert out == (
        "logger=tensorboard: TensorBoard stopped accepting data ([Errno 28] No space left on device); the record is "
        "complete, `alexlab runs copy logger=tensorboard` sends it later\n"
    )
    assert err == ""


def test_it_follows_no_link(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A record of others could have another project's files removed."""
    config = composed([*tiny, "logger=tensorboard"])
    record = begin(config)
    complete(record)
    theirs = tmp_path / "theirs" / "run" / "events.out.tfevents.000001"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    record.file("tensorboard").symlink_to(tmp_path / "theirs")
    assert not send("tensorboard", config, record)
    record.file("tensorboard").unlink()
    record.file("tensorboard").mkdir()
    record.file("tensorboard/none seed=0").symlink_to(theirs.parent)
    assert not send("tensorboard", config, record)
    record.file("tensorboard/none seed=0").rename(record.file("tensorboard/other"))
    assert send("tensorboard", config, record)
    assert capsys.readouterr().out.count("is a symbolic link, which a record must not contain") == 2
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]
