"""Settings of small runs on pictures, and small sets of them in folders."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from poise.configs.base import AdjointConfig, OptimizerConfig, SolverConfig, TrainerConfig
from poise.configs.classify import ClassifierConfig, ClassifyConfig, ClassifyViewsConfig
from poise.configs.multitask import MultitaskConfig
from poise.configs.recognition import MultiscaleConfig
from poise.configs.samples import SamplesConfig
from poise.configs.segment import SegmentConfig

SMALL = {"channels": (8, 8), "expansion": 1, "groups": 4, "head_width": 4, "head_features": 32}
BUDGET = SolverConfig(rtol=None, max_steps=3, form="type2", history=2)
SHARED = {
    "solver": BUDGET,
    "eval_solver": replace(BUDGET, max_steps=4),
    "adjoint": AdjointConfig(name="phantom", steps=2),
    "optimizer": OptimizerConfig(warmup_steps=5, lr=1e-2, matrix_lr=0.05),
}


@dataclass
class Standing:
    """Where a run stands, in the words of Lightning's Trainer."""

    global_step: int = 0
    global_rank: int = 0
    world_size: int = 1
    accumulate_grad_batches: int = 1


def trainer(steps, **more):
    settings = {"accelerator": "cpu", "devices": 1, "threads": 1, "val_check_interval": 1000, **more}
    return TrainerConfig(max_steps=steps, log_every_n_steps=1, **settings)


def classify(steps=1, *, model=None, batch_size=32, limit=None, path="digits", run=None, **more):
    """Return settings of a small run on digits; `run`: settings of its trainer."""
    return ClassifyConfig(
        data=SamplesConfig(path=str(path), batch_size=batch_size, limit=limit),
        model=ClassifierConfig(**{**SMALL, **(model or {})}),
        trainer=trainer(steps, **(run or {})),
        **{**SHARED, "views": ClassifyViewsConfig(padding=0), **more},
    )


def segment(path, steps=1, *, model=None, batch_size=4, run=None, **more):
    """Return settings of a small run on a folder of pictures and label pictures."""
    return SegmentConfig(
        data=SamplesConfig(path=str(path), batch_size=batch_size, eval_batch_size=4),
        model=MultiscaleConfig(**{**SMALL, "downsamplings": 1, **(model or {})}),
        trainer=trainer(steps, **(run or {})),
        **{**SHARED, **more},
    )


def multitask(steps=1, *, path="scenes", model=None, batch_size=16, limit=None, run=None, **more):
    """Return settings of a small run on scenes of digits."""
    return MultitaskConfig(
        data=SamplesConfig(path=str(path), batch_size=batch_size, eval_batch_size=50, limit=limit),
        model=MultiscaleConfig(**{**SMALL, "downsamplings": 2, **(model or {})}),
        trainer=trainer(steps, **(run or {})),
        **{**SHARED, **more},
    )


def write_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_scenes(folder: Path, train=8, test=6, size=(33, 45), seed=0):
    """Write coloured pictures of three classes and their label pictures, in which 3 is void."""
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("sky\nroad\ncar\nvoid\n")
    draw = np.random.default_rng(seed)
    colours = np.array([[40, 60, 200], [90, 90, 90], [200, 40, 40], [0, 0, 0]])
    for part, number in (("train", train), ("test", test)):
        for place in range(number):
            top = int(draw.integers(size[0] // 3, size[0] // 2))
            labels = np.zeros(size, np.uint8)
            labels[top:] = 1
            labels[top + 4 : top + 12, size[1] // 3 : size[1] // 3 + 14] = 2
            labels[:3] = 3
            noise = draw.integers(0, 30, (*size, 3))
            write_png(folder / part / f"{place:02}.png", (colours[labels] + noise).astype(np.uint8))
            write_png(folder / f"{part}annot" / f"{place:02}.png", labels)
    return folder


def write_classes(folder: Path, train=6, test=3, size=(8, 8), names=("blue", "red"), channels=3):
    """Write pictures of so many a class, each class of a colour (or a grey) of its own."""
    draw = np.random.default_rng(0)
    for place, name in enumerate(names):
        for part, number in (("train", train), ("test", test)):
            for picture in range(number):
                array = draw.integers(0, 90, (*size, channels), dtype=np.uint8)
                array[..., place % channels] += 150
                write_png(folder / part / name / f"{picture:03}.png", array[..., 0] if channels == 1 else array)
    return folder


def step(task, number, rank=0):
    """Take the loss of a step, its measures, and what its solves spent."""
    standing = Standing(number, rank)
    task.trainer = standing
    task.train()
    loss = task.training_step(task.training_batch(number, rank, 2), number)
    return loss, dict(task.measures), task.drain_training()["forward_evaluations"]


def means(task):
    layer = task.model.equilibrium
    return layer.solver, layer.adjoint, layer.eval_solver, layer.on_failure, layer.on_solution
