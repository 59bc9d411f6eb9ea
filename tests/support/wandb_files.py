"""Reading the files of offline W&B runs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, records in one or more pieces)."""
    content, place, whole = path.read_bytes(), 7, b""  # behind a header of its own
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


def read_wandb(path: Path) -> dict:
    """What an offline W&B run holds."""
    from wandb.proto import wandb_internal_pb2

    found: dict = {"config": {}, "summary": {}, "history": set(), "steps": []}
    for data in wandb_records(path):
        record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["group"] = record.run.run_group
            found["config"].update({item.key: json.loads(item.value_json) for item in record.run.config.update})
        elif kind == "config":
            for item in record.config.update:
                found["config"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "summary":
            for item in record.summary.update:
                found["summary"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "history":
            found["history"] |= {item.key or ".".join(item.nested_key) for item in record.history.item}
            found["steps"].append(record.history.step.num)
    return found
