"""Texts, tokenizers and windows of tokens; no model knows them."""

from poise.data.bpe import BPETokenizer
from poise.data.characters import CharTokenizer
from poise.data.embedded import embedded_text
from poise.data.errors import DataError
from poise.data.text import TextSplits, read_text
from poise.data.tokenizer import TokenizerKind, build_tokenizer, load_tokenizer
from poise.data.tokenizer_base import Tokenizer
from poise.data.windows import Batch, RandomWindows, WindowStream, evaluation_batches
from poise.data.words import WordTokenizer

__all__ = [
    "BPETokenizer",
    "Batch",
    "CharTokenizer",
    "DataError",
    "RandomWindows",
    "TextSplits",
    "Tokenizer",
    "TokenizerKind",
    "WindowStream",
    "WordTokenizer",
    "build_tokenizer",
    "embedded_text",
    "evaluation_batches",
    "load_tokenizer",
    "read_text",
]
