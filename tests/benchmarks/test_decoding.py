"""The decoding benchmark names what is asked of it, and a run's cached logits are those of a whole solve."""

import json

import pytest

from benchmarks import causality, decoding
from poise.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoding")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog lay on the log.\n" * 40)
    settings = "--model.d_model 16 --model.n_heads 2 --max_steps 3 --data.sequence_length 16 --sample_tokens 0"
    arguments = ["train", "language", "--data", str(folder / "text.txt"), "--out", str(folder / "run")]
    assert main([*arguments, *settings.split()]) == 0
    return folder / "run"


def test_what_is_measured(run):
    content = decoding.measure(run, rounds=1, places=(4, 8), compared=24)
    assert 0 < content["largest_logit_difference"] <= decoding.DIFFERENCE_LIMIT
    assert content["flatness_512_over_64"] > 0 and content["speedup_at_512"] > 0
    assert [row["tokens_before"] for row in content["rows"]] == [4, 8]
    assert all(row["cached_evaluations"] >= 2 for row in content["rows"])
    assert json.dumps(content) and len(decoding.table(content).splitlines()) == 4


def test_a_prefix_leaks_nothing_and_a_sample_does(run):
    content = causality.measure(run)
    leaks = {(row["solver"], row["scope"], row["rtol"]): row["leak"] for row in content["rows"]}
    assert not any(leak for (_, scope, _), leak in leaks.items() if scope == "prefix")
    assert any(leak for (_, scope, _), leak in leaks.items() if scope == "sample")
    assert len(causality.table(content).splitlines()) == 2 + 10 and json.dumps(content)
