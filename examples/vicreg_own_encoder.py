"""VICReg on MNIST with an encoder of your own: any module from a batch of pictures to features.

python examples/vicreg_own_encoder.py FOLDER-OF-MNIST [STEPS]
"""

import sys
from pathlib import Path

import torch
from torch import nn

from poise.data import Placed, idx_pictures
from poise.models import Expander, VICReg
from poise.objectives import VICRegLoss, fit_linear_probe


def main(folder: str, steps: int = 300, probed: int = 5000) -> float:
    splits = idx_pictures(Path(folder))
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 128),
    )  # fmt: skip
    model, loss = VICReg(encoder, Expander((128, 256, 256))), VICRegLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    view, generator = Placed(side=32, noise=0.1), torch.Generator().manual_seed(0)
    for step in range(steps):
        x = splits.train.inputs[torch.randint(len(splits.train), (256,), generator=generator)] / 255
        terms = loss(*model(view(x, generator), view(x, generator)))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: {terms.total.item():.2f}")
    encoder.eval()
    placed = [
        (view(part.inputs[:probed] / 255, generator), part.labels[:probed]) for part in (splits.train, splits.test)
    ]
    with torch.no_grad():
        (known, labels), (unseen, answers) = [(encoder(x), y) for x, y in placed]
    accuracy = fit_linear_probe(known, labels, 10).accuracy(unseen, answers)
    print(f"linear probe on {len(known):,} labels: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300)
