"""Source files and stores of strangers: each is read or refused in one line, without minutes or gigabytes."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from alexlab.cli.prepare import main
from alexlab.data.decode import Unreadable, read_square
from alexlab.data.sources.folders import read_folders
from alexlab.data.sources.source import is_ignored, is_ignored_path
from alexlab.data.store import BadData, locked, open_store, store_hash
from support import source_files as raw
from support.source_files import WNIDS

MAX_CPU_SECONDS = 20  # what took minutes takes less than one now
MAX_BYTES = 500e6


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch):
    for name in ("alexlab.data.locate.cpu_count", "alexlab.cli.prepare.cpu_count"):
        monkeypatch.setattr(name, lambda: 1)


def memory(name: str) -> int:
    """A number of bytes in this process's status: VmRSS, or VmHWM, its maximum."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Each test ends within bounds of processor time and memory."""

    def stop(*_: object) -> None:
        raise AssertionError(f"more than {MAX_CPU_SECONDS} seconds of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def refused(capsys: pytest.CaptureFixture[str], root: Path, data: str, status: int = 2) -> str:
    """The one line in which `prepare` refuses a folder, within bounds of memory."""
    capsys.readouterr()
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")  # forget the maximum
    before = memory("VmRSS")
    assert main([f"data={data}", f"data.raw={root}", f"data.cache={root.parent / 'cache'}", "data.size=16"]) == status
    assert memory("VmHWM") - before < MAX_BYTES
    told = capsys.readouterr().err
    lines = [
        line for line in told.splitlines() if not re.match(r"Preparing|Reading the index|\d+ (of|images|classes)", line)
    ]
    assert len(lines) == 1, told
    return lines[0]


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """A tar's header, its checksum included, with any size."""
    field = b"%011o\0" % size if size >= 0 else b"\xff" + (2**88 + size).to_bytes(11)
    block = struct.pack("100s8s8s8s12s12s8sc355s", name.encode(), b"644", b"", b"", field, b"0", b" " * 8, kind, b"")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


TAR_END = bytes(1024)
TARS = {
    # Of unknown type and negative size: read again and again.
    "a member that ends before it starts": header("a", 0) + header("x", -512, b"Z") + TAR_END,
    # A regular expression of Python before 3.11.10 takes quadratic time (CVE-2024-6232).
    "a header of digits": header("x", 160_000, b"x") + padded(b"1" * 160_000) + header("y", 0) + TAR_END,
    "a shorter header of digits": header("x", 60_000, b"x") + padded(b"1" * 60_000) + header("y", 0) + TAR_END,
    "a long chain of headers": b"".join(header("x", 3, b"L") + padded(b"abc") for _ in range(2000)) + TAR_END,
    "a name of many megabytes": header("x", 2**24, b"L") + bytes(2**24) + header("y", 0) + TAR_END,
}


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
@pytest.mark.parametrize("case", TARS)
def test_tars_that_never_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, name: str):
    root = raw.imagenet_tars(tmp_path / "raw")
    (root / name).write_bytes(TARS[case])
    assert f"{name}: is truncated or corrupt" in refused(capsys, root, "imagenet2012")


@pytest.mark.parametrize("case", TARS)
def test_compressed_tars_that_never_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(gzip.compress(TARS[case]))
    assert "cifar-10-python.tar.gz: is truncated or corrupt" in refused(capsys, root, "cifar10")


def test_a_sparse_member_is_not_read_as_its_map(tmp_path: Path):
    """Its size is that of the file it stands for, its bytes in the tar are a table and pieces."""
    content = b"1\n0\n3\n".ljust(512, b"\0") + padded(b"abc")
    lines = [
        b"GNU.sparse.major=1\n",
        b"GNU.sparse.minor=0\n",
        b"GNU.sparse.name=n1.JPEG\n",
        b"GNU.sparse.realsize=700\n",
    ]
    fields = b"".join(b"%d %s" % (len(line) + 3, line) for line in lines)
    path = tmp_path / "x.tar"
    path.write_bytes(header("p", len(fields), b"x") + padded(fields) + header("s", len(content)) + content + TAR_END)
    from alexlab.data.sources.source import LeftOut
    from alexlab.data.sources.tars import members

    assert [type(member) for member in members(path)] == [LeftOut]


@pytest.mark.parametrize("form", ["split tar", "train tar"])
def test_of_two_members_of_one_name_the_later_one_counts(tmp_path: Path, form: str):
    """As in class tars and flat tars; appending to a tar replaces a file so."""
    from alexlab.data.sources.tars import read_split_tar

    folder = "x/train/n00000001" if form == "split tar" else "n00000001"
    members = [(tarfile.TarInfo(f"{folder}/n00000001_0.JPEG"), raw.photo(seed)) for seed in (1, 2, 3)]
    if form == "split tar":
        path = tmp_path / "x.tar"
        path.write_bytes(raw.tar_of(members))
        source = read_split_tar(path, path)
    else:
        from alexlab.data.sources.tars import TARS_2012, read_tars

        root = raw.imagenet_tars(tmp_path)
        others = [(tarfile.TarInfo(f"{wnid}/{wnid}_1.JPEG"), raw.photo(4)) for wnid in WNIDS[:1] + WNIDS[2:]]
        (root / "ILSVRC2012_img_train.tar").write_bytes(raw.tar_of([*members, *others]))
        source = read_tars(root, TARS_2012, 1)
    listing = source.splits["train"]
    assert listing.names.count("n00000001/n00000001_0.JPEG") == 1
    first = next(item for part in listing.locations.parts() for item in listing.locations.part(part).read())
    assert first.content == raw.photo(3)


def bomb(megabytes: int, name: str, others: dict[str, bytes]) -> bytes:
    """A compressed tar whose first member is zeros."""
    zeros = header(name, megabytes * 2**20)
    packer = zlib.compressobj(1, wbits=31)
    content = packer.compress(zeros)
    for _ in range(megabytes):
        content += packer.compress(bytes(2**20))
    return content + packer.compress(raw.tar_of(others)) + packer.flush()


def test_an_archive_of_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """CIFAR-10's is decompressed in memory, Imagenette's to the disk: as far as such an archive could have files."""
    root = tmp_path / "raw"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(bomb(300, "x", raw.cifar_batches()))
    assert "is truncated or corrupt" in refused(capsys, root, "cifar10")
    (root / "imagenette2.tgz").write_bytes(bomb(300, "x", {}))
    assert "decompresses to more than 50 times its size" in refused(capsys, root, "imagenette")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.stat().st_size > 1e6]


def pickled(table: dict[bytes, object]) -> bytes:
    return pickle.dumps(table, protocol=2)


def nested_key() -> bytes:
    """A dictionary whose key is a pair of a pair of ...: its hash takes exponential time."""
    pairs = b"".join(b"q%ch%ch%c\x86" % (number, number, number) for number in range(60))
    return b"\x80\x02})" + pairs + b"Ns."


def repeated_text() -> bytes:
    """A long text that is encoded many times."""
    text = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6
    call = b"c_codecs\nencode\nh\0h\1\x86R"
    return b"\x80\x02" + text + b"q\0X\6\0\0\0latin1q\1]" + call + b"(" + call * 2000 + b"t."


def pickled_pointer(*, dtype: bytes, array: bytes) -> bytes:
    """A batch whose array is of objects, at whatever address a pickle says."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\0tU\1b\x87R"
    no_flags = b"(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"  # so that NumPy takes bytes for the objects
    kind = b"cnumpy\ndtype\n(U" + bytes([len(dtype)]) + dtype + b"I00\nI01\ntR" + no_flags * (array[:1] == b"U")
    state = b"(K\1(K\1t" + kind + b"I00\n" + array + b"tb"
    return b"\x80\x02}(U\4data" + made + state + b"U\6labels](K\0eU\x09filenames](U\1xeu."


PICKLES = {
    "an array of pointers": pickled_pointer(dtype=b"O8", array=b"U\x08AAAAAAAA"),
    "an array of objects": pickled_pointer(dtype=b"O8", array=b"](K\1e"),
    "an array of structures": pickled_pointer(dtype=b"V8", array=b"U\x08AAAAAAAA"),
    "an array made of its buffer": b"\x80\x02}U\4datacnumpy\nndarray\n(K\1tcnumpy\ndtype\nU\2O8\x85R"
    b"U\x08AAAAAAAA\x87Rs.",
    "an object of a huge number": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a key of pairs of pairs": nested_key(),
    "a text encoded many times": repeated_text(),
    "very many parts": b"\x80\x02](" + b"N" * 2_000_000 + b"e.",
    "a long array that is only announced": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "a state for a function": b"\x80\x02c_codecs\nencode\n}b.",
    "a number of many digits": b"\x80\x02L" + b"9" * 100_000 + b"L\n.",
    "a label beyond any": pickled({b"data": np.zeros((1, 3072), np.uint8), b"labels": [2**64], b"filenames": [b"x"]}),
    "a name that is no text": pickled({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1], b"filenames": [7]}),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_are_bytes_numbers_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str):
    batches = raw.cifar_batches() | {"data_batch_2": PICKLES[case]}
    root = raw.write_tree(tmp_path / "raw", {f"cifar-10-batches-py/{name}": text for name, text in batches.items()})
    assert "CIFAR-10's data_batch_" in refused(capsys, root, "cifar10")


def write_table(path: Path, columns: dict[str, object], **options: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


class TestTables:
    def test_a_label_beyond_any_class(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        for label in (2**31, 10**7, 2**63 - 1):
            write_table(tmp_path / "raw" / "train.parquet", {"image": [raw.photo(1)], "label": [label]})
            assert "has a label of 100,000 or more" in refused(capsys, tmp_path / "raw", "folder")

    def test_a_cell_of_zeros(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        path = tmp_path / "raw" / "train.parquet"
        write_table(path, {"image": [bytes(100 * 2**20)], "label": [0]}, compression="zstd")
        assert path.stat().st_size < 2**20
        assert "its column image decompresses from" in refused(capsys, tmp_path / "raw", "folder")

    def test_more_rows_than_bytes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        path = tmp_path / "raw" / "train.parquet"
        write_table(path, {"image": [None] * 10**6, "label": [0] * 10**6}, compression="zstd")
        assert "rows in" in refused(capsys, tmp_path / "raw", "folder")

    def test_odd_columns(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = tmp_path / "raw" / "train.parquet"
        path.parent.mkdir()
        image, label = pa.array([raw.photo(1)]), pa.array([0])
        for columns, names, named in (
            ([image, label, label], ["image", "label", "label"], "must have one column label or labels"),
            ([pa.array([[1, 2]]), label], ["image", "label"], "holds no image bytes"),
            ([pa.array([{"path": "x"}]), label], ["image", "label"], "holds no image bytes"),
        ):
            pq.write_table(pa.Table.from_arrays(columns, names), path)
            assert named in refused(capsys, path.parent, "folder")

    def test_a_path_that_is_no_text(self, tmp_path: Path):
        from alexlab.data.sources.parquet import find_shards, read_parquet

        image = [{"bytes": raw.photo(1), "path": 7}]
        write_table(tmp_path / "train.parquet", {"image": image, "label": [0]})
        assert read_parquet(tmp_path, find_shards(tmp_path)).splits["train"].names == ["train/00000-000000"]

    def test_a_pipe_among_the_shards(self, tmp_path: Path):
        from alexlab.data.sources.parquet import find_shards

        raw.parquet(tmp_path)
        os.mkfifo(tmp_path / "data" / "train-00002-of-00002.parquet")
        raw.write_tree(tmp_path, {"data/.ipynb_checkpoints/train-0-checkpoint.parquet": b"x", "._train.parquet": b"x"})
        assert {split: len(paths) for split, paths in find_shards(tmp_path).items()} == {
            "train": 2,
            "val": 1,
            "test": 1,
        }


def named_table(path: Path, classes: list[str], rows: list[tuple[bytes, str]]) -> None:
    """A shard that numbers classes in the order of a list, in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"names": classes, "_type": "ClassLabel"}}
    schema = pa.schema(
        {"image": pa.binary(), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = [{"image": content, "label": classes.index(name)} for content, name in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, schema), path)


class TestLabelsFollowNames:
    COLOURS: dict[str, tuple[int, int, int]] = {"cat": raw.RED, "dog": raw.GREEN, "owl": raw.BLUE}  # noqa: RUF012

    def rows(self, seed: int) -> list[tuple[bytes, str]]:
        return [(raw.photo(seed, colour), name) for name, colour in self.COLOURS.items()]

    def test_tables_that_number_their_classes_otherwise(self, tmp_path: Path):
        """Owls are not cats because a second table, or a second shard of one, lists them first."""
        from alexlab.data.build import build_store
        from alexlab.data.sources.parquet import find_shards, read_parquet

        root = tmp_path / "raw"
        named_table(root / "train-0.parquet", ["cat", "dog", "owl"], self.rows(1))
        named_table(root / "train-1.parquet", ["dog", "owl", "cat"], self.rows(2))
        named_table(root / "validation-0.parquet", ["owl", "cat", "dog"], self.rows(3))
        build_store(read_parquet(root, find_shards(root)), tmp_path / "store", 16, "folder")
        store = open_store(tmp_path / "store")
        for split in ("train", "val"):
            found = store.split(split)
            for index, label in enumerate(found.labels):
                colour = self.COLOURS[store.classes[label]]
                np.testing.assert_allclose(found.image(index).mean((0, 1)), colour, atol=8)

    def test_tables_of_different_classes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        named_table(tmp_path / "raw" / "train-0.parquet", ["cat", "dog", "owl"], self.rows(1))
        named_table(tmp_path / "raw" / "validation-0.parquet", ["owl", "cat", "dog", "emu"], self.rows(3))
        told = refused(capsys, tmp_path / "raw", "folder")
        assert "has the classes owl, cat, dog, emu, another table has cat, dog, owl" in told
        assert "first difference: dog and dog" not in told

    def test_ids_in_file_names_contradict_the_labels(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        for split, labels in (("train", [0, 1, 2]), ("validation", [2, 0, 1])):
            image = [{"bytes": raw.photo(1), "path": f"{split}_{wnid}.JPEG"} for wnid in sorted(WNIDS)]
            write_table(tmp_path / "raw" / f"{split}.parquet", {"image": image, "label": labels})
        told = refused(capsys, tmp_path / "raw", "imagenet2012")
        assert "has images of n00000001 with the label 2, which is class n00000003 in train" in told


class TestKit:
    def meta(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> str:
        root = raw.imagenet_tars(tmp_path / "raw")
        (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
        files = {"meta.mat": content, "ILSVRC2012_validation_ground_truth.txt": b"1\n2\n"}
        raw.write_tree(root / "ILSVRC2012_devkit_t12", files)
        return refused(capsys, root, "imagenet2012")

    def test_a_table_of_zeros(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        head = savemat_bytes({"x": 1})[:128]
        block = zlib.compress(struct.pack("<II", 14, 2**28) + bytes(2**28))
        told = self.meta(tmp_path, capsys, head + struct.pack("<II", 15, len(block)) + block)
        assert "decompresses to more than 16 MiB" in told

    def test_a_table_of_tables_of_tables(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        """Its reader would call itself until the process has no stack left."""
        value: object = 1
        for _ in range(20):
            value = np.array([value, 1], dtype=object)
        assert "nested too deeply" in self.meta(tmp_path, capsys, savemat_bytes({"synsets": value}))


def savemat_bytes(values: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, values)
    return buffer.getvalue()


def repeated_scans(number: int) -> bytes:
    """A progressive JPEG whose last scan comes many times."""
    content = raw.encoded(Image.new("RGB", (3000, 3000), raw.RED), progressive=True)
    last = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + last * number + b"\xff\xd9"


class TestImages:
    def test_a_jpeg_of_thousands_of_scans(self):
        with pytest.raises(Unreadable, match="has 5010 scans of 3000 x 3000 pixels"):
            read_square(repeated_scans(5000), "x.jpg", 16)
        read_square(repeated_scans(5), "x.jpg", 16)

    def test_bytes_behind_a_picture_are_no_scans(self):
        """A motion photograph's film may look like thousands of them."""
        content = raw.encoded(Image.new("RGB", (3000, 3000), raw.RED)) + b"\xff\xda" * 5000
        np.testing.assert_allclose(read_square(content, "x.jpg", 16)[0].mean((0, 1)), raw.RED, atol=3)


def test_a_very_deep_tree(tmp_path: Path):
    """Deeper than Python's recursion; its other images are used."""
    root = raw.class_folders(tmp_path / "raw")
    descriptor = os.open(root / "train" / WNIDS[0], os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    source = read_folders(root)
    assert len(source.splits["train"]) == 12
    assert [item.reason for item in source.left_out] == ["more than 50 folders deep"]
    import subprocess

    subprocess.run(["rm", "-rf", str(root)], check=True)  # pytest's own removal recurses


PIPES = {
    "Tiny ImageNet's labels": (raw.tiny_imagenet, "val/val_annotations.txt", "folder"),
    "Kaggle's labels": (raw.kaggle, "LOC_val_solution.csv", "imagenet2012"),
    "the kit": (raw.imagenet_tars, "ILSVRC2012_devkit_t12.tar.gz", "imagenet2012"),
    "a tar": (raw.imagenet_tars, "ILSVRC2012_img_val.tar", "imagenet2012"),
    "labels of 2010": (raw.imagenet2010_tars, "ILSVRC2010_test_ground_truth.txt", "imagenet2010"),
    "CIFAR-10's archive": (raw.cifar, "cifar-10-python.tar.gz", "cifar10"),
    "Imagenette's archive": (raw.imagenette, "imagenette2.tgz", "imagenette"),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("case", PIPES)
def test_pipes_and_devices_are_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, kind: str):
    make, name, data = PIPES[case]
    root = make(tmp_path / "raw")
    (root / name).unlink()
    if kind == "pipe":
        os.mkfifo(root / name)
    else:
        (root / name).symlink_to("/dev/zero")
    capsys.readouterr()
    assert main([f"data={data}", f"data.raw={root}", f"data.cache={tmp_path / 'cache'}", "data.size=16"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_pipes_of_names_in_an_unpacked_kit_and_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = raw.imagenet_tars(tmp_path / "raw")
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    (root / "ILSVRC2012_devkit_t12").mkdir()
    os.mkfifo(root / "ILSVRC2012_devkit_t12" / "meta.mat")
    assert "meta.mat: not a regular file" in refused(capsys, root, "imagenet2012")
    batches = raw.write_tree(tmp_path / "c", {f"cifar-10-batches-py/{n}": c for n, c in raw.cifar_batches().items()})
    (batches / "cifar-10-batches-py" / "data_batch_3").unlink()
    os.mkfifo(batches / "cifar-10-batches-py" / "data_batch_3")
    assert "data_batch_3: not a regular file" in refused(capsys, batches, "cifar10")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    from alexlab.data.build import build_store

    build_store(read_folders(raw.class_folders(tmp_path / "raw")), tmp_path / "store", 16, "folder")
    return tmp_path / "store"


class TestStores:
    @pytest.mark.parametrize("name", ["mean.npy", "train_labels.npy", "train.npy", "val_names.txt", "manifest.json"])
    @pytest.mark.parametrize("kind", ["pipe", "device", "empty", "zip", "huge", "void"])
    def test_files_that_are_none(self, store: Path, name: str, kind: str):
        (store / name).unlink()
        if kind == "pipe":
            os.mkfifo(store / name)
        elif kind == "device":
            (store / name).symlink_to("/dev/zero")
        elif kind in ("huge", "void") and name.endswith(".npy"):
            with (store / name).open("wb") as file:
                header = {"descr": "<i8" if kind == "huge" else "|V0", "fortran_order": False, "shape": (2**40,)}
                np.lib.format.write_array_header_1_0(file, header)
        elif kind == "zip" and name.endswith(".npy"):
            np.savez(store / name, a=np.zeros(3))
            (store / f"{name}.npz").rename(store / name)
        elif name == "val_names.txt":
            return  # names are for people
        else:
            (store / name).write_bytes(b"" if kind == "empty" else b"[" * 10**6)
        with pytest.raises(BadData, match=re.escape(str(store))):
            open_store(store)

    MANIFEST: dict[str, list[object]] = {  # noqa: RUF012
        "name": [None, 7, "x" * 1000],
        "format": ["png", None, ["raw"], {}],
        "size": [None, "16", 16.0, 0, -1, 10**9, True],
        "images": [None, [], {}, {"train": -1}, {"train": 12, "../../x": 1}, {"train": "12"}, {"val": 5}],
        "classes": [None, "abc", [1, 2, 3], [], ["x"] * 200_000, [None]],
        "rgb": [None, {}, {"components": [[1]], "variances": [1, 1, 1]}, {"components": "x", "variances": "y"}],
        "hash": [None, 7, "A" * 64, "0" * 63, "/../../x"],
        "warnings": [None, "x", [1]],
        "converted": [None, [], {"x": "y"}, {"x": [1]}],
        "left_out": [None, {}, ["x"], [{"split": "train"}], [{"split": 1, "name": 2, "reason": 3}]],
        "duplicates": [None, {}, {"within": [1], "across": []}],
        "class_counts": [None, [], {"train": []}, {"train": ["1"], "val": [1]}, {"train": [1]}],
        "known_images": [None, [], {"train": "x"}],
        "words": [None, [], {"x": 1}],
        "raw": [7, []],
        "resize": [None, 7],
        "source": [None, 7],
        "format_version": [None, "2", [], 3],
    }

    def test_every_value_of_a_manifest_has_its_type(self, store: Path, capsys: pytest.CaptureFixture[str]):
        path = store / "manifest.json"
        whole = json.loads(path.read_text())
        for key, values in self.MANIFEST.items():
            for number, value in enumerate([*values, "gone"]):
                changed = {name: item for name, item in whole.items() if name != key}
                path.write_text(json.dumps(changed | ({} if value == "gone" else {key: value})))
                os.utime(path, ns=(number, number + hash(key) % 10**12))  # manifests are read once per change
                with pytest.raises(BadData, match=f"{key}('\\)| is missing)|its counts differ|store format"):
                    open_store(store)
        given = ["data=folder", f"data.root={store}", f"data.raw={store.parent / 'raw'}", "data.size=16"]
        for text in (json.dumps({**whole, "left_out": 7}), "[" * 10**5, '{"format_version": 1' + "0" * 5000 + "}"):
            path.write_text(text)
            capsys.readouterr()
            assert main(given) in (1, 2)
            assert capsys.readouterr().err.count("\n") == 1

    def test_a_position_beyond_what_numbers_can_count(self, tmp_path: Path):
        """The end of such an image is negative, by overflow."""
        from alexlab.data.build import build_store
        from alexlab.data.store import positions_hash

        path = tmp_path / "store"
        build_store(read_folders(raw.class_folders(tmp_path / "raw")), path, 16, "folder", "jpeg")
        positions = np.load(path / "val_places.npy")
        positions[0] = 2**63 - 1
        np.save(path / "val_places.npy", positions)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["places_hash"] = positions_hash(path, manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BadData, match="an image of val lies outside of"):
            open_store(path)

    def test_counts_of_a_corrupt_store(self, store: Path):
        """A plan counts images before any run opens the store."""
        from alexlab.data.store import counts_held_out

        (store / "train_content.npy").write_bytes(b"x")
        with pytest.raises(BadData, match="is corrupt"):
            counts_held_out(store, "x", 1)

    def test_the_hash_of_a_store(self, tmp_path: Path):
        """Run ids hold it, so that a store has the same one for every version of this code: this is that of 0.1."""
        images = {"train": 4, "val": 2}
        np.save(tmp_path / "mean.npy", np.arange(27, dtype=np.float32).reshape(3, 3, 3) / 7)
        for split, count in images.items():
            np.save(tmp_path / f"{split}_labels.npy", np.arange(count) % 2)
            for number, what in enumerate(("content", "stored")):
                hashes = (np.arange(16 * count, dtype=np.uint8) + number).reshape(count, 16)
                np.save(tmp_path / f"{split}_{what}.npy", hashes)
        rgb = {"mean": [0.5, 0.25, 0.125], "components": np.eye(3).tolist(), "variances": [0.3, 0.2, 0.1]}
        manifest = {"format_version": 2, "format": "raw", "size": 3, "resize": "crop", "classes": ["a", "b"]}
        manifest |= {"images": images, "rgb": rgb, "source_files": "a later addition"}
        expected = "48062a9a69f8d4540748ba187085a5561790b5db40a83d68fe82f5003ab6e525"
        assert store_hash(tmp_path, manifest) == expected

    def test_a_store_of_before_source_files_were_listed(self, store: Path):
        (store / "source_files.json").unlink()
        path = store / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["source_files"], manifest["places_hash"]
        path.write_text(json.dumps(manifest))
        assert open_store(store).manifest["hash"] == manifest["hash"]


class TestLocks:
    def test_a_file_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
        import errno
        import fcntl

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with locked(tmp_path / "x.lock"):
            told = capsys.readouterr().err
        assert "this file system has no locks (Function not implemented); continuing without" in told

    def test_a_lock_that_may_only_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """That of another user, in a cache that is shared."""
        path = tmp_path / "x.lock"
        path.touch(0o444)
        opened: list[int] = []
        whole = os.open
        monkeypatch.setattr(os, "open", lambda *args, **options: opened.append(args[1]) or whole(*args, **options))
        with locked(path):
            pass
        assert not opened[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)  # systems refuse O_CREAT in a sticky folder


IGNORED = [".DS_Store", "._cat.jpg", "Thumbs.db", "thumbs.db", "desktop.ini", ".hidden.jpg", "Icon\r"]
BACKUPS = ["cat.jpg~", "cat.jpg.bak", "cat.JPG.orig", ".cat.jpg.swp", "#cat.jpg#", "cat.jpg.swp"]
FOLDERS = ["__MACOSX", ".ipynb_checkpoints", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"]


class TestFilesOfSystems:
    def test_names(self):
        assert all(is_ignored(name) for name in IGNORED + BACKUPS)
        assert all(is_ignored_path(f"a/{name}/b.jpg") for name in FOLDERS)
        for name in ("cat.jpg", "a~b.jpg", "#1.jpg", "bak.jpg", "x.tmp", "thumbs.jpg", "a/b.c/d.jpg", "./a.jpg"):
            assert not is_ignored_path(name)

    def test_in_folders(self, tmp_path: Path):
        root = raw.class_folders(tmp_path / "raw")
        for name in IGNORED + BACKUPS + [f"{folder}/x.JPEG" for folder in FOLDERS]:
            raw.write_tree(root / "train" / WNIDS[0], {name: raw.photo(1)})
            raw.write_tree(root / "train", {name: raw.photo(1)})
        source = read_folders(root)
        assert (len(source.splits["train"]), source.left_out, source.classes) == (12, [], sorted(WNIDS))

    def test_in_tars(self, tmp_path: Path):
        from alexlab.data.sources.tars import TARS_2012, read_split_tar, read_tars

        names = IGNORED + BACKUPS + [f"{folder}/n00000001_9.JPEG" for folder in FOLDERS]
        train = raw.train_files()
        train["n00000001"] |= {name: raw.photo(1) for name in names}
        root = raw.imagenet_tars(tmp_path, train)
        val = raw.flat_files("ILSVRC2012", raw.VAL_NUMBERS) | {f"._{name}": b"x" for name in IGNORED}
        (root / "ILSVRC2012_img_val.tar").write_bytes(raw.tar_of(val))
        source = read_tars(root, TARS_2012, 1)
        assert (len(source.splits["train"]), source.left_out) == (12, [])
        path = tmp_path / "x.tar"
        files = {f"x/{split}/a/{name}": b"x" for split in ("train", "val") for name in [*names, "1.jpg"]}
        path.write_bytes(raw.tar_of(files))
        source = read_split_tar(path, path)
        assert ([listing.names for listing in source.splits.values()], source.left_out) == ([["a/1.jpg"]] * 2, [])

    def test_hidden_tables_do_not_hide_class_folders(self, tmp_path: Path):
        from alexlab.config import DataConfig, Dataset
        from alexlab.data.sources import recognise

        root = raw.write_tree(raw.class_folders(tmp_path / "raw"), {"train/._x.parquet": b"x"})
        assert recognise(DataConfig(name=Dataset.folder), root, tmp_path / "s", 1).form == "class folders"


class TestClassesAndEndings:
    def tree(self, root: Path) -> Path:
        files = {f"{split}/a/1.jpg": raw.photo(1) for split in ("train", "val")}
        for suffix in ("jfif", "jpe", "JPEG2", "dat"):
            files |= {f"{split}/{suffix}/1.{suffix}": raw.photo(2) for split in ("train", "val")}
        return raw.write_tree(root, files | {"train/none/1": raw.photo(3), "val/none/1": raw.photo(3)})

    def test_a_jpeg_is_read_whatever_its_ending(self, tmp_path: Path):
        source = read_folders(self.tree(tmp_path))
        assert source.classes == sorted(["a", "jfif", "jpe", "JPEG2", "dat", "none"])
        assert source.left_out == []

    def test_in_a_tar_too(self, tmp_path: Path):
        from alexlab.data.sources.tars import read_split_tar

        files = {
            f"x/{split}/{suffix}/1.{suffix}": raw.photo(2) for split in ("train", "val") for suffix in ("jfif", "dat")
        }
        (tmp_path / "x.tar").write_bytes(raw.tar_of(files | {"x/train/dat/notes.txt": b"x"}))
        source = read_split_tar(tmp_path / "x.tar", tmp_path / "x.tar")
        assert (source.classes, len(source.left_out)) == (["dat", "jfif"], 1)

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_a_class_whose_files_cannot_be_read_stops(self, tmp_path: Path, capsys, split: str):
        root = raw.class_folders(tmp_path / "raw")
        if split == "val":
            shutil.rmtree(root / "val" / WNIDS[0])
        name = "photos" if split == "train" else WNIDS[0]
        raw.write_tree(root / split / name, {"1.heic": b"x", "2.heic": b"x", "3.avif": b"x", "notes.txt": b""})
        told = refused(capsys, root, "folder")
        assert f"class '{name}' of {split}: none of its files has a supported format (2 .heic, 1 " in told
        assert "set data.on_bad=ignore" in told
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'cache'}", "data.size=16"]
        assert main([*given, "data.on_bad=ignore"]) == 0

    def test_a_class_of_corrupt_files_stops(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        root = raw.write_tree(raw.class_folders(tmp_path / "raw"), {"train/z/1.jpg": b"x", "train/z/2.jpg": b""})
        told = refused(capsys, root, "folder")
        assert "class 'z' of train: none of its files can be stored (z/1.jpg: not an image of a known format)" in told
        given = ["data=folder", f"data.raw={root}", f"data.cache={tmp_path / 'cache'}", "data.size=16"]
        assert main([*given, "data.on_bad=ignore"]) == 0
        store = open_store(next((tmp_path / "cache" / "stores").glob("folder-*-raw")))
        assert store.manifest["class_counts"]["train"] == [4, 4, 4, 0]

    def test_notes_are_no_class(self, tmp_path: Path):
        root = raw.write_tree(raw.class_folders(tmp_path), {"train/about/notes.txt": b"x", "train/about/x.xml": b""})
        source = read_folders(root)
        assert (source.classes, source.lost_classes) == (sorted(WNIDS), [])


def test_every_list_is_utf8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Python's default encoding would be that of the locale: GB18030 or Latin-1."""
    import builtins

    from alexlab.data.build import build_store

    root = raw.write_tree(tmp_path / "raw", {"train/ä/ö ±.jpg": raw.photo(1), "val/ä/1.jpg": raw.photo(2)})
    whole: Callable[..., object] = io.open

    def named(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest: Any, **more: Any):
        assert "b" in mode or encoding not in (None, "locale"), file
        return whole(file, mode, buffering, encoding, *rest, **more)

    monkeypatch.setattr(io, "open", named)
    monkeypatch.setattr(builtins, "open", named)
    build_store(read_folders(root), tmp_path / "store", 16, "folder")
    store = open_store(tmp_path / "store")
    assert store.classes == ["ä"]
    assert (store.path / "train_names.txt").read_bytes() == "ä/ö ±.jpg\n".encode()
