"""Networks, each equilibrium model beside its explicit peer."""

from poise.models.deq_transformer import DEQTransformer
from poise.models.deq_trellisnet import DEQTrellisNet
from poise.models.encoders import ConvEncoder, DenseEncoder, DEQConvEncoder, DEQDenseEncoder, EquilibriumEncoder
from poise.models.full_resolution import multiscale_probabilities, sliding_logits
from poise.models.generation import generate, stream
from poise.models.mdeq import MDEQ
from poise.models.multiscale import Architecture, Predictions
from poise.models.multiscale_net import MultiscaleNet
from poise.models.reasoner import FeedForwardReasoner, Reasoner
from poise.models.resnet import ResNet, resnet18, resnet34, resnet50
from poise.models.transformer import TransformerLM
from poise.models.trellisnet import TrellisNet
from poise.models.vicreg import Expander, VICReg

__all__ = [
    "MDEQ",
    "Architecture",
    "ConvEncoder",
    "DEQConvEncoder",
    "DEQDenseEncoder",
    "DEQTransformer",
    "DEQTrellisNet",
    "DenseEncoder",
    "EquilibriumEncoder",
    "Expander",
    "FeedForwardReasoner",
    "MultiscaleNet",
    "Predictions",
    "Reasoner",
    "ResNet",
    "TransformerLM",
    "TrellisNet",
    "VICReg",
    "generate",
    "multiscale_probabilities",
    "resnet18",
    "resnet34",
    "resnet50",
    "sliding_logits",
    "stream",
]
