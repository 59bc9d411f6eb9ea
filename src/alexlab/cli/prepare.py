"""`alexlab prepare`: make a store from source files, or check one, and report what was found."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
from loky import cpu_count
from rich import box
from rich.table import Table

from alexlab.command import program, run_command
from alexlab.compose import Composer
from alexlab.config import ConfigError, DataConfig
from alexlab.console import Console
from alexlab.data.build import printable
from alexlab.data.contact_sheet import draw_sheet, sheet_path
from alexlab.data.locate import has_store, make, prepare, source_changes, store_path
from alexlab.data.names import readable
from alexlab.data.sources import KNOWN
from alexlab.data.store import BadData, Store, find_corruption, gigabytes
from alexlab.progress import Progress

USAGE = """\
usage: python src/prepare.py [check] data=NAME | recipe=NAME [KEY=VALUE ...]

Make the store that training reads: resized images, their mean image and colour
components, and a report on every unusual file.

  python src/prepare.py data=imagenet2012 data.raw=DIR
                    from ImageNet's tars, Kaggle's folders, parquet shards or
                    class folders, whatever DIR holds
  python src/prepare.py recipe=imagenet128 data.raw=DIR
                    the same, at the size of a recipe
  python src/prepare.py data=cifar10
                    downloaded, unless data.raw says where it is
  python src/prepare.py data=folder data.raw=DIR
                    your own images, in train/<class>/ and val/<class>/;
                    then: python src/train.py recipe=folder data.raw=DIR
  python src/prepare.py data=folder data.raw=DIR --refresh
                    make the store again if files in DIR changed since
  python src/prepare.py check data=imagenet2012
                    verify every image of the store

If a recipe has the data set's name, its image size is used.

Keys: data.raw, data.cache, data.root, data.size, data.resize, data.format,
data.on_bad (python src/train.py --help explains them). If it is interrupted,
the same command resumes; if the store is complete, it names source files that
have changed since.
Exit status: 0 done, 1 a file or disk failed, or the check found corruption, 2 a
mistake in the command or the source files, 130 stopped from the keyboard."""

_CLASSES = 20  # whose names are printed
_SHOWN = 5  # lines of each kind in the terminal; manifest.json has all
_GROUPS = ("data", "recipe")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    obey = partial(_obey, "--refresh" in words)
    return run_command(
        [word for word in words if word != "--refresh"],
        USAGE,
        ". Finished work is kept; run the same command again for the rest.",
        obey,
    )


def _obey(refresh: bool, overrides: list[str], config_dir: str | None, console: Console) -> int:
    others = [override for override in overrides if override != "check"]
    data, line = _data(others, config_dir)
    if others != overrides:
        return _check(data, console)
    try:
        status = _prepare(data, refresh, console)
    except BadData as error:
        raise OSError(str(error)) from error  # one line, exit status 1
    folder = [] if config_dir is None else ["--config-dir", config_dir]
    words = [override for override in line if not override.startswith("data.on_bad=")]
    console.print(f"Train on it: {program('train')} {shlex.join([*words, *folder])}", soft_wrap=True)
    return status


def _data(overrides: list[str], config_dir: str | None) -> tuple[DataConfig, list[str]]:
    """The data section of a command line, which must name a data set, and the overrides that lead to it."""
    for override in overrides:
        name, sign, _ = override.lstrip("+").partition("=")
        if not sign:
            raise ConfigError(f"{override}: neither 'check' nor KEY=VALUE; see --help")
        if name not in _GROUPS and not name.startswith("data."):
            raise ConfigError(f"{override}: does not affect a store; only data=, recipe= and data.* do")
    if not any(override.startswith(("data=", "recipe=")) for override in overrides):
        raise ConfigError(f"no data set: name one, data={'|'.join(name.name for name in KNOWN)}; see --help")
    composer = Composer(config_dir)
    composer.check_once(overrides)
    chosen = next((override.partition("=")[2] for override in overrides if override.startswith("data=")), "")
    if chosen in composer.groups["recipe"] and not any(override.startswith("recipe=") for override in overrides):
        overrides = [f"recipe={chosen}", *(override for override in overrides if not override.startswith("data="))]
    return composer.job(overrides, trains=False).config.data, overrides


def _prepare(data: DataConfig, refresh: bool, console: Console) -> int:
    store, is_new = make(data, lambda line: console.print(line, soft_wrap=True), refresh)
    changes = "" if is_new else source_changes(data, store)
    if not is_new and not changes:
        made_from = f", made from {store.manifest['raw']}" if store.manifest["raw"] else ""
        line = f"{store.path} already exists{made_from}; nothing to do. Remove it to make it again."
        console.print(line, soft_wrap=True)
    report(store.manifest, console)
    _show_sheet(store, is_new, console)
    size = sum(file.stat().st_size for file in store.path.iterdir())
    console.print(f"\nStore: {store.path} ({gigabytes(size)}); all of this is in its manifest.json", soft_wrap=True)
    if changes:
        changed = f"Of the source files in {data.raw or data.cache}, {changes} since this store was made."
        console.print(f"{changed} Add --refresh to make it again with them.", style="yellow", soft_wrap=True)
    return 0


def _show_sheet(store: Store, is_new: bool, console: Console) -> None:
    """Draw the contact sheet of a new store, or if it is missing, and print its path."""
    path = sheet_path(store.path)
    try:
        if is_new or not path.is_file():
            draw_sheet(store)
        console.print(f"Contact sheet: {path}", soft_wrap=True)
    except OSError as error:  # the store is read-only, or another user's
        console.print(f"No contact sheet: {path}: {error.strerror or error}", style="yellow", soft_wrap=True)


def _check(data: DataConfig, console: Console) -> int:
    if not has_store(data):
        raise ConfigError(f"check: there is no store at {store_path(data)}; leave out 'check' to make it")
    data.num_classes = None
    try:
        store = prepare(data)
    except ConfigError:
        raise
    except ValueError as error:
        console.print(f"CORRUPT: {error}", soft_wrap=True)
        return 1
    with Progress("Checking", sum(store.manifest["images"].values())) as progress:
        found = find_corruption(store.path, cpu_count(), progress.advance)
    if not found:
        console.print(f"{store.path}: every image is intact ({store.manifest['hash'][:16]})", soft_wrap=True)
        return 0
    console.print(f"{store.path}: CORRUPT", soft_wrap=True)
    _list(found, console)
    console.print("Remove the folder and prepare it again, or copy it again.")
    return 1


def report(manifest: dict[str, Any], console: Console) -> None:
    """Print the preparation report that a manifest holds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("split")
    for title in ("images", "known", "classes", "a class", "left out"):
        table.add_column(title, justify="right")
    left_out = Counter(item["split"] for item in manifest["left_out"])
    for split, count in manifest["images"].items():
        counts = np.array(manifest["class_counts"][split])
        known = manifest["known_images"].get(split)
        least, most = int(counts.min()), int(counts.max())
        a_class = str(least) if least == most else f"{least}-{most}"
        table.add_row(
            split,
            f"{count:,}",
            f"{known:,}" if known else "",
            str(int((counts > 0).sum())),
            a_class,
            str(left_out[split] or ""),
        )
    title = f"{manifest['name']} at {manifest['size']} px, {manifest['format']}, from {manifest['source']}"
    console.print(f"\n{title}\n")
    console.print(table)
    names = readable(manifest["classes"], manifest["words"])
    more = f" and {len(names) - _CLASSES} more" if len(names) > _CLASSES else ""
    console.print(f"Classes: {printable(', '.join(names[:_CLASSES]))}{more}", soft_wrap=True)
    for warning in manifest["warnings"]:
        console.print(f"Note: {printable(warning)}", style="yellow", soft_wrap=True)
    for kind, names in manifest["converted"].items():
        console.print(f"Converted, {kind}: {len(names)}  ({_few(names)})", soft_wrap=True)
    if manifest["left_out"]:
        console.print(f"Left out: {len(manifest['left_out'])}", style="yellow")
        _list(
            [f"{item['split'] or 'source'}: {item['name']}: {item['reason']}" for item in manifest["left_out"]], console
        )
    for kind, style in (("across", "yellow"), ("within", "")):
        groups = manifest["duplicates"][kind]
        if groups:
            where = "two splits" if kind == "across" else "one split twice"
            console.print(f"The same file in {where}: {len(groups)}", style=style)
            _list([" = ".join(group) for group in groups], console)
    console.print(f"Hash: {manifest['hash']}", soft_wrap=True)


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _list(lines: list[str], console: Console) -> None:
    for line in lines[:_SHOWN]:
        console.print(f"  {line}", soft_wrap=True)
    if len(lines) > _SHOWN:
        console.print(f"  and {len(lines) - _SHOWN} more")
