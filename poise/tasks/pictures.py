"""Pictures for the report."""

from __future__ import annotations

import io

from torch import Tensor

from poise.data.encoded_pictures import pillow


def png(picture: Tensor) -> bytes:
    """Return a picture (3, H, W) uint8 as a PNG file."""
    file = io.BytesIO()
    pillow().Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return file.getvalue()
