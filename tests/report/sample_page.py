"""A page with every piece that a report of a language model has, filled with made-up numbers."""

from __future__ import annotations

import math
import random
import struct
import zlib

from poise.report import (
    Figure,
    Page,
    Sample,
    Section,
    Series,
    Settings,
    Statuses,
    Table,
    Tile,
    bar_chart,
    histogram,
    line_chart,
    picture,
)

TEXT = """The `with` statement is used to wrap the execution of a block with
methods defined by a context manager (see section With Statement
Context Managers). This allows common "try"..."except"..."finally"
usage patterns to be encapsulated <b>&amp;</b> for convenient reuse.

   with_stmt ::= "with" ( "(" with_stmt_contents ","? ")" ) ":" suite
"""


def png(width: int, height: int) -> bytes:
    """Make a small grey gradient."""
    rows = b"".join(b"\0" + bytes(255 * (r + c) // (width + height) for c in range(width)) for r in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def loss_figure() -> Figure:
    draw = random.Random(0)
    steps = range(1, 2001)
    curve = [1.45 + 2.8 * math.exp(-s / 160) + 0.4 * math.exp(-s / 900) for s in steps]
    train = [value + draw.gauss(0, 0.04) for value in curve]
    checks = range(100, 2001, 100)
    return line_chart(
        [
            Series("training", steps, train),
            Series("validation", checks, [curve[s - 1] + 0.02 + s / 25000 for s in checks], markers=True),
        ],
        title="Loss",
        x_label="step",
        y_label="loss (nats a token)",
        caption="Validation covers the whole split.",
    )


def residual_figure() -> Figure:
    draw = random.Random(1)
    rates = sorted(draw.uniform(0.45, 0.68) for _ in range(8))
    curves = [[0.9 * rate**k * math.exp(draw.gauss(0, 0.05)) for k in range(25)] for rate in rates]
    median = [sorted(values)[4] for values in zip(*curves, strict=True)]
    samples = [Series("samples", range(25), curve, style="faint") for curve in curves]
    return line_chart(
        [
            *samples,
            Series("tolerance", (0, 24), (1e-4, 1e-4), style="dashed"),
            Series("median", range(25), median),
        ],
        title="Residual against iteration",
        x_label="iteration",
        y_label="relative residual",
        log_y=True,
        caption="Eight windows of the validation text.",
    )


def evaluations_figure() -> Figure:
    draw = random.Random(2)
    return histogram(
        [min(24, max(6, round(draw.gauss(11, 2.2)))) for _ in range(512)],
        title="Evaluations a sample",
        x_label="evaluations",
        y_label="samples",
    )


def memory_figure() -> Figure:
    depths = [2, 4, 8, 12, 16, 24, 32, 40]
    return line_chart(
        [
            Series("DEQ", depths, [4.1e6] * 8, markers=True),
            Series("unrolled", depths, [3.4e6 * d for d in depths], markers=True),
        ],
        title="Activation bytes against effective depth",
        x_label="evaluations of the cell",
        y_label="bytes held for the backward pass",
        y_unit="bytes",
        from_zero=True,
        caption="One batch of 12 x 64 tokens.",
    )


def page() -> Page:
    settings = {
        "task": "language",
        "seed": 0,
        "recipe": "tinyshakespeare-deq",
        "model": {"kind": "deq", "d_model": 180, "n_heads": 4, "n_layers": 2, "dropout": 0.0, "tie_embeddings": True},
        "solver": {"name": "Anderson", "rtol": 1e-4, "max_steps": 24, "history": 10, "scope": "prefix"},
        "optimizer": {"name": "muon", "lr": 0.02, "weight_decay": 0.1, "betas": (0.9, 0.95), "adamw": {"lr": 3e-3}},
        "data": {"path": "a/rather/long/folder/of/text/that/has/no/spaces/in/it/train.txt", "tokenizer": "char"},
        "trainer": {"max_steps": 2000, "batch_size": 12, "gradient_clip_val": 1.0, "checkpoint": None},
    }
    return Page(
        title="DEQ language model",
        eyebrow="language · tinyshakespeare-deq · seed 0",
        summary="A two-layer equilibrium transformer reaches a validation loss of 1.566 nats a character with "
        "799,412 parameters; 99.2 % of its solves converge within `rtol=1e-4`.",
        tiles=(
            Tile("Validation loss", 1.566, note="nats a token"),
            Tile("Perplexity", 4.787, note="per character"),
            Tile("Parameters", 799_412),
            Tile("Training time", 183.4, unit="seconds", note="2 CPU threads"),
            Tile("Forward evaluations", 11.25, note="mean a sample"),
            Tile("Backward evaluations", 9.5, note="mean a sample"),
            Tile("Activation bytes", 4_123_456, unit="bytes", note="equilibrium block"),
            Tile("Converged", 0.9921, unit="percent", note="of validation solves"),
        ),
        sections=(
            Section("Training", [loss_figure()]),
            Section(
                "Equilibrium",
                [
                    "Each window of text has a solve of its own, which stops when the residual of all its positions "
                    "is within `rtol`.\n\nWhat is not converged is counted below, never hidden.",
                    residual_figure(),
                    evaluations_figure(),
                    memory_figure(),
                    bar_chart(
                        ["4 evaluations", "12 evaluations", "40 evaluations"],
                        {"DEQ": [4.1e6, 4.1e6, 4.1e6], "unrolled": [13.6e6, 40.8e6, 136e6]},
                        title="The same as bars",
                        label="bytes held for the backward pass",
                        unit="bytes",
                    ),
                    Statuses(
                        {
                            "training, forward": {"CONVERGED": 23_911, "BUDGET": 89},
                            "training, backward": {"CONVERGED": 24_000},
                            "validation, forward": {"CONVERGED": 508, "BUDGET": 2, "STALLED": 1, "DIVERGED": 1},
                        }
                    ),
                ],
            ),
            Section(
                "Samples",
                [
                    Sample(TEXT, label="temperature 0.8, top-k 40", prompt="The "),
                    Sample("the the \x00\x1b[31m\x7f \ud800 <script>alert(1)</script> " * 4, label="before training"),
                ],
            ),
            Section(
                "Beside the explicit network",
                [
                    Table(
                        ("network", "parameters", "val. loss", "train time", "bytes held", "converged"),
                        [
                            ("DEQ, 2 x 180", 799_412, 1.566, 183.4, 4_123_456, 0.9921),
                            ("explicit, 4 x 128", 803_200, 1.576, 83.2, 13_600_000, None),
                        ],
                        units=("number", "number", "number", "seconds", "bytes", "percent"),
                    ),
                    line_chart([], title="Nothing measured", x_label="x", y_label="y"),
                    line_chart(
                        [Series(f"class {c}", *cloud(c), style="points") for c in range(4)],
                        title="Embedding",
                        x_label="first component",
                        y_label="second component",
                    ),
                    picture(png(28, 14), title="A picture", alt="a grey gradient", pixelated=True),
                ],
            ),
            Section("Configuration", [Settings(settings)]),
        ),
        footer="poise 0.1.0, torch 2.13.0. Made by `poise train language --recipe tinyshakespeare-deq`.",
    )


def cloud(place: int) -> tuple[list[float], list[float]]:
    draw = random.Random(place)
    return [draw.gauss(2 * place, 0.7) for _ in range(120)], [draw.gauss((-1) ** place, 0.7) for _ in range(120)]
