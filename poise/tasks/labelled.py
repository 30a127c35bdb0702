"""What tasks on labelled sets share: reading one, its fingerprint, and what a run keeps of it."""

from __future__ import annotations

import hashlib
from typing import Any

from poise.configs.errors import ConfigError
from poise.configs.samples import SamplesConfig
from poise.data import Samples, SampleSplits, read_samples
from poise.tasks.errors import RunError
from poise.tasks.run_folder import RunFolder

FINGERPRINTED = 1000  # samples
MAPS_FINGERPRINTED = 100
AT_ONCE = 20  # decoded, since pictures may be large


def read_labelled(data: SamplesConfig) -> SampleSplits[Any]:
    """Return the set that the settings name; raise a ConfigError for a batch that is larger than it."""
    found = read_samples(data.path, data.limit, None if data.size is None else (data.size, data.size))
    if data.batch_size > len(found.train):
        raise ConfigError(
            f"data.batch_size is {data.batch_size}, and there are {len(found.train):,} samples to train on; "
            "pass at most as many."
        )
    return found


def fingerprint(samples: Samples[Any]) -> str:
    """Return a digest of the first samples, and of all labels that are one a sample."""
    digest = hashlib.blake2b(digest_size=16)
    first = samples.restrict(slice(0, MAPS_FINGERPRINTED if samples.per_pixel else FINGERPRINTED))
    for part in first.batches(AT_ONCE):
        kinds = part.inputs if isinstance(part.inputs, tuple) else (part.inputs,)
        for tensor in (*kinds, *((part.labels,) if samples.per_pixel else ())):
            digest.update(tensor.contiguous().numpy().tobytes())
    for labels in (None if samples.per_pixel else samples.labels, samples.scene_labels):
        if labels is not None:
            digest.update(labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def saved_samples(folder: RunFolder, *names: str) -> list[Any]:
    """Return what a run kept of its samples, by name; raise a RunError where that cannot be read."""
    saved = folder.read_json(folder.samples)
    try:
        return [saved[name] for name in names]
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.samples} cannot be read; restore it, or train again.") from error
