"""Parquet shards as Hugging Face keeps data sets: a column of encoded images and one of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.data.sources.source import Item, LeftOut, Listing, RawError, Source, file_state, sorted_rows

_SPLIT = re.compile(r"^(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)
_OF = re.compile(r"-of-(\d+)\b")
_WORDNET_SUFFIX = re.compile(r"_n\d{8}(?=\.\w+$)")  # Hugging Face adds the class to ImageNet's own names
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "jpg"), ("label", "labels", "cls", "fine_label")


@dataclass(frozen=True)
class RowPart:
    """Rows of one row group of a shard."""

    path: str
    column: str
    group: int
    rows: list[int]

    def read(self) -> Iterator[Item]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as shard:
                # A part of a group at a time, since a group may be large.
                batches = shard.iter_batches(64, row_groups=[self.group], columns=[self.column], use_threads=False)
                wanted, start = iter(self.rows), 0
                row = next(wanted, None)
                for batch in batches:
                    column = batch.column(0)
                    while row is not None and row < start + len(column):
                        value = column[row - start].as_py()
                        content = value.get("bytes") if isinstance(value, dict) else value
                        yield Item(content) if isinstance(content, bytes) else Item(None, "no bytes in the table")
                        row = next(wanted, None)
                    start += len(column)
        except (pa.ArrowException, OSError) as error:
            raise RawError(f"{self.path}: is damaged ({_first_line(error)}); fetch it again") from error


@dataclass
class Rows:
    """Each image is a row of one of some tables."""

    shards: list[str]
    column: str
    shard: np.ndarray  # int32 [N]
    group: np.ndarray  # int32 [N]: row group of the shard
    row: np.ndarray  # int64 [N]: row in the group

    def parts(self) -> list[np.ndarray]:
        order = np.lexsort((self.row, self.group, self.shard))
        changes = np.flatnonzero(np.diff(self.shard[order]) | np.diff(self.group[order])) + 1
        return np.split(order, changes)

    def part(self, rows: np.ndarray) -> RowPart:
        shard, group = self.shards[self.shard[rows[0]]], int(self.group[rows[0]])
        return RowPart(shard, self.column, group, self.row[rows].tolist())

    def state(self) -> Iterator[bytes]:
        return (file_state(path) for path in self.shards)


def find_shards(root: Path) -> dict[str, list[Path]]:
    """The shards of each split below `root`, by their names or their folders'.

    Raises:
        RawError: where a split's shards lie in several folders, or some are missing by their own count.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted([*root.glob("*.parquet"), *root.glob("*/*.parquet"), *root.glob("*/*/*.parquet")]):
        match = _SPLIT.match(path.name) or _SPLIT.match(path.parent.name)
        if match and not path.name.startswith("."):
            split = "val" if match[1].lower().startswith("val") else match[1].lower()
            found.setdefault(split, []).append(path)
    for split, paths in found.items():
        folders = sorted({str(path.parent) for path in paths})
        if len(folders) > 1:
            raise RawError(f"{root}: has shards of {split} in {' and '.join(folders[:2])}; name one as data.raw")
        counted = _OF.search(paths[0].name)
        if counted and int(counted[1]) != len(paths):
            raise RawError(f"{folders[0]}: has {len(paths)} of {int(counted[1])} shards of {split}; fetch the others")
    return found


def read_parquet(root: Path, shards: dict[str, list[Path]]) -> Source:
    """A data set from its shards.

    Labels are the table's own. A class is named by the WordNet id in its files' names where there is one (ImageNet's),
    else as the table's metadata name it.

    Raises:
        RawError: where pyarrow or a column is missing, a shard is cut, or there is no training split.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise RawError(f"{root}: parquet shards need pyarrow; pip install 'alexlab[parquet]'") from error
    if "train" not in shards:
        raise RawError(f"{root}: has no train-*.parquet; there are shards of {', '.join(sorted(shards))}")
    source = Source("parquet shards", [], {})
    names_of_labels: list[str] = []
    tables: dict[str, tuple[list[str], list[int], Rows]] = {}
    for split, paths in shards.items():
        names, labels, places, known = _read_split(paths)
        names_of_labels = names_of_labels or known
        unlabelled = [label < 0 for label in labels]
        if labels and all(unlabelled):
            source.warnings.append(f"{split} has {len(labels)} images without labels; it is left out")
            continue
        for name, without in zip(names, unlabelled, strict=True):
            if without:
                source.left_out.append(LeftOut(split, name, "has no label"))
        tables[split] = names, labels, places
    if "train" not in tables:
        raise RawError(f"{root}: the training split has no labels")
    count = max(max(labels, default=0) for _, labels, _ in tables.values()) + 1
    named = names_of_labels[:] if len(names_of_labels) >= count else [f"{label:04d}" for label in range(count)]
    source.classes = _wordnet_ids(*tables["train"][:2], len(named)) or [_plain(name) for name in named]
    if source.classes[0] != _plain(named[0]):  # ImageNet: the names that its tars have
        for split, (names, labels, places) in tables.items():
            tables[split] = [_WORDNET_SUFFIX.sub("", name) for name in names], labels, places
    if source.classes != named and len(names_of_labels) >= count:
        source.words = dict(zip(source.classes, named, strict=True))
    for split, (names, labels, places) in tables.items():
        rows = [row for row in sorted_rows(labels, names) if labels[row] >= 0]
        moved = Rows(places.shards, places.column, places.shard[rows], places.group[rows], places.row[rows])
        source.splits[split] = Listing([names[row] for row in rows], np.array(labels, np.int64)[rows], moved)
    return source


def _read_split(paths: list[Path]) -> tuple[list[str], list[int], Rows, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: list[str] = []
    labels: list[int] = []
    places: list[tuple[int, int, int]] = []
    image_column, known = "", []
    for number, path in enumerate(paths):
        try:
            shard = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise RawError(f"{path}: is cut or damaged ({_first_line(error)}); fetch it again") from error
        with shard:
            schema = shard.schema_arrow
            image_column, label_column = (_column(path, schema.names, w) for w in (_IMAGE_COLUMNS, _LABEL_COLUMNS))
            if not pa.types.is_integer(schema.field(label_column).type):
                raise RawError(f"{path}: its column {label_column} holds no whole numbers, which labels are")
            known = known or _known_names((schema.metadata or {}).get(b"huggingface"), label_column)
            has_paths = f"{image_column}.path" in [
                column.path for column in map(shard.schema.column, range(len(shard.schema)))
            ]
            wanted = [label_column, *([f"{image_column}.path"] if has_paths else [])]
            for group in range(shard.num_row_groups):
                try:
                    table = shard.read_row_group(group, columns=wanted)
                except (pa.ArrowException, OSError) as error:
                    raise RawError(f"{path}: is cut or damaged ({_first_line(error)}); fetch it again") from error
                found = table.column(label_column).to_pylist()
                inside = table.column(image_column).to_pylist() if has_paths else [None] * len(found)
                for row, (label, image) in enumerate(zip(found, inside, strict=True)):
                    labels.append(-1 if label is None else int(label))
                    names.append((image or {}).get("path") or f"{path.stem}/{group:05d}-{row:06d}")
                    places.append((number, group, row))
    table = np.array(places, np.int64).reshape(-1, 3)
    where = table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2]
    return names, labels, Rows([str(path) for path in paths], image_column, *where), known


def _column(path: Path, columns: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise RawError(f"{path}: has no column {' or '.join(wanted[:2])}; it has {', '.join(columns)}")


def _known_names(metadata: bytes | None, column: str) -> list[str]:
    """The label names in what Hugging Face writes beside a schema."""
    try:
        features: Any = json.loads(metadata or b"{}")["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (ValueError, KeyError, TypeError):
        return []


def _wordnet_ids(names: list[str], labels: list[int], count: int) -> list[str]:
    """The id of each label from files' names such as n01440764_18.JPEG; none where any has none, or two have one."""
    found: dict[int, str] = {}
    for name, label in zip(names, labels, strict=True):
        if label >= 0 and label not in found:
            match = re.search(r"n\d{8}", name)
            if match is None:
                return []
            found[label] = match[0]
    return [found[label] for label in range(count)] if len(set(found.values())) == len(found) == count else []


def _plain(name: str) -> str:
    return name.replace("/", "_").replace("\n", " ").strip() or "_"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
