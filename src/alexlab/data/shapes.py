"""The embedded data set: ten classes of drawn shapes, as JPEG files in ImageNet's layout.

`draw_shapes(root, ...)` writes `train/<class>/*.JPEG`, `val/<class>/*.JPEG` and `test/<class>/*.JPEG`.
An image is a pure function of (seed, split, index), so any process can draw any part of the set.
What varies: the image's size and aspect; the shape's position, scale, rotation, colour and shading; the
background's texture and light; clutter around the shape; and a bar that hides a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from alexlab.data.parallel import in_order

# Part of every run id on this data: raise it whenever an image that the generator draws changes.
GENERATOR_VERSION = 1

SPLITS = ("train", "val", "test")
Points = list[tuple[float, float]]


def _regular(corners: int, inner: float = 1.0) -> Points:
    """A regular polygon, or a star when every second corner lies at the radius `inner`."""
    radii = [1.0, inner] if inner != 1.0 else [1.0]
    total = corners * len(radii)
    return [
        (
            radii[i % len(radii)] * math.sin(math.tau * i / total),
            -radii[i % len(radii)] * math.cos(math.tau * i / total),
        )
        for i in range(total)
    ]


def _heart() -> Points:
    turns = [math.tau * i / 40 for i in range(40)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in turns
    ]


def _moved(points: Points, dx: float, dy: float, scale: float) -> Points:
    return [(x * scale + dx, y * scale + dy) for x, y in points]


_DISC = _regular(48)
# A class is a list of polygons inside the unit circle, each painted (True) or cut out again (False).
CLASSES: dict[str, list[tuple[Points, bool]]] = {
    "arrow": [([(0, -1), (0.75, -0.15), (0.28, -0.15), (0.28, 1), (-0.28, 1), (-0.28, -0.15), (-0.75, -0.15)], True)],
    "bolt": [([(0.25, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.3), (0.08, -0.3)], True)],
    "crescent": [(_DISC, True), (_moved(_DISC, 0.5, -0.1, 0.82), False)],
    "cross": [
        ([(-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1)], True),
        ([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)], True),
    ],
    "disc": [(_DISC, True)],
    "heart": [(_heart(), True)],
    "ring": [(_DISC, True), (_moved(_DISC, 0, 0, 0.55), False)],
    "square": [([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], True)],
    "star": [(_regular(5, 0.42), True)],
    "triangle": [(_regular(3), True)],
}


def _grids(rng: np.random.Generator) -> list[np.ndarray]:
    """Coarse grids of noise for `_field`."""
    return [rng.normal(0, sd, (cells, cells)).astype(np.float32) for cells, sd in ((3, 1.0), (7, 0.5), (19, 0.3))]


def _field(grids: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Smooth noise of mean 0 and amplitude about 1, float32 [height, width]: the grids scaled up and added."""
    total = np.zeros((height, width), np.float32)
    for grid in grids:
        total += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return total


def _paint(image: np.ndarray, polygons: list[tuple[Points, bool]], colour: np.ndarray) -> None:
    """Paint polygons over an image in place, drawn at twice its size for smooth edges.

    `image` is [3, height, width]; `colour` is [3, 1, 1] or [3, height, width]. Only the bounding box is touched.
    """
    height, width = image.shape[1:]
    canvas = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(canvas)
    for points, paint in polygons:
        draw.polygon([(2 * x, 2 * y) for x, y in points], fill=255 if paint else 0)
    if (box := canvas.getbbox()) is None:
        return
    left, upper, right, lower = box[0] // 2, box[1] // 2, (box[2] + 1) // 2, (box[3] + 1) // 2
    reduced = canvas.reduce(2, (2 * left, 2 * upper, 2 * right, 2 * lower))
    coverage = np.asarray(reduced, np.float32) / 255
    part = np.s_[:, upper:lower, left:right]
    image[part] += (np.broadcast_to(colour, image.shape)[part] - image[part]) * coverage


def _placed(points: Points, x: float, y: float, radius: float, angle: float, aspect: float = 1.0) -> Points:
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
    return [(x + aspect * px * cos - py * sin, y + aspect * px * sin + py * cos) for px, py in points]


@dataclass(frozen=True)
class _Scene:
    """An image's random choices before its shape is drawn: background, clutter, the shape's colour and position."""

    height: int
    width: int
    background: np.ndarray  # two colours, [2, 3, 1, 1]
    grids: list[np.ndarray]  # of the noise that mixes them
    clutter: list[tuple[Points, np.ndarray]]  # scraps and their colours
    colour: np.ndarray  # of the shape, [3, 1, 1]
    radius: float
    x: float
    y: float


def _scene(rng: np.random.Generator) -> _Scene:
    short = int(rng.integers(110, 150))
    long = int(short * rng.uniform(1.0, 1.27))
    width, height = (long, short) if rng.random() < 0.7 else (short, long)

    background = rng.uniform(20, 235, (2, 3, 1, 1))
    grids = _grids(rng)

    # Clutter: small scraps of any colour, kept small so that no scrap looks like the shape.
    clutter = []
    for _ in range(int(rng.integers(0, 4))):
        scrap = _placed(
            _regular(int(rng.integers(3, 6))),
            rng.uniform(0, width),
            rng.uniform(0, height),
            short * rng.uniform(0.04, 0.09),
            rng.uniform(0, math.tau),
        )
        clutter.append((scrap, rng.uniform(0, 255, (3, 1, 1))))

    # The shape, in a colour at least 90 grey levels (Euclidean) away from the background's mean colour.
    colour = rng.uniform(0, 255, (3, 1, 1))
    while np.linalg.norm(colour - (background[0] + background[1]) / 2) < 90:
        colour = rng.uniform(0, 255, (3, 1, 1))
    radius = short * rng.uniform(0.26, 0.42)
    x = width / 2 + short * rng.uniform(-0.12, 0.12)
    y = height / 2 + short * rng.uniform(-0.12, 0.12)
    return _Scene(height, width, background, grids, clutter, colour, radius, x, y)


def _painted(scene: _Scene) -> np.ndarray:
    """A scene, float64 [3, height, width]: NumPy is slow where the last axis has three elements."""
    first, second = scene.background
    mix = np.clip(0.5 + 0.35 * _field(scene.grids, scene.height, scene.width), 0, 1)
    image = first * mix
    image += second * (1 - mix)
    for scrap, colour in scene.clutter:
        _paint(image, [(scrap, True)], colour)
    return image


def object_offsets(names: list[str], split: str, count: int, seed: int) -> np.ndarray:
    """Each object's offset right of and below the image's centre, in units of the shorter side, float64 [count, 2].

    In the order of a store: by class, then by number. Drawn again, since the files do not record it.
    """
    offsets = np.empty((count, 2))
    for place, index in enumerate(index for first in range(len(names)) for index in range(first, count, len(names))):
        scene = _scene(_generator(seed, split, index))
        short = min(scene.height, scene.width)
        offsets[place] = (scene.x - scene.width / 2) / short, (scene.y - scene.height / 2) / short
    return offsets


def _generator(seed: int, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), index])


def draw_image(class_name: str, rng: np.random.Generator) -> Image.Image:
    """Draw one image of a class, RGB, its sides between 110 and 190 pixels."""
    scene = _scene(rng)
    image, colour, radius, x, y = _painted(scene), scene.colour, scene.radius, scene.x, scene.y
    height, width = scene.height, scene.width
    angle, aspect = rng.uniform(-0.5, 0.5), rng.uniform(0.85, 1.15)
    placed = [(_placed(points, x, y, radius, angle, aspect), paint) for points, paint in CLASSES[class_name]]
    shading = 1 + 0.12 * _field(_grids(rng), height, width)
    _paint(image, placed, colour * shading)

    # A thin bar in front, in two of five images.
    if rng.random() < 0.4:
        bar = [(-1.6, -0.09), (1.6, -0.09), (1.6, 0.09), (-1.6, 0.09)]
        turn = rng.uniform(0, math.tau)
        off = radius * rng.uniform(-0.5, 0.5)
        placed_bar = _placed(bar, x - off * math.sin(turn), y + off * math.cos(turn), radius, turn)
        _paint(image, [(placed_bar, True)], rng.uniform(0, 255, (3, 1, 1)))

    # Light: a slope of brightness across the image, a colour cast, and sensor noise.
    direction = rng.uniform(0, math.tau)
    slope = np.add.outer(
        np.linspace(-1, 1, height) * math.sin(direction), np.linspace(-1, 1, width) * math.cos(direction)
    )
    image *= (1 + rng.uniform(0, 0.3) * slope) * rng.uniform(0.85, 1.15, (3, 1, 1))
    image += rng.normal(0, 4, (height, width))
    pixels = np.clip(image, 0, 255, out=image).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _draw_files(root: Path, names: list[str], split: str, indices: range, seed: int) -> int:
    for index in indices:
        name = names[index % len(names)]  # classes in turn, so that every split is balanced
        rng = _generator(seed, split, index)
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        draw_image(name, rng).save(folder / f"{name}_{index:05d}.JPEG", quality=int(rng.integers(85, 96)))
    return len(indices)


def draw_shapes(
    root: Path,
    names: list[str],
    counts: dict[str, int],
    seed: int,
    processes: int = 1,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the whole set below `root`.

    `names` are the classes drawn; `counts` gives the number of images of each split; `advance(n)` is called as n more
    images are written.
    """
    chunk = 100
    jobs = [
        (root, names, split, range(start, min(start + chunk, count)), seed)
        for split, count in counts.items()
        for start in range(0, count, chunk)
    ]
    for done in in_order(_draw_files, jobs, processes):
        advance(done)
