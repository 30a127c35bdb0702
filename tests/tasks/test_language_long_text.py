"""A language run on a text too long to be held: what it sees is what it would see of the text in memory."""

import hashlib

import pytest
import torch

from poise.configs.language import LanguageConfig, ModelConfig, TextDataConfig
from poise.data import DataError, RandomWindows, build_tokenizer
from poise.tasks.language import LanguageTask
from poise.tasks.run_folder import RunFolder

LINES = "".join(f"line {n} of a text, with {n * n} numbers\n" for n in range(5000))
TEXT = LINES * (9_000_000 // len(LINES) + 1)  # characters and bytes: beyond what is held


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny(path):
    return LanguageConfig(
        data=TextDataConfig(path=str(path), tokenizer="word", vocab_size=3000, sequence_length=16, batch_size=3),
        model=ModelConfig(d_model=16, n_heads=2, n_layers=1),
    )


def test_a_run_sees_the_text_as_if_it_were_in_memory(tmp_path, cache):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    task = LanguageTask.create(tiny(path))
    boundary = int(0.9 * len(TEXT))
    tokenizer = build_tokenizer("word", TEXT[:boundary], 3000)
    assert task.tokenizer == tokenizer
    train = torch.from_numpy(tokenizer.encode(TEXT[:boundary]))
    assert torch.equal(task.tokens["train"].int(), train)
    assert torch.equal(task.training_batch(7)[0], RandomWindows(train, 16, 3, seed=0).batch(7)[0])
    assert task.data_fingerprint == hashlib.blake2b(train.numpy().tobytes(), digest_size=16).hexdigest()
    assert task.sample_prompt() in tokenizer.decode(tokenizer.encode(TEXT[boundary : boundary + 5000]))
    built = {file.name: file.stat().st_ino for file in cache.iterdir()}
    folder = RunFolder(tmp_path / "run")
    task.save_inference(folder)
    again = LanguageTask.create(tiny(path), folder)  # as a resumed run does
    assert again.data_fingerprint == task.data_fingerprint
    assert {file.name: file.stat().st_ino for file in cache.iterdir()} == built


def test_a_long_text_that_cannot_be_read_is_refused_before_anything_is_kept(tmp_path, cache):
    path = tmp_path / "bad.txt"
    path.write_bytes(TEXT.encode() + b"\xff")
    with pytest.raises(DataError, match=f"byte 0xff at offset {len(TEXT)} of the file"):
        LanguageTask.create(tiny(path))
    assert not cache.exists()
