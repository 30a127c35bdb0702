"""Label maps kept as the bytes of their pictures and decoded a batch at a time, beside the pictures they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.class_tables import ClassTable
from poise.data.encoded_pictures import Encoded, decode, pillow
from poise.data.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class EncodedLabelMaps(Encoded):
    """A class of `table` at each pixel, or `VOID`, (N, H, W); brought to a size by the nearest pixel.

    A table of values reads grey and palette pictures by their numbers. One of colours reads every picture by its
    colours in RGB. Transparency is left out. Decoding raises DataError for what is outside the table as well.
    """

    table: ClassTable = field(kw_only=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape that all of them would have decoded."""
        return len(self), *self.size

    def decoded(self, place: int) -> Tensor:
        """Return one label map (H, W)."""
        image = pillow().Image.fromarray(self._classes(place))
        return torch.from_numpy(self.brought(image, place, "NEAREST"))

    def _classes(self, place: int) -> npt.NDArray[np.uint8]:
        what = self.source.name(place)
        if self.table.colours:
            return self.table.of_colours(np.array(decode(self.source, place, "RGB")), what)
        picture = decode(self.source, place)
        values = np.array(picture.getchannel(0) if picture.mode in ("LA", "PA") else picture)
        if values.ndim != 2 or values.dtype.kind not in "biu":
            raise DataError(
                f"{what} is a picture of kind {picture.mode}, but its class table has values and no colours; pass "
                "grey or palette labels, or a table of colours."
            )
        return self.table.of_values(values.astype(np.int64), what)
