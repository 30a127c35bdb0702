"""Pictures kept as the bytes of their files and decoded a batch at a time, so that a large set fits in memory."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.sources import unreadable

if TYPE_CHECKING:
    import PIL.Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".ppm": "PPM", ".pgm": "PPM"}
ORIENTATION, SIDEWAYS = 0x0112, 5  # Exif's tag, and the first of its values for a camera turned by 90 degrees


class PictureSource(Protocol):
    """Where encoded pictures lie."""

    def read(self, place: int) -> bytes:
        """Return the file of one picture."""

    def name(self, place: int) -> str:
        """Return what a message calls it."""


@dataclass(frozen=True, eq=False)
class PackedFiles:
    """JPEG files one after another in one array: picture i is `jpeg[offsets[i]:offsets[i + 1]]`."""

    path: Path
    jpeg: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def read(self, place: int) -> bytes:
        """Return the file of one picture."""
        return self.jpeg[self.offsets[place] : self.offsets[place + 1]].tobytes()

    def name(self, place: int) -> str:
        """Return what a message calls it."""
        return f"picture {place} of {str(self.path)!r}"


@dataclass(frozen=True)
class SeparateFiles:
    """A file each."""

    paths: tuple[Path, ...]

    def read(self, place: int) -> bytes:
        """Return the file of one picture."""
        try:
            return self.paths[place].read_bytes()
        except OSError as error:
            raise unreadable(self.paths[place], error) from error

    def name(self, place: int) -> str:
        """Return what a message calls it."""
        return f"the picture {str(self.paths[place])!r}"


@dataclass(frozen=True, eq=False)
class Encoded(ABC):
    """Pictures of `source` in the order of `places` (N,), decoded when some are asked for: `encoded[index]`, uint8.

    `size` (H, W): every picture has it already, or is brought to it where `fit`: cut in the middle to its proportions,
    then resampled. Decoding raises DataError for a picture that is damaged or of another size.
    """

    source: PictureSource
    places: Tensor
    size: tuple[int, int]
    fit: bool = False
    dtype = torch.uint8

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise DataError(f"size={self.size} is no size of pictures; pass at least 1 in height and width.")

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {self.shape[1:]})"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape that all of them would have decoded."""

    @abstractmethod
    def decoded(self, place: int) -> Tensor:
        """Return one picture of the source."""

    def restrict(self, index: Tensor | slice) -> Self:
        """Return some of them, still encoded."""
        return replace(self, places=self.places[index])

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        places = self.places[index].tolist()
        decoded = torch.empty(len(places), *self.shape[1:], dtype=torch.uint8)
        for row, place in enumerate(places):
            decoded[row] = self.decoded(place)
        return decoded

    def brought(self, picture: PIL.Image.Image, place: int, method: str) -> npt.NDArray[np.uint8]:
        """Return the values of a picture in the size that all have, (H, W) or (H, W, 3)."""
        height, width = self.size
        if self.fit and picture.size != (width, height):
            library = pillow()
            picture = library.ImageOps.fit(picture, (width, height), method=library.Image.Resampling[method])
        if picture.size != (width, height):
            raise DataError(
                f"{self.source.name(place)} is {picture.size[1]}x{picture.size[0]}, not {height}x{width}; "
                "all must have one size."
            )
        return np.array(picture)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedPictures(Encoded):
    """Pictures in RGB, (N, 3, H, W): grey is repeated, transparency left out; resampled bicubic and antialiased."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape that all of them would have decoded."""
        return len(self), 3, *self.size

    def decoded(self, place: int) -> Tensor:
        """Return one picture (3, H, W)."""
        picture = decode(self.source, place, "RGB")
        return torch.from_numpy(self.brought(picture, place, "BICUBIC")).permute(2, 0, 1)


def pillow() -> ModuleType:
    """Return the package that decodes, or raise DataError where it is not installed."""
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise DataError("pictures are decoded by pillow, which is missing; pip install 'poise[train]'.") from error
    return PIL


def decode(source: PictureSource, place: int, mode: str | None = None) -> PIL.Image.Image:
    """Return one picture in pillow's `mode` or its own, upright whichever way the camera was held.

    Raises DataError if it is damaged.
    """
    library = pillow()
    data = source.read(place)
    try:
        with library.Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values()))) as picture:
            upright = library.ImageOps.exif_transpose(picture)
            return upright if mode is None else upright.convert(mode)
    # SyntaxError is pillow's for a broken chunk; the bomb is a picture of absurd size.
    except (OSError, ValueError, SyntaxError, library.Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{source.name(place)} cannot be decoded ({reason}); fetch it anew.") from error


def size_of(path: Path) -> tuple[int, int]:
    """Return height and width of the picture in a file, upright, from its header alone; raise DataError if it is none.

    The rest of the file is not read, so a damaged picture may have a size.
    """
    library = pillow()
    try:
        with library.Image.open(path, formats=sorted(set(FORMATS.values()))) as picture:
            width, height = picture.size
            sideways = picture.getexif().get(ORIENTATION, 1) >= SIDEWAYS
    except (OSError, ValueError, SyntaxError, library.Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"the picture {str(path)!r} cannot be decoded ({reason}); fetch it anew.") from error
    return (width, height) if sideways else (height, width)


def encoded(source: PictureSource, number: int, size: tuple[int, int] | None = None) -> EncodedPictures:
    """Return the first `number` pictures of a source, brought to `size` or, where it is None, all of the first's."""
    if size is not None:
        return EncodedPictures(source, torch.arange(number), size, fit=True)
    width, height = decode(source, 0).size
    return EncodedPictures(source, torch.arange(number), (height, width))
