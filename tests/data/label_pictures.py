"""Small label pictures of every kind, their class tables, and folders that pair them with pictures."""

import numpy as np
from PIL import Image

from poise.data import VOID

NAMES = ("sky", "road", "Void", "car")  # values 0, 1, 3 are classes 0, 1, 2
CLASSES = np.array([0, 1, VOID, 2], np.uint8)
COLOURS = np.array([[9, 0, 0], [0, 200, 7], [0, 0, 0], [255, 255, 255]], np.uint8)


def values(shape=(5, 7), seed=0):
    return np.random.default_rng(seed).integers(0, 4, shape, dtype=np.uint8)


def write_table(folder, colours=True):
    rows = "\n".join(f"{r} {g} {b}\t{name}" for (r, g, b), name in zip(COLOURS.tolist(), NAMES, strict=True))
    (folder / ("label_colors.txt" if colours else "classes.txt")).write_text(rows if colours else "\n".join(NAMES))


def palette(array):
    image = Image.frombytes("P", array.shape[::-1], array.tobytes())
    image.putpalette(COLOURS.flatten().tolist())
    return image


KINDS = {
    "grey": lambda array: Image.fromarray(array),
    "grey of 16 bits": lambda array: Image.fromarray(array.astype(np.uint16)),
    "grey with transparency": lambda array: Image.fromarray(np.stack([array, 255 - array], axis=2)),
    "palette": palette,
    "rgb": lambda array: Image.fromarray(COLOURS[array]),
    "rgba": lambda array: Image.fromarray(np.concatenate([COLOURS[array], array[..., None]], axis=2)),
}


def write_camvid(folder, kind="grey", shape=(5, 7), parts=("train", "val", "test"), number=3, suffix=""):
    write_table(folder, colours=kind in ("rgb", "rgba"))
    held = {}
    for part in parts:
        for own in (part, part + "annot"):
            (folder / own).mkdir()
        for place in range(number):
            picture = np.random.default_rng(place).integers(0, 256, (*shape, 3), dtype=np.uint8)
            held[part, place] = picture, values(shape, place)
            Image.fromarray(picture).save(folder / part / f"{place:02}.png")
            KINDS[kind](held[part, place][1]).save(folder / (part + "annot") / f"{place:02}{suffix}.png")
    return held
