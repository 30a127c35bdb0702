"""Texts, tokenizers and windows of tokens, pictures and features with labels; no model knows them."""

from poise.data.bpe import BPETokenizer
from poise.data.characters import CharTokenizer
from poise.data.cifar_batches import cifar_batches
from poise.data.class_tables import CITYSCAPES, VOID, ClassTable, read_class_table
from poise.data.digit_scenes import digit_scenes
from poise.data.digits import digits, moved_digits
from poise.data.embedded import embedded_text
from poise.data.encoded_label_maps import EncodedLabelMaps
from poise.data.encoded_pictures import EncodedPictures
from poise.data.errors import DataError
from poise.data.idx import idx_pictures
from poise.data.labelled import cifar10, read_samples
from poise.data.multiple_features import multiple_features
from poise.data.packed_pictures import packed_pictures
from poise.data.picture_folders import picture_folders
from poise.data.prefetch import Prefetched
from poise.data.samples import Samples, SampleSplits
from poise.data.segmentation_folders import cityscapes, segmentation_folders
from poise.data.shuffled import ShuffledBatches, batch_seed
from poise.data.streams import StreamBatches, evaluation_streams
from poise.data.text import Text, TextSplits, open_text, read_text
from poise.data.text_files import TextFiles
from poise.data.token_files import fit_tokenizer, tokenise
from poise.data.tokenizer import TokenizerKind, build_tokenizer, load_tokenizer
from poise.data.tokenizer_base import Tokenizer
from poise.data.views import (
    ColourJitter,
    Composed,
    ComposedScenes,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Masking,
    Noise,
    Normalise,
    Placed,
    RandomCrop,
    RandomResizedCrop,
    RandomScaledCrop,
    Scaling,
    SceneFlip,
    SceneView,
    Shift,
    Solarise,
    SpanMasking,
    View,
    cifar_views,
    segmentation_views,
    vicreg_cifar_views,
    vicreg_views,
)
from poise.data.windows import Batch, RandomWindows, WindowStream, evaluation_batches
from poise.data.words import WordTokenizer

__all__ = [
    "CITYSCAPES",
    "VOID",
    "BPETokenizer",
    "Batch",
    "CharTokenizer",
    "ClassTable",
    "ColourJitter",
    "Composed",
    "ComposedScenes",
    "DataError",
    "EncodedLabelMaps",
    "EncodedPictures",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Masking",
    "Noise",
    "Normalise",
    "Placed",
    "Prefetched",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomScaledCrop",
    "RandomWindows",
    "SampleSplits",
    "Samples",
    "Scaling",
    "SceneFlip",
    "SceneView",
    "Shift",
    "ShuffledBatches",
    "Solarise",
    "SpanMasking",
    "StreamBatches",
    "Text",
    "TextFiles",
    "TextSplits",
    "Tokenizer",
    "TokenizerKind",
    "View",
    "WindowStream",
    "WordTokenizer",
    "batch_seed",
    "build_tokenizer",
    "cifar10",
    "cifar_batches",
    "cifar_views",
    "cityscapes",
    "digit_scenes",
    "digits",
    "embedded_text",
    "evaluation_batches",
    "evaluation_streams",
    "fit_tokenizer",
    "idx_pictures",
    "load_tokenizer",
    "moved_digits",
    "multiple_features",
    "open_text",
    "packed_pictures",
    "picture_folders",
    "read_class_table",
    "read_samples",
    "read_text",
    "segmentation_folders",
    "segmentation_views",
    "tokenise",
    "vicreg_cifar_views",
    "vicreg_views",
]
