"""`alexlab predict`: classify image files with a finished run's network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from alexlab.command import as_typed, exit_status, given_values, program
from alexlab.config import Config
from alexlab.console import Console, printable_line
from alexlab.errors import UserError

USAGE = """\
usage: python src/predict.py run=ID FILE|DIR ...

Classify image files with a finished run's network: the five likeliest classes.

  python src/predict.py run=ID photo.jpg            one image
  python src/predict.py run=ID DIR *.png            folders and files, many at
                                                    once
  python src/predict.py run=ID DIR --json           one line of JSON per image
  python src/predict.py run=ID DIR --png out.png    the images with bars, as a
                                                    picture
  python src/predict.py run=ID --onnx net.onnx      no images: the network as
                                                    ONNX

An ID may be abbreviated. Images are read as in preparing a data set: turned
upright, converted to RGB, resized, cropped.
  view=ten|center      the mean of the paper's ten views (default), or centre
  paths.runs=FOLDER    the folder of the records
  data.cache=FOLDER    the cache that has the run's prepared images; by default
                       ALEXLAB_CACHE or the project's
  --top N              classes an image, 5 by default
  --config-dir DIR     of a net of your own (model.build): the folder with its
                       Python file, which is run
Exit status: 0 done, 1 a file could not be read, 2 a mistake in the command, 130
stopped from the keyboard."""

MAX_DRAWN = 100  # images in a picture
_KEYS = ("run", "view", "paths.runs", "data.cache")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--png", type=Path)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--top", type=int, default=5)
    args, unknown = parser.parse_known_intermixed_args(sys.argv[1:] if argv is None else argv)
    console = Console()

    def command() -> int:
        if args.help:
            print(as_typed(USAGE))
            return 0
        if unknown:
            raise UserError(f"{unknown[0]}: no such option; --help lists them")
        if args.top < 1:
            raise UserError(f"--top {args.top}: must be at least 1")
        return _predict(args, console)

    try:
        return exit_status(command)
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130


def _predict(args: argparse.Namespace, console: Console) -> int:
    keys = given_values(word for word in args.words if word.partition("=")[0] in _KEYS)
    files = image_files([word for word in args.words if word.partition("=")[0] not in _KEYS])
    if "run" not in keys:
        raise UserError(f"run: name a finished run, as in run=4018eb608f84; `{program('runs')} list` lists them")
    if (view := keys.get("view", "ten")) not in ("ten", "center"):
        raise UserError(f"view={view}: must be ten or center")
    if not files and args.onnx is None:
        raise UserError("name one or more image files or folders")
    from alexlab.runs.trained import load_run

    run = load_run(keys["run"], keys.get("paths.runs", Config().paths.runs), keys.get("data.cache"), args.config_dir)
    if args.onnx is not None:
        run.export_onnx(args.onnx)
        console.print(f"ONNX: {args.onnx}", soft_wrap=True)
    if not files:
        return 0
    stored, read, unreadable = [], [], []
    for file in files:
        try:
            stored.append(run.stored(file))
            read.append(file)
        except (UserError, OSError) as error:
            unreadable.append(file)
            print(f"error: {printable_line(error)}", file=sys.stderr)
    if not read:
        return 1
    images = np.stack(stored)
    found = run.probabilities(images, view)
    likeliest = run.likeliest(found, args.top)
    if args.json:
        ids = dict(zip(run.class_names, run.classes, strict=True))
        for file, row in zip(read, likeliest, strict=True):
            classes = [{"class": ids[name], "name": name, "probability": round(chance, 6)} for name, chance in row]
            print(json.dumps({"file": str(file), "run_id": run.record.run_id, "view": view, "classes": classes}))
    else:
        console.print(f"{run.record.run_id}, {'mean of ten views' if view == 'ten' else 'centre view'}", style="dim")
        for file, row in zip(read, likeliest, strict=True):
            console.print(f"\n{file}", style="bold", soft_wrap=True)
            for name, probability in row:
                console.print(f"{100 * probability:6.1f} %  {name}", soft_wrap=True)
    if args.png is not None:
        count = min(len(read), MAX_DRAWN)
        _draw(args.png, images[:count], read[:count], run.likeliest(found[:count]))
        if count < len(read):
            console.print(f"The picture has the first {count} of {len(read)} images.")
        console.print(f"Picture: {args.png}", soft_wrap=True)
    return 1 if unreadable else 0


def image_files(words: list[str]) -> list[Path]:
    """The image files that paths name: files as they are, folders with all images below them, in order of their names.

    Raises:
        UserError: for a missing path, and a folder without images.
    """
    from alexlab.data.decode import IMAGE_SUFFIXES

    found: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            below = sorted(
                file
                for file in path.rglob("*")
                if file.name.lower().endswith(IMAGE_SUFFIXES) and not file.name.startswith(".") and file.is_file()
            )
            if not below:
                raise UserError(f"{word}: no image files in this folder")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{word}: no such file or folder")
    return list(dict.fromkeys(found))


def _draw(out: Path, images: np.ndarray, files: list[Path], likeliest: list[list[tuple[str, float]]]) -> None:
    """Draw figure 4, left, for these images: bars show the probabilities of the five likeliest classes."""
    from alexlab.report.figures.images import answers_figure
    from alexlab.report.neighbours import Answers

    names = [[name for name, _ in row] for row in likeliest]
    chances = np.array([[probability for _, probability in row] for row in likeliest])
    answers = Answers(images, [file.name for file in files], names, chances, "ten", np.arange(len(files)))
    answers_figure(answers).savefig(out, format="png", dpi=150, facecolor="white")
