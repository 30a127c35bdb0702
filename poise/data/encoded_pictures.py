"""Pictures kept as the bytes of their files and decoded a batch at a time, so that a large set fits in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.sources import unreadable

if TYPE_CHECKING:
    import PIL.Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".ppm": "PPM", ".pgm": "PPM"}


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
class EncodedPictures:
    """Pictures of `source` in the order of `places` (N,); `pictures[index]` decodes some, (n, 3, H, W) uint8.

    `size` (H, W): every picture has it already, or is brought to it where `fit`: cut in the middle to its proportions,
    then resampled (bicubic, antialiased). Decoding raises DataError for a picture that is damaged or of another size.
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
        return f"EncodedPictures({len(self):,} of {self.shape[1:]})"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape that all of them would have decoded."""
        return len(self), 3, *self.size

    def restrict(self, index: Tensor | slice) -> EncodedPictures:
        """Return some of them, still encoded."""
        return replace(self, places=self.places[index])

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        places = self.places[index].tolist()
        decoded = torch.empty(len(places), 3, *self.size, dtype=torch.uint8)
        for row, place in enumerate(places):
            decoded[row] = self._decoded(place)
        return decoded

    def _decoded(self, place: int) -> Tensor:
        picture = decode(self.source, place)
        height, width = self.size
        if self.fit and picture.size != (width, height):
            library = pillow()
            picture = library.ImageOps.fit(picture, (width, height), method=library.Image.Resampling.BICUBIC)
        if picture.size != (width, height):
            raise DataError(
                f"{self.source.name(place)} is {picture.size[1]}x{picture.size[0]}, not {height}x{width}; "
                "all must have one size."
            )
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def pillow() -> ModuleType:
    """Return the package that decodes, or raise DataError where it is not installed."""
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise DataError("pictures are decoded by pillow, which is missing; pip install 'poise[train]'.") from error
    return PIL


def decode(source: PictureSource, place: int) -> PIL.Image.Image:
    """Return one picture in RGB, upright whichever way the camera was held; raise DataError if it is damaged."""
    library = pillow()
    data = source.read(place)
    try:
        with library.Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values()))) as picture:
            return library.ImageOps.exif_transpose(picture).convert("RGB")
    # SyntaxError is pillow's for a broken chunk; the bomb is a picture of absurd size.
    except (OSError, ValueError, SyntaxError, library.Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{source.name(place)} cannot be decoded ({reason}); fetch it anew.") from error


def encoded(source: PictureSource, number: int, size: tuple[int, int] | None = None) -> EncodedPictures:
    """Return the first `number` pictures of a source, brought to `size` or, where it is None, all of the first's."""
    if size is not None:
        return EncodedPictures(source, torch.arange(number), size, fit=True)
    width, height = decode(source, 0).size
    return EncodedPictures(source, torch.arange(number), (height, width))
