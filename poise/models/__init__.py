"""Networks, each equilibrium model beside its explicit peer."""

from poise.models.deq_transformer import DEQTransformer
from poise.models.generation import generate, stream
from poise.models.transformer import TransformerLM

__all__ = ["DEQTransformer", "TransformerLM", "generate", "stream"]
