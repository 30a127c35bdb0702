"""`language`: next-token prediction on text, by a DEQ-Transformer, a DEQ-TrellisNet or the explicit peer of either."""

from __future__ import annotations

import hashlib
import math
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from poise.configs.language import LanguageConfig
from poise.data import (
    RandomWindows,
    StreamBatches,
    Text,
    Tokenizer,
    evaluation_batches,
    evaluation_streams,
    fit_tokenizer,
    load_tokenizer,
    open_text,
    tokenise,
)
from poise.data.errors import DataError
from poise.fixed_point.tree import tree_leaves, tree_map
from poise.models import stream
from poise.report import Page
from poise.tasks.base import Measures, Task
from poise.tasks.language_analysis import analyse, dial
from poise.tasks.language_networks import LanguageModel, build_model, past_of
from poise.tasks.language_report import build_page
from poise.tasks.progress import Preparation
from poise.tasks.run_folder import RunFolder
from poise.tasks.weights import load_weights

LOOKED_AT = 200  # tokens of the validation text that a prompt is taken from
PROMPT_CHARACTERS = 16
UNFINISHED = "\ufffd"  # how bytes decode that are no whole character yet
HASHED = 1 << 20  # tokens at a time


class LanguageTask(Task):
    """Minimises the cross-entropy of the next token over random windows; validates on every token of the split."""

    task_name = "language"
    config_type = LanguageConfig
    quality_names: ClassVar[Mapping[str, str]] = {
        "val_loss": "validation loss (nats a token)",
        "val_perplexity": "validation perplexity",
        "test_loss": "test loss (nats a token)",
        "test_perplexity": "test perplexity",
    }

    config: LanguageConfig
    model: LanguageModel

    def __init__(self, config: LanguageConfig, tokenizer: Tokenizer, text: Text | None = None) -> None:
        super().__init__(config)
        self.tokenizer = tokenizer
        self.model = build_model(config, tokenizer.vocab_size)
        self._text = text
        self._past: Any = None  # what the streams remember from one step to the next

    @classmethod
    def create(cls, config: LanguageConfig, folder: RunFolder | None = None) -> Self:
        """Read the text, take the run's tokenizer or build one, and draw the weights."""
        text = open_text(config.data.path, report=Preparation())
        if folder is not None and folder.tokenizer.is_dir():
            tokenizer = load_tokenizer(folder.tokenizer)
        else:
            tokenizer = fit_tokenizer(text, config.data.tokenizer, config.data.vocab_size)
        # The weights are the seed's, whatever was drawn while reading.
        torch.manual_seed(config.seed)
        task = cls(config, tokenizer, text)
        task.training_batch(0)  # a text that is too short is refused before anything is written
        task.evaluation_batches("valid")
        return task

    @classmethod
    def open(cls, config: LanguageConfig, folder: RunFolder) -> Self:
        """Load tokenizer and weights."""
        task = cls(config, load_tokenizer(folder.tokenizer))
        load_weights(task.model, folder)
        return task

    @cached_property
    def tokens(self) -> dict[str, Tensor]:
        """The token ids of each split, integers of shape (tokens,); a long text's are mapped from files."""
        text = self._text or open_text(self.config.data.path, report=Preparation())
        return tokenise(text, self.tokenizer)

    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor, bool]:
        """Return inputs and targets (batch_size, sequence_length), and whether they begin new streams."""
        data = self.config.data
        tokens, length = self.tokens["train"], data.sequence_length
        if data.memory:
            streams = StreamBatches(tokens, length, data.batch_size, rank, world_size)
            return *streams.batch(index), streams.fresh(index)
        windows = RandomWindows(tokens, length, data.batch_size, self.config.seed, rank, world_size)
        return *windows.batch(index), True

    def training_loss(self, batch: tuple[Tensor, Tensor, bool]) -> tuple[Tensor, Measures]:
        """Return the mean cross-entropy; with a memory, of a segment that goes on where the one before ended."""
        inputs, targets, fresh = batch
        # A checkpoint's past is read on the host.
        past = None if fresh else tree_map(lambda leaf: leaf.to(inputs.device), self._past)
        features, self._past = self._read(inputs, past)
        return self.model.losses(features, targets).mean(), {}

    def trunk(self, batch: tuple[Tensor, Tensor, bool]) -> Tensor:
        """Return the features (batch, length, width) before the head."""
        return self._read(batch[0], None)[0]

    def evaluation_batches(self, split: str) -> Sequence[tuple[Tensor, Tensor]] | None:
        """Return every window of a split, one after another; with a memory, every stream of such windows."""
        if split not in self.tokens:
            return None
        data = self.config.data
        cut = evaluation_streams if data.memory else evaluation_batches
        return cut(self.tokens[split], data.sequence_length, data.eval_batch_size)

    def evaluation_sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the summed cross-entropy and the number of tokens."""
        past, total = None, torch.zeros((), dtype=torch.float64)
        segments = (part.split(self.config.data.sequence_length, dim=1) for part in batch)
        for inputs, targets in zip(*segments, strict=True):
            features, past = self._read(inputs, past)
            total += self.model.losses(features, targets).cpu().double().sum()
        return {"loss": total, "tokens": torch.tensor(batch[1].numel())}

    def _read(self, inputs: Tensor, past: Any) -> tuple[Tensor, Any]:
        """Return the features of a segment, and what the next one of its streams remembers."""
        model: Any = self.model  # each network has a past of its own kind
        return model.read(inputs, past, self.config.data.memory)

    def quality(self, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
        """Return loss in nats a token and perplexity."""
        name = "val" if split == "valid" else split
        loss = float(sums["loss"] / sums["tokens"])
        return {f"{name}_loss": loss, f"{name}_perplexity": math.exp(min(loss, 700.0))}

    def save_inference(self, folder: RunFolder) -> None:
        """Write the tokenizer."""
        self.tokenizer.save(folder.tokenizer)

    @cached_property
    def data_fingerprint(self) -> str:
        """A digest of the training tokens."""
        digest = hashlib.blake2b(digest_size=16)
        for piece in self.tokens["train"].split(HASHED):  # as int32, whatever they are stored as
            digest.update(piece.int().numpy().data)
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """Return what was read and by which network."""
        data = self.config.data
        return {
            "model": self.config.model.kind,
            "data": data.path,
            "tokenizer": data.tokenizer,
            "vocab_size": self.tokenizer.vocab_size,
        }

    def continuations(
        self,
        prompts: Sequence[str],
        n_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> Iterator[list[str]]:
        """Yield what the model has written after each prompt, token by token; the prompts are decoded in one batch.

        A character of which bytes are still to come is left out until they are there. The model sees as many positions
        as it was trained on.
        """
        ids = [torch.from_numpy(self.tokenizer.encode(prompt)).long() for prompt in prompts]
        if not ids or min(map(len, ids)) == 0:
            raise DataError("the prompt is empty; pass at least one character.")
        lengths = torch.tensor([len(one) for one in ids], device=self.device)
        rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)
        self.eval()
        sampled = stream(
            self.model,
            rows,
            n_tokens,
            lengths=lengths if len(ids) > 1 else None,
            window=self.window,
            temperature=temperature,
            top_k=top_k,
            generator=torch.Generator(self.device).manual_seed(seed),
        )
        written: list[list[int]] = [[] for _ in ids]
        for tokens in sampled:
            for row, token in zip(written, tokens.tolist(), strict=True):
                row.append(token)
            yield [self.tokenizer.decode(row).rstrip(UNFINISHED) for row in written]

    def continuation(self, prompt: str, n_tokens: int, **options: Any) -> str:
        """Return a text that the model writes after `prompt`; options as in `continuations`."""
        last = deque(self.continuations([prompt], n_tokens, **options), maxlen=1)
        return last[0][0] if last else ""

    @property
    def window(self) -> int:
        """How many positions one sees in generation, itself among them."""
        return self.config.data.sequence_length + self.config.data.memory

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the streams of all processes remember."""
        super().on_save_checkpoint(checkpoint)
        leaves = [leaf for _, leaf in tree_leaves(self._past)]
        # (processes, batch, ...)
        checkpoint["past"] = [self.all_gather(leaf) if self.trainer.world_size > 1 else leaf[None] for leaf in leaves]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what this process's streams remember."""
        super().on_load_checkpoint(checkpoint)
        saved = [leaf[self.trainer.global_rank] for leaf in checkpoint.get("past", [])]
        self._past = past_of(self.model, saved) if saved else None

    def show(self, analysis: Mapping[str, Any]) -> str:
        """Return a sample of text that begins like the validation text."""
        return "".join(sample["prompt"] + sample["text"] for sample in analysis["texts"][:1])

    def sample_prompt(self) -> str:
        """Return the first whole words of the validation text, which the vocabulary holds."""
        text = self.tokenizer.decode(self.tokens["valid"][:LOOKED_AT])
        words = re.search(r"(?<=\s)\S+( \S+){0,3} ", text[: len(text) // 2])
        return words[0] if words else text[:PROMPT_CHARACTERS]

    def analyse(self) -> dict[str, Any]:
        """Return what the report shows beside the measures of training."""
        return analyse(self)

    def dial(self) -> list[dict[str, Any]]:
        """Return loss and perplexity against evaluations."""
        return dial(self) if self.solves else []

    def build_page(self, folder: RunFolder) -> Page:
        """Return the report."""
        return build_page(folder)
