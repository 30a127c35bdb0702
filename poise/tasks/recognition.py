"""What `classify`, `segment` and `multitask` are: pictures in, the class of each, of its pixels, or both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.configs.classify import ClassifyViewsConfig
from poise.configs.errors import ConfigError
from poise.data import VOID, DataError, Normalise, Samples, SampleSplits, SceneView, ShuffledBatches, View
from poise.data.encoded_pictures import Encoded
from poise.models import Predictions, ResNet, multiscale_probabilities, sliding_logits
from poise.objectives import confusion_matrix, correct_within, mean_iou, pixel_accuracy
from poise.report import Page
from poise.tasks.base import Measures, Task
from poise.tasks.labelled import fingerprint, read_labelled, saved_samples
from poise.tasks.recognition_analysis import analyse
from poise.tasks.recognition_networks import Network, build_network, start_from
from poise.tasks.recognition_report import build_page
from poise.tasks.recognition_views import Batch, PlainBatches, batch_of, classification_view, normalisation, scene_view
from poise.tasks.run_folder import RunFolder
from poise.tasks.weights import load_weights

WITHIN = 5  # of which predictions one must be right, for top-5 accuracy
DECODING_WORKERS = 2
LISTED = 12  # class names in a message


@dataclass(frozen=True)
class Seen:
    """What the network was built for: kept with a run, so that it opens without its data."""

    channels: int
    class_names: tuple[str, ...] | None
    pixel_names: tuple[str, ...] | None
    normalise: Normalise


class RecognitionTask(Task):
    """Minimises the cross-entropy of one head or both; validates on the validation pictures, else on those of the test.

    A subclass says which heads it has, `reads_classes` and `reads_pixels`, and what their losses weigh.
    """

    quality_names: ClassVar[Mapping[str, str]] = {
        f"{split}_{name}": f"{words} {label}"
        for split, words in (("val", "validation"), ("test", "test"))
        for name, label in (
            ("accuracy", "accuracy"),
            ("top5_accuracy", "top-5 accuracy"),
            ("mean_iou", "mean IoU"),
            ("pixel_accuracy", "pixel accuracy"),
            ("loss", "loss"),
            ("spectral_radius", "spectral radius, largest"),
        )
    }
    reads_classes: ClassVar[bool] = False
    reads_pixels: ClassVar[bool] = False

    model: Network

    def __init__(self, config: Any, seen: Seen) -> None:
        super().__init__(config)
        self.seen = seen
        self.model = build_network(
            config.model,
            config.solver,
            config.eval_solver,
            config.adjoint,
            seen.channels,
            None if seen.class_names is None else len(seen.class_names),
            None if seen.pixel_names is None else len(seen.pixel_names),
        )
        self.confusion: dict[str, Tensor] = {}

    @abstractmethod
    def loss_weights(self) -> tuple[float, float]:
        """Return what the cross-entropies of the picture's class and of its pixels' are multiplied by."""

    @classmethod
    def create(cls, config: Any, folder: RunFolder | None = None) -> Self:
        """Read the samples and draw the weights, or take stem and trunk from another run."""
        samples = cls._read(config)
        torch.manual_seed(config.seed)
        task = cls(config, Seen(*cls._told_apart(samples.train), normalisation(config.views.normalise, samples.train)))
        task.__dict__["samples"] = samples
        if config.init_from is not None and folder is None:  # a resumed run has weights of its own
            start_from(task.model, config.init_from)
        task._try_a_batch()
        return task

    @classmethod
    def open(cls, config: Any, folder: RunFolder) -> Self:
        """Load the weights."""
        channels, classes, pixels, mean, std = saved_samples(
            folder, "channels", "class_names", "pixel_names", "mean", "std"
        )
        class_names, pixel_names = (None if kind is None else tuple(kind) for kind in (classes, pixels))
        task = cls(config, Seen(channels, class_names, pixel_names, Normalise(tuple(mean), tuple(std))))
        load_weights(task.model, folder)
        return task

    def save_inference(self, folder: RunFolder) -> None:
        """Write what the network was built for."""
        seen = self.seen
        kept = {
            "channels": seen.channels,
            "class_names": seen.class_names,
            "pixel_names": seen.pixel_names,
            "mean": seen.normalise.mean,
            "std": seen.normalise.std,
        }
        folder.write_json(folder.samples, kept)

    # Samples ----------------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> SampleSplits[Any]:
        """The samples, read when they are first asked for; a ConfigError where the network was made for others."""
        found = self._read(self.config)
        channels, *names = self._told_apart(found.train)
        path, seen = self.config.data.path, self.seen
        if channels != seen.channels:
            raise ConfigError(
                f"the pictures of {path!r} have {channels} channels and the network reads {seen.channels}; pass a set "
                "like the one it was trained on."
            )
        for given, own in zip(names, (seen.class_names, seen.pixel_names), strict=True):
            if given != own:
                raise ConfigError(
                    f"{path!r} has the classes {_listed(given)} and the network names {_listed(own)}; pass a set like "
                    "the one it was trained on."
                )
        return found

    @classmethod
    def _told_apart(cls, train: Samples[Any]) -> tuple[int, tuple[str, ...] | None, tuple[str, ...] | None]:
        """Return what a network for these samples is built for: channels, and the classes of each head."""
        whole = train.scene_names if cls.reads_pixels else train.class_names
        return (
            train.inputs.shape[1],
            whole if cls.reads_classes else None,
            train.class_names if cls.reads_pixels else None,
        )

    @classmethod
    def _read(cls, config: Any) -> SampleSplits[Any]:
        found = read_labelled(config.data)
        train, path = found.train, config.data.path
        if isinstance(train.inputs, tuple) or len(train.inputs.shape) != 4:
            raise ConfigError(f"the samples of {path!r} are no pictures, or several kinds at once; name pictures.")
        if cls.reads_pixels and not train.per_pixel:
            others = "scenes" if cls.reads_classes else "scenes or camvid"
            raise ConfigError(
                f"{path!r} has a class each and none at each pixel; run poise train classify, or pass {others}."
            )
        if cls.reads_classes and train.per_pixel and train.scene_labels is None:
            raise ConfigError(
                f"{path!r} has a class at each pixel and none of the whole; run poise train segment, or pass scenes."
            )
        return found if cls.reads_pixels else found.by_scene()

    def _try_a_batch(self) -> None:
        """Refuse views and pictures that do not fit the network before a run begins."""
        try:
            inputs = self.training_batch(0)[0]
            scales = len(self.config.model.channels)
            smallest = min(inputs.shape[-2:]) // 2**self.config.model.downsamplings
        except DataError:  # of a picture, which says so itself
            raise
        except ValueError as error:
            raise ConfigError(f"the views do not fit the pictures of {self.config.data.path!r}: {error}") from error
        if not isinstance(self.model, ResNet) and smallest < 2 ** (scales - 1):
            raise ConfigError(
                f"pictures of {inputs.shape[-2]}x{inputs.shape[-1]} have no {scales} scales with model.downsamplings "
                f"{self.config.model.downsamplings}; pass fewer model.channels, or larger pictures."
            )

    @cached_property
    def training_view(self) -> Any:
        """What changes training pictures, and their label maps where the task reads them."""
        views, normalise = self.config.views, self.seen.normalise
        if not isinstance(views, ClassifyViewsConfig):
            found: View | SceneView = scene_view(views, normalise)
        else:
            height, width = self.samples.train.inputs.shape[2:]
            found = classification_view(views, (height, width), normalise)
        return found

    @property
    def decoding_workers(self) -> int:  # type: ignore[override]
        """Some threads where pictures are decoded as they are asked for."""
        return DECODING_WORKERS if isinstance(self.samples.train.inputs, Encoded) else 0

    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return pictures and labels; an epoch leaves its last, short batch out."""
        size, seed = self.config.data.batch_size, self.config.seed
        batches = ShuffledBatches(self.samples.train, size, seed, self.training_view, rank, world_size)
        inputs, labels, *scenes = batches(index)
        return batch_of(inputs, labels, scenes[0] if scenes else None, self.reads_classes, self.reads_pixels)

    @property
    def validated(self) -> Samples[Any]:
        """What is validated on: the test where there is nothing else."""
        return self.samples.test if self.samples.valid is None else self.samples.valid

    def plain(self, samples: Samples[Any]) -> PlainBatches:
        """Return samples in batches, as they are measured."""
        return PlainBatches(
            samples,
            self.seen.normalise,
            self.config.data.eval_batch_size,
            classes=self.reads_classes,
            pixels=self.reads_pixels,
        )

    def evaluation_batches(self, split: str) -> PlainBatches | None:
        """Return the pictures of a split; where the set has none to validate on, its test is what `valid` means."""
        if split == "valid":
            return self.plain(self.validated)
        return None if self.samples.valid is None else self.plain(self.samples.test)

    # Predictions and measures -----------------------------------------------------------------------------------------

    def predict(self, x: Tensor) -> Predictions:
        """Return what the heads say of normalised pictures."""
        return Predictions(self.model(x), None) if isinstance(self.model, ResNet) else self.model(x)

    def predict_whole(self, x: Tensor) -> Predictions:
        """Return the same by windows, where the settings ask for them."""
        window = self.config.full_resolution.window if self.reads_pixels else None
        if window is None or isinstance(self.model, ResNet):
            return self.predict(x)
        pixels = sliding_logits(self.model.segment, x, window, self.config.full_resolution.overlap)
        return Predictions(self.model.classify(x) if self.reads_classes else None, pixels)

    def trunk(self, batch: Batch) -> Tensor:
        """Return the features before the heads, flat."""
        if isinstance(self.model, ResNet):
            return self.model(batch[0])
        return torch.cat([part.flatten(1) for part in self.model.scales(batch[0])], dim=1)

    def training_loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        """Return the weighted cross-entropies, each of them, and the accuracy on the batch."""
        x, labels, pixels = batch
        predictions = self.predict(x)
        smoothing = getattr(self.config, "label_smoothing", 0.0)
        weights = self.loss_weights()
        total = x.new_zeros(())
        measures: Measures = {}
        if predictions.classes is not None and labels is not None:
            loss = F.cross_entropy(predictions.classes, labels, label_smoothing=smoothing)
            total = total + weights[0] * loss
            measures["class_loss"] = loss.detach()
            measures["batch_accuracy"] = partial(_share, predictions.classes.detach(), labels)
        if predictions.pixels is not None and pixels is not None:
            loss = pixel_loss(predictions.pixels, pixels)
            total = total + weights[1] * loss
            measures["pixel_loss"] = loss.detach()
        return total, measures

    def evaluation_sums(self, batch: Batch) -> dict[str, Tensor]:
        """Return confusion matrices and summed losses."""
        x, labels, pixels = batch
        predictions = self.predict_whole(x)
        sums: dict[str, Tensor] = {}
        if predictions.classes is not None and labels is not None:
            logits = predictions.classes.float()
            sums["classes"] = confusion_matrix(logits.argmax(dim=1), labels, logits.shape[1])
            sums["class_loss"] = F.cross_entropy(logits, labels, reduction="sum")
            if logits.shape[1] > WITHIN:
                sums["within"] = correct_within(logits, labels, WITHIN)
        if predictions.pixels is not None and pixels is not None:
            logits = predictions.pixels.float()
            sums["pixels"] = confusion_matrix(logits.argmax(dim=1), pixels, logits.shape[1], VOID)
            counted = (pixels != VOID).sum()
            sums["pixel_loss"] = pixel_loss(logits, pixels) * counted
        return sums

    def quality(self, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
        """Return accuracies, mean IoU, and the loss that training minimises."""
        name = "val" if split == "valid" else split
        self.confusion = {kind: sums[kind] for kind in ("classes", "pixels") if kind in sums}
        found: dict[str, float] = {}
        losses: list[float] = []
        for kind, weight in zip(("class", "pixel"), self.loss_weights(), strict=True):
            matrix = sums.get("classes" if kind == "class" else "pixels")
            if matrix is None:
                continue
            losses.append(weight * float(sums[f"{kind}_loss"] / matrix.sum()))
            if kind == "class":
                found[f"{name}_accuracy"] = pixel_accuracy(matrix)
                if "within" in sums:
                    found[f"{name}_top5_accuracy"] = float(sums["within"] / matrix.sum())
            else:
                found[f"{name}_mean_iou"] = mean_iou(matrix)
                found[f"{name}_pixel_accuracy"] = pixel_accuracy(matrix)
        return {**found, f"{name}_loss": sum(losses)}

    def assess(self) -> dict[str, float]:
        """Return mean IoU over pictures at several scales, where the settings name some."""
        if not self.reads_pixels or isinstance(self.model, ResNet) or not self.config.full_resolution.scales:
            return {}
        full = self.config.full_resolution
        batches = self.evaluation_batches("test") or self.evaluation_batches("valid")
        assert batches is not None and self.seen.pixel_names is not None
        total = torch.zeros(len(self.seen.pixel_names), len(self.seen.pixel_names), dtype=torch.int64)
        self.model.eval()
        for place in range(len(batches)):
            x, _, pixels = batches[place]
            assert pixels is not None
            found = multiscale_probabilities(
                self.model.segment, x.to(self.device), full.scales, self.config.views.flip, full.window, full.overlap
            )
            total += confusion_matrix(found.argmax(dim=1).cpu(), pixels, len(total), VOID)
        return {"multi_scale_mean_iou": mean_iou(total), "multi_scale_pixel_accuracy": pixel_accuracy(total)}

    # What is kept and shown -------------------------------------------------------------------------------------------

    @cached_property
    def data_fingerprint(self) -> str:
        """A digest of the first training samples, and of all labels where there is one a sample."""
        return fingerprint(self.samples.train)

    def identity(self) -> dict[str, Any]:
        """Return which network was trained on what, and on what it is validated."""
        samples = self.samples
        return {
            "model": self.config.model.kind,
            "data": samples.source or self.config.data.path,
            "training_samples": len(samples.train),
            "validation_samples": len(self.validated),
            "validated_on": "test" if samples.valid is None else "valid",
            "init_from": self.config.init_from,
        }

    def analyse(self) -> dict[str, Any]:
        """Return what the report shows beside the measures of training."""
        return analyse(self)

    def build_page(self, folder: RunFolder) -> Page:
        """Return the report."""
        return build_page(folder)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not void; 0 where all of them are."""
    total = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp_min(1)


def _listed(names: Sequence[str] | None) -> str:
    names = names or ()
    return ", ".join(names) if len(names) <= LISTED else f"{', '.join(names[:LISTED])} and {len(names) - LISTED} more"


def _share(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).float().mean())
