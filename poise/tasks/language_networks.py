"""The network of a language run, from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from poise.configs.language import LanguageConfig
from poise.models import DEQTransformer, DEQTrellisNet, TransformerLM, TrellisNet
from poise.models.trellis import TrellisNetwork
from poise.nn.recall import Memory
from poise.nn.trellis import TrellisPast
from poise.tasks.solving import build_adjoint, build_solver

LanguageModel = DEQTransformer | DEQTrellisNet | TransformerLM | TrellisNet


def build_model(config: LanguageConfig, vocab_size: int) -> LanguageModel:
    """Return the network that the settings describe, with fresh weights."""
    model = config.model
    config.check_cutoffs(vocab_size, "the words of the text, its marks among them, number")
    vocabulary: dict[str, Any] = {"cutoffs": model.cutoffs, "div_value": model.div_value}
    solving: dict[str, Any] = {
        "solver": build_solver(config.solver),
        "adjoint": build_adjoint(config.adjoint, config.solver),
        "eval_solver": build_solver(config.eval_solver),
    }
    shared: dict[str, Any] = {"dropout": model.dropout, "weight_norm": model.weight_norm, **vocabulary}
    shared |= {"vocab_size": vocab_size, "d_model": model.d_model}
    if model.cell == "trellis":
        shared |= {"d_hidden": model.d_hidden}
        if model.kind == "explicit":
            return TrellisNet(n_layers=model.n_layers, **shared)
        return DEQTrellisNet(**shared, **solving)
    names = ("n_heads", "n_layers", "convolution", "d_ff", "norm", "span", "variational")
    shared |= {name: getattr(model, name) for name in names}
    if model.kind == "explicit":
        return TransformerLM(**shared)
    return DEQTransformer(n_before=model.n_before, n_after=model.n_after, **shared, **solving)


def past_of(model: LanguageModel, tensors: Sequence[Tensor]) -> Any:
    """Return a past from the tensors in it, in the order of `tree_leaves`."""
    if not isinstance(model, TrellisNetwork):
        embedded = tensors[-1] if model.convolution.width > 1 else None
        return Memory(tuple(tensors if embedded is None else tensors[:-1]), embedded)
    layers = tuple(TrellisPast(*tensors[place : place + 3]) for place in range(0, len(tensors), 3))
    return layers if isinstance(model, TrellisNet) else layers[0]
