"""Views of samples: `view(x, generator)` takes and returns a batch (B, ...), and one of scenes its label maps beside.

Every parameter is drawn for each sample from the generator, which is on the CPU or where the samples are. Pictures are
uint8, or floating point in [0, 1]; views of them are floating point. Nothing loops over samples.
"""

from poise.data.views.blur import GaussianBlur
from poise.data.views.colour import ColourJitter, Grayscale, Normalise, Solarise
from poise.data.views.drawing import View
from poise.data.views.geometry import HorizontalFlip, RandomCrop, RandomResizedCrop
from poise.data.views.placed import Placed
from poise.data.views.published import Composed, cifar_views, segmentation_views, vicreg_cifar_views, vicreg_views
from poise.data.views.scenes import ComposedScenes, RandomScaledCrop, SceneFlip, SceneView
from poise.data.views.vectors import Masking, Noise, Scaling, Shift, SpanMasking

__all__ = [
    "ColourJitter",
    "Composed",
    "ComposedScenes",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Masking",
    "Noise",
    "Normalise",
    "Placed",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomScaledCrop",
    "Scaling",
    "SceneFlip",
    "SceneView",
    "Shift",
    "Solarise",
    "SpanMasking",
    "View",
    "cifar_views",
    "segmentation_views",
    "vicreg_cifar_views",
    "vicreg_views",
]
