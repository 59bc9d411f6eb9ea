"""Raw data for the tests: odd image files, and small archives of every layout in which people hold ImageNet."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

RED, GREEN, BLUE = (200, 40, 40), (40, 180, 60), (40, 60, 200)


def flat(colour: tuple[int, int, int], height: int = 40, width: int = 50, seed: int = 0) -> Image.Image:
    """A patch of one colour with a little noise."""
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 1))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


def photo(seed: int, colour: tuple[int, int, int] = RED, height: int = 40, width: int = 50) -> bytes:
    """A JPEG file unlike that of any other seed."""
    return encoded(flat(colour, height, width, seed))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colour_type: int = 2) -> bytes:
    """A PNG with any header."""

    def block(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")


def adobe_cmyk() -> bytes:
    """A JPEG of four inks, stored inverted as Adobe's programs do; Pillow writes such ones."""
    inks = np.zeros((40, 50, 4), np.uint8)
    inks[...] = (0, 220, 220, 0)  # cyan, magenta, yellow, black: a red of 255, 35, 35
    return encoded(Image.fromarray(inks, "CMYK"))


def turned(orientation: int, image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif.tobytes())


def broken_exif() -> bytes:
    plain = photo(0, GREEN)
    block = b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f" + b"\x99" * 20
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def half_grey(image: Image.Image) -> bytes:
    """A JPEG cut in the middle and ended as if it were whole, which most decoders fill with grey."""
    whole = encoded(image)
    return whole[: len(whole) // 2] + b"\xff\xd9"


def animation() -> bytes:
    frames = [flat(GREEN), flat(RED)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def tar_of(members: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar; with a list, of whatever members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# The kit numbers classes in an order of its own, unlike that of the sorted ids (case F10).
WNIDS = ["n00000003", "n00000001", "n00000002"]  # of the kit's numbers 1, 2, 3
COLOURS = dict(zip(sorted(WNIDS), (RED, GREEN, BLUE), strict=True))
VAL_NUMBERS = [1, 2, 3, 3, 2]  # the kit's numbers of five validation images
TEST_NUMBERS = [3, 1]


def train_files(per_class: int = 4) -> dict[str, dict[str, bytes]]:
    """{class: {file name: content}}."""
    return {
        wnid: {f"{wnid}_{number}.JPEG": photo(100 * index + number, colour) for number in range(per_class)}
        for index, (wnid, colour) in enumerate(COLOURS.items())
    }


def flat_files(prefix: str, numbers: list[int], split: str = "val") -> dict[str, bytes]:
    return {
        f"{prefix}_{split}_{place:08d}.JPEG": photo(1000 + place + 100 * len(split), COLOURS[WNIDS[number - 1]])
        for place, number in enumerate(numbers, 1)
    }


def kit_meta(prefix: str) -> bytes:
    buffer = io.BytesIO()
    dtype = [(f"{prefix}_ID", object), ("WNID", object), ("words", object), ("num_train_images", object)]
    rows = [(number, wnid, f"word {wnid}", 4) for number, wnid in enumerate([*WNIDS, "n00000099"], 1)]
    savemat(buffer, {"synsets": np.array(rows, dtype=dtype).reshape(-1, 1)})
    return buffer.getvalue()


def write_kit(path: Path, prefix: str, numbers: list[int] | None = None) -> None:
    truth = "\n".join(str(number) for number in numbers or VAL_NUMBERS) + "\n"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {
            "kit/data/meta.mat": kit_meta(prefix),
            f"kit/data/{prefix}_validation_ground_truth.txt": truth.encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def imagenet_tars(root: Path, train: dict[str, dict[str, bytes]] | None = None) -> Path:
    """ILSVRC-2012's three files."""
    root.mkdir(parents=True, exist_ok=True)
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in (train or train_files()).items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(flat_files("ILSVRC2012", VAL_NUMBERS)))
    write_kit(root / "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012")
    return root


def imagenet2010_tars(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in train_files().items()}
    (root / "ILSVRC2010_images_train.tar").write_bytes(tar_of(inner))
    for split, numbers in (("val", VAL_NUMBERS), ("test", TEST_NUMBERS)):
        files = flat_files("ILSVRC2010", numbers, split)
        content = tar_of({f"{split}/{name}": value for name, value in files.items()})
        (root / f"ILSVRC2010_images_{split}.tar").write_bytes(content)
    write_kit(root / "ILSVRC2010_devkit-1.0.tar.gz", "ILSVRC2010")
    (root / "ILSVRC2010_test_ground_truth.txt").write_text("\n".join(map(str, TEST_NUMBERS)) + "\n")
    return root


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def class_folders(root: Path) -> Path:
    """The same images as the tars', in folders."""
    files = {f"train/{wnid}/{name}": content for wnid, of in train_files().items() for name, content in of.items()}
    val = flat_files("ILSVRC2012", VAL_NUMBERS).items()
    files |= {
        f"val/{WNIDS[number - 1]}/{name}": content for number, (name, content) in zip(VAL_NUMBERS, val, strict=True)
    }
    return write_tree(root, files)


def kaggle(root: Path) -> Path:
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    write_tree(images / "train", {f"{w}/{n}": c for w, of in train_files().items() for n, c in of.items()})
    val = flat_files("ILSVRC2012", VAL_NUMBERS)
    write_tree(images / "val", val)
    write_tree(images / "test", {"ILSVRC2012_test_00000001.JPEG": photo(5)})
    lines = ["ImageId,PredictionString"]
    for name, number in zip(val, VAL_NUMBERS, strict=True):
        lines.append(f"{Path(name).stem},{WNIDS[number - 1]} 1 2 30 40 {WNIDS[number - 1]} 5 6 7 8 ")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} word {wnid}\n" for wnid in sorted(WNIDS)))
    return root


def parquet(root: Path, group: int = 3) -> Path:
    """Hugging Face's shards, in an order that mixes the classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = {wnid: label for label, wnid in enumerate(sorted(WNIDS))}
    train = [
        (f"{name.removesuffix('.JPEG')}_{wnid}.JPEG", content, index[wnid])
        for wnid, of in train_files().items()
        for name, content in of.items()
    ]
    val = [
        (f"{name.removesuffix('.JPEG')}_{WNIDS[number - 1]}.JPEG", content, index[WNIDS[number - 1]])
        for (name, content), number in zip(flat_files("ILSVRC2012", VAL_NUMBERS).items(), VAL_NUMBERS, strict=True)
    ]
    features = {"label": {"names": [f"word {wnid}" for wnid in sorted(WNIDS)], "_type": "ClassLabel"}}
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    mixed = train[::3] + train[1::3] + train[2::3]
    unlabelled = [("t.JPEG", photo(7), -1)]
    shards = {
        "train-00000-of-00002": mixed[:7],
        "train-00001-of-00002": mixed[7:],
        "validation-00000-of-00001": val,
        "test-00000-of-00001": unlabelled,
    }
    (root / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in shards.items():
        table = pa.Table.from_pylist(
            [{"image": {"bytes": content, "path": path}, "label": label} for path, content, label in rows], schema
        )
        pq.write_table(table, root / "data" / f"{name}.parquet", row_group_size=group)
    return root


def cifar_batches(per_batch: int = 6) -> dict[str, bytes]:
    """CIFAR-10's pickles, as Python 2 wrote them: text as bytes."""
    rng = np.random.default_rng(0)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batches = {"batches.meta": pickle.dumps({b"label_names": [name.encode() for name in names]}, protocol=2)}
    for batch in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        labels = [int(label) for label in rng.integers(0, 10, per_batch)]
        pixels = rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        files = [f"{names[label]}_s_{row:06d}.png".encode() for row, label in enumerate(labels)]
        batches[batch] = pickle.dumps({b"data": pixels, b"labels": labels, b"filenames": files}, protocol=2)
    return batches


def cifar(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = tar_of({f"cifar-10-batches-py/{name}": batch for name, batch in cifar_batches().items()})
    import gzip

    (root / "cifar-10-python.tar.gz").write_bytes(gzip.compress(content))
    return root


def imagenette(root: Path) -> Path:
    import gzip

    root.mkdir(parents=True, exist_ok=True)
    files = {f"imagenette2/train/{w}/{n}": c for w, of in train_files().items() for n, c in of.items()}
    for number, (name, content) in zip(VAL_NUMBERS, flat_files("ILSVRC2012", VAL_NUMBERS).items(), strict=True):
        files[f"imagenette2/val/{WNIDS[number - 1]}/{name}"] = content
    files["imagenette2/noisy_imagenette.csv"] = b"path"
    (root / "imagenette2.tgz").write_bytes(gzip.compress(tar_of(files)))
    return root


# In the labels' order, as CIFAR-10's page lists them.
CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_copies(root: Path, kind: str = "PNG", names: list[str] = CIFAR_NAMES, **options: object) -> Path:
    """The images of `cifar_batches` in class folders, as files of the archive's own names."""
    files = {}
    for batch, content in cifar_batches().items():
        if batch == "batches.meta":
            continue
        table = pickle.loads(content)
        split = "test" if batch == "test_batch" else "train"
        for label, name, pixels in zip(table[b"labels"], table[b"filenames"], table[b"data"], strict=True):
            image = Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0))
            path = Path(f"{split}/{names[label]}/{name.decode()}")
            suffix = {"PNG": ".png", "JPEG": ".jpg"}[kind]
            # Two batches have files of one name; folders cannot.
            files[f"{path.with_suffix('')}-{batch}{suffix}"] = encoded(image, kind, **options)
    return write_tree(root, files)


def tiny_imagenet(root: Path) -> Path:
    """Tiny ImageNet's layout: images a level deeper, boxes beside them, a list of val's labels, test without any."""
    files = {f"train/{wnid}/images/{name}": c for wnid, of in train_files().items() for name, c in of.items()}
    files |= {f"train/{wnid}/{wnid}_boxes.txt": b"n00000001_0.JPEG\t0\t10\t63\t58\n" for wnid in WNIDS}
    lines = []
    for number, (content, kind) in enumerate(zip(flat_files("", VAL_NUMBERS).values(), VAL_NUMBERS, strict=True)):
        files[f"val/images/val_{number}.JPEG"] = content
        lines.append(f"val_{number}.JPEG\t{WNIDS[kind - 1]}\t0\t32\t44\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = photo(7)
    files["wnids.txt"] = "\n".join(WNIDS).encode()
    files["words.txt"] = "".join(f"{wnid}\tword {wnid}\n" for wnid in [*WNIDS, "n00000098"]).encode()
    return write_tree(root, files)
