"""The pictures and labels that a run reads for its heads, and what of them the network is built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from poise.configs.errors import ConfigError
from poise.configs.samples import SamplesConfig
from poise.data import Normalise, Samples, SampleSplits
from poise.tasks.labelled import read_labelled, saved_samples
from poise.tasks.run_folder import RunFolder

LISTED = 12  # class names in a message


@dataclass(frozen=True)
class Heads:
    """What a task predicts: the class of a picture, those of its pixels, or both."""

    classes: bool = False
    pixels: bool = False


@dataclass(frozen=True)
class Seen:
    """What the network was built for: kept with a run, so that it opens without its data."""

    channels: int
    class_names: tuple[str, ...] | None
    pixel_names: tuple[str, ...] | None
    normalise: Normalise

    @classmethod
    def of(cls, train: Samples[Any], heads: Heads, normalise: Normalise) -> Self:
        """Return it from samples to train on."""
        whole = train.scene_names if heads.pixels else train.class_names
        return cls(
            train.inputs.shape[1],
            whole if heads.classes else None,
            train.class_names if heads.pixels else None,
            normalise,
        )

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        """Return what a run kept; raise a RunError where that cannot be read."""
        names = ("channels", "class_names", "pixel_names", "mean", "std")
        channels, classes, pixels, mean, std = saved_samples(folder, *names)
        class_names, pixel_names = (None if kind is None else tuple(kind) for kind in (classes, pixels))
        return cls(channels, class_names, pixel_names, Normalise(tuple(mean), tuple(std)))

    def write(self, folder: RunFolder) -> None:
        """Keep it with a run."""
        kept = {
            "channels": self.channels,
            "class_names": self.class_names,
            "pixel_names": self.pixel_names,
            "mean": self.normalise.mean,
            "std": self.normalise.std,
        }
        folder.write_json(folder.samples, kept)

    def refuse_others(self, train: Samples[Any], heads: Heads, path: str) -> None:
        """Raise a ConfigError where samples have other channels or classes."""
        other = Seen.of(train, heads, self.normalise)
        if other.channels != self.channels:
            raise ConfigError(
                f"the pictures of {path!r} have {other.channels} channels and the network reads {self.channels}; pass "
                "a set like the one it was trained on."
            )
        for given, own in ((other.class_names, self.class_names), (other.pixel_names, self.pixel_names)):
            if given != own:
                raise ConfigError(
                    f"{path!r} has the classes {_listed(given)} and the network names {_listed(own)}; pass a set like "
                    "the one it was trained on."
                )


def read_pictures(data: SamplesConfig, heads: Heads) -> SampleSplits[Any]:
    """Return the set that the settings name; raise a ConfigError where it has no pictures, or no labels for a head."""
    found = read_labelled(data)
    train, path = found.train, data.path
    if isinstance(train.inputs, tuple) or len(train.inputs.shape) != 4:
        raise ConfigError(f"the samples of {path!r} are no pictures, or several kinds at once; name pictures.")
    if heads.pixels and not train.per_pixel:
        others = "scenes" if heads.classes else "scenes or camvid"
        raise ConfigError(
            f"{path!r} has a class each and none at each pixel; run poise train classify, or pass {others}."
        )
    if heads.classes and train.per_pixel and train.scene_labels is None:
        raise ConfigError(
            f"{path!r} has a class at each pixel and none of the whole; run poise train segment, or pass scenes."
        )
    return found if heads.pixels else found.by_scene()


def _listed(names: Sequence[str] | None) -> str:
    names = names or ()
    return ", ".join(names) if len(names) <= LISTED else f"{', '.join(names[:LISTED])} and {len(names) - LISTED} more"
