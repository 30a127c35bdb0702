"""Networks, each equilibrium model beside its explicit peer."""

from poise.models.deq_transformer import DEQTransformer
from poise.models.encoders import ConvEncoder, DenseEncoder, DEQConvEncoder, DEQDenseEncoder, EquilibriumEncoder
from poise.models.generation import generate, stream
from poise.models.resnet import ResNet, resnet18, resnet34, resnet50
from poise.models.transformer import TransformerLM

__all__ = [
    "ConvEncoder",
    "DEQConvEncoder",
    "DEQDenseEncoder",
    "DEQTransformer",
    "DenseEncoder",
    "EquilibriumEncoder",
    "ResNet",
    "TransformerLM",
    "generate",
    "resnet18",
    "resnet34",
    "resnet50",
    "stream",
]
