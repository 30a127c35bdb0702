"""The examples run as they stand."""

import os
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("POISE_DATA") or ROOT.parent / "shared" / "data")


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="needs MNIST in the shared data folder")
def test_vicreg_with_an_encoder_of_ones_own(capsys):
    example = runpy.run_path(str(ROOT / "examples" / "vicreg_own_encoder.py"))
    assert example["main"](str(DATA / "mnist"), steps=20, probed=1000) > 0.6
    assert "linear probe on 1,000 labels" in capsys.readouterr().out


def test_prefix_sums_in_one_loop(capsys):
    example = runpy.run_path(str(ROOT / "examples" / "prefix_sums.py"))
    found = example["main"](steps=3, instances=2)
    assert list(found) == [32, 64, 128, 256, 512] and all(0 <= share <= 1 for share in found.values())
    assert "step 0: " in capsys.readouterr().out
