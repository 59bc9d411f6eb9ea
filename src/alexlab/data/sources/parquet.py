"""Parquet shards as Hugging Face distributes data sets: a column of encoded images and one of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.data.sources.source import (
    MAX_CLASSES,
    MAX_FILE_BYTES,
    Item,
    LeftOut,
    Listing,
    RawError,
    Source,
    file_state,
    is_ignored_path,
    sorted_rows,
)

_SPLIT = re.compile(r"^(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)
_OF = re.compile(r"-of-(\d{1,9})\b")
_WORDNET_ID = re.compile(r"n\d{8}")
_WORDNET_SUFFIX = re.compile(r"_n\d{8}(?=\.\w+$)")  # Hugging Face adds the class to ImageNet's own names
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "jpg"), ("label", "labels", "cls", "fine_label")
_MAX_NAME = 4096
_MAX_RATIO = 50  # of a column's size to its compressed size; encoded images hardly compress


@dataclass(frozen=True)
class RowPart:
    """Rows of one row group of a shard."""

    path: str
    column: str  # with ".bytes" if it is a struct
    group: int
    rows: list[int]

    def read(self) -> Iterator[Item]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as shard:
                # One row at a time, since images may be large.
                batches = shard.iter_batches(1, row_groups=[self.group], columns=[self.column], use_threads=False)
                wanted, row = iter(self.rows), 0
                next_row = next(wanted, None)
                for batch in batches:
                    for value in _bytes_of(batch.column(0)):
                        if row == next_row:
                            yield _item(value)
                            next_row = next(wanted, None)
                        row += 1
                    if next_row is None:
                        return
        except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
            raise RawError(f"{self.path}: is corrupt ({_first_line(error)}); fetch it again") from error
        raise RawError(f"{self.path}: has fewer rows than its metadata say; fetch it again")


def _bytes_of(column: Any) -> Any:
    """The bytes in a column: itself, or a field of it."""
    import pyarrow as pa

    return column.field("bytes") if pa.types.is_struct(column.type) else column


def _item(value: Any) -> Item:
    import pyarrow as pa

    kind = value.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) or not value.is_valid:
        return Item(None, "no bytes in the table")
    if value.as_buffer().size > MAX_FILE_BYTES:
        return Item(None, f"too large, {value.as_buffer().size // 2**20} MiB")
    return Item(value.as_py())


@dataclass
class Rows:
    """Each image is a row of one of several tables."""

    shards: list[str]
    column: str
    shard: np.ndarray  # int32 [N]: index into shards
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
        RawError: if a split's shards are in several folders, or some are missing by the count in their names.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted([*root.glob("*.parquet"), *root.glob("*/*.parquet"), *root.glob("*/*/*.parquet")]):
        match = _SPLIT.match(path.name) or _SPLIT.match(path.parent.name)
        if match and path.is_file() and not is_ignored_path(path.relative_to(root).as_posix()):
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


@dataclass
class _Table:
    """The rows of a split's shards."""

    names: list[str]
    labels: list[int]
    locations: Rows
    class_names: list[str]  # in the order of its metadata; empty without


def read_parquet(root: Path, shards: dict[str, list[Path]]) -> Source:
    """A data set from its shards.

    Labels are the training table's own; those of a table that numbers the same classes in another order are translated.
    A class is named by the WordNet id in its files' names if there is one (ImageNet's), else by the table's metadata.

    Raises:
        RawError: if pyarrow or a column is missing, a shard is truncated, tables have different classes, or there is no
            training split.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise RawError(f"{root}: parquet shards need pyarrow; pip install '.[parquet]'") from error
    if "train" not in shards:
        raise RawError(f"{root}: has no train-*.parquet; there are shards of {', '.join(sorted(shards))}")
    folders = {path.parent for paths in shards.values() for path in paths}
    source = Source("parquet shards", [], {}, inputs=sorted(folders))
    tables: dict[str, _Table] = {}
    for split in sorted(shards, key=lambda split: split != "train"):
        table = _read_split(shards[split])
        unlabelled = [label < 0 for label in table.labels]
        if table.labels and all(unlabelled):
            source.warnings.append(f"{split} has {len(table.labels)} images without labels; it is left out")
            continue
        for name, without in zip(table.names, unlabelled, strict=True):
            if without:
                source.left_out.append(LeftOut(split, name, "has no label"))
        tables[split] = table
    if "train" not in tables:
        raise RawError(f"{root}: the training split has no labels")
    known = next((table.class_names for table in tables.values() if table.class_names), [])
    for split, table in tables.items():
        table.labels = _translated(table.labels, table.class_names or known, known, f"{root}: {split}")
    count = max(max(table.labels, default=0) for table in tables.values()) + 1
    named = known[:] if len(known) >= count else [f"{label:04d}" for label in range(count)]
    source.classes = _wordnet_ids(tables["train"], len(named)) or [_plain(name) for name in named]
    if source.classes[0] != _plain(named[0]):  # ImageNet: the names that its tars have
        for split, table in tables.items():
            _check_wordnet_ids(table, source.classes, f"{root}: {split}")
            table.names = [_WORDNET_SUFFIX.sub("", name) for name in table.names]
    if source.classes != named and len(known) >= count:
        source.words = dict(zip(source.classes, named, strict=True))
    for split, table in tables.items():
        rows = [row for row in sorted_rows(table.labels, table.names) if table.labels[row] >= 0]
        old = table.locations
        locations = Rows(old.shards, old.column, old.shard[rows], old.group[rows], old.row[rows])
        names = [table.names[row] for row in rows]
        source.splits[split] = Listing(names, np.array(table.labels, np.int64)[rows], locations)
    return source


def _translated(labels: list[int], names: list[str], known: list[str], table: str) -> list[int]:
    """Convert labels that index `names` to labels that index `known`.

    Raises:
        RawError: if a class is in only one of them.
    """
    if names == known:
        return labels
    if len({*names}) < len(names) or len({*known}) < len(known) or {*names} != {*known}:
        first = next(((a, b) for a, b in zip(sorted(names), sorted(known), strict=False) if a != b), ("", ""))
        raise RawError(
            f"{table} has the classes {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}, another table has "
            f"{', '.join(known[:5])}{', ...' if len(known) > 5 else ''}; first difference: "
            f"{first[0] or len(names)!r} and {first[1] or len(known)!r}"
        )
    index = {name: label for label, name in enumerate(known)}
    if max(labels, default=0) >= len(names):
        raise RawError(f"{table} has the label {max(labels)}, but only {len(names)} names of classes")
    return [index[names[label]] if label >= 0 else label for label in labels]


def _read_split(paths: list[Path]) -> _Table:
    import pyarrow as pa

    table = _Table([], [], Rows([str(path) for path in paths], "", *(np.empty(0, np.int32) for _ in range(3))), [])
    locations: list[tuple[int, int, int]] = []
    for number, path in enumerate(paths):
        try:
            _read_shard(path, number, table, locations)
        except (pa.ArrowException, OSError, KeyError, MemoryError, UnicodeDecodeError, OverflowError) as error:
            raise RawError(f"{path}: is truncated or corrupt ({_first_line(error)}); fetch it again") from error
    where = np.array(locations, np.int64).reshape(-1, 3)
    rows = table.locations
    rows.shard, rows.group, rows.row = where[:, 0].astype(np.int32), where[:, 1].astype(np.int32), where[:, 2]
    return table


def _read_shard(path: Path, number: int, table: _Table, locations: list[tuple[int, int, int]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as shard:
        schema = shard.schema_arrow
        image_column, label_column = (_column(path, schema.names, w) for w in (_IMAGE_COLUMNS, _LABEL_COLUMNS))
        if not pa.types.is_integer(schema.field(label_column).type):
            raise RawError(f"{path}: its column {label_column} holds no integers, as labels must be")
        columns = [column.path for column in map(shard.schema.column, range(len(shard.schema)))]
        path_column, bytes_column = f"{image_column}.path", f"{image_column}.bytes"
        wanted = [label_column, *([path_column] if path_column in columns else [])]
        _check_sizes(path, shard.metadata, [*wanted, image_column, bytes_column])
        class_names = _class_names((schema.metadata or {}).get(b"huggingface"), label_column)
        column = bytes_column if bytes_column in columns else image_column
        if column == image_column and pa.types.is_nested(schema.field(image_column).type):
            raise RawError(f"{path}: its column {image_column} holds no image bytes")
        if number and column != table.locations.column:
            raise RawError(f"{path}: its image column differs from that of {table.locations.shards[0]}")
        table.locations.column = column
        labels: list[int] = []
        for group in range(shard.num_row_groups):
            content = shard.read_row_group(group, columns=wanted)
            found = content.column(label_column).to_pylist()
            inside = content.column(image_column).to_pylist() if path_column in columns else [None] * len(found)
            for row, (label, image) in enumerate(zip(found, inside, strict=True)):
                labels.append(-1 if label is None else min(label, MAX_CLASSES))
                name = image.get("path") if isinstance(image, dict) else None
                if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
                    name = f"{path.stem}/{group:05d}-{row:06d}"
                table.names.append(name)
                locations.append((number, group, row))
    if max(labels, default=0) >= MAX_CLASSES:
        raise RawError(f"{path}: has a label of {MAX_CLASSES:,} or more; labels count classes from 0")
    table.class_names = table.class_names or class_names
    table.labels += _translated(labels, class_names or table.class_names, table.class_names, str(path))


def _check_sizes(path: Path, metadata: Any, columns: list[str]) -> None:
    """Refuse shards in which a few bytes decompress to very many, before reading any."""
    size = path.stat().st_size
    if metadata.num_rows > size:
        raise RawError(f"{path}: claims {metadata.num_rows:,} rows in {size:,} bytes; fetch it again")
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            full = column.total_uncompressed_size
            if column.path_in_schema in columns and full > MAX_FILE_BYTES // 4 and full > _MAX_RATIO * size:
                raise RawError(
                    f"{path}: its column {column.path_in_schema} decompresses from at most {size:,} to {full:,} bytes"
                )


def _column(path: Path, columns: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if columns.count(name) == 1:
            return name
    raise RawError(f"{path}: must have one column {' or '.join(wanted[:2])}; it has {', '.join(columns)}")


def _class_names(metadata: bytes | None, column: str) -> list[str]:
    """The class names in the metadata that Hugging Face adds to a schema."""
    try:
        features: Any = json.loads(metadata or b"{}")["info"]["features"]
        names = features[column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    is_list = isinstance(names, list) and len(names) <= MAX_CLASSES
    return [str(name) for name in names] if is_list and all(isinstance(name, str | int) for name in names) else []


def _wordnet_ids(table: _Table, count: int) -> list[str]:
    """The WordNet id of each label, from file names such as n01440764_18.JPEG; empty if one is missing or shared."""
    found: dict[int, str] = {}
    for name, label in zip(table.names, table.labels, strict=True):
        if label >= 0 and label not in found:
            match = _WORDNET_ID.search(name)
            if match is None:
                return []
            found[label] = match[0]
    is_complete = found.keys() == set(range(count)) and len(set(found.values())) == count
    return [found[label] for label in range(count)] if is_complete else []


def _check_wordnet_ids(table: _Table, classes: list[str], title: str) -> None:
    """Refuse a table if most of its labels differ from the ids in its files' names (a few may be corrections)."""
    ids = [_WORDNET_ID.search(name) for name in table.names]
    pairs = [(match[0], label) for match, label in zip(ids, table.labels, strict=True) if match and label >= 0]
    wrong = [(found, label) for found, label in pairs if found != classes[label]]
    if 2 * len(wrong) > len(pairs):
        found, label = wrong[0]
        raise RawError(
            f"{title} has images of {found} with the label {label}, which is class {classes[label]} in train"
        )


def _plain(name: str) -> str:
    return name.replace("/", "_").replace("\n", " ").strip() or "_"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
