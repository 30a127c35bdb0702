"""Learn prefix sums on 32 bits, solve 512: an equilibrium reasoner in one loop, about a minute on one core.

python examples/prefix_sums.py [STEPS]
"""

import sys
from dataclasses import replace

import numpy as np
import torch

from poise import Phantom, Picard
from poise.data.puzzles import prefix
from poise.models import Reasoner
from poise.nn import jacobian_penalty, jittered

# The slowest position decides when a string is done: in the norm of a long one, it would be lost.
SOLVER = Picard(rtol=1e-3, max_steps=21, damping=0.8, residual="position")
LENGTHS = (32, 64, 128, 256, 512)


def main(steps: int = 600, instances: int = 50) -> dict[int, float]:
    torch.manual_seed(0)
    model = Reasoner("prefix", solver=SOLVER, adjoint=Phantom(5, damping=0.8, recorded_only=True))
    model.equilibrium.on_failure = "ignore"  # budgets are drawn short on purpose
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = np.random.default_rng(0)
    for step in range(steps):
        drawn = prefix.generate(64, int(generator.integers(16, 33)), generator)
        given, answer = torch.from_numpy(drawn.given), torch.from_numpy(drawn.answer)
        # Half of the starts and every budget are random, so that neither can be learnt by heart.
        model.equilibrium.solver = jittered(SOLVER, 20)
        solution = model.solve(given, model.random_start(given, 0.5))
        loss = model.loss(model.head(solution.state), answer)
        penalty = jacobian_penalty(model.cell, solution.state[:16].detach(), solution.context[:16])
        optimizer.zero_grad()
        (loss + 0.02 * penalty).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item():.4f}")
    model.equilibrium.solver = replace(SOLVER, max_steps=500)
    model.eval()
    found = {}
    for length in LENGTHS:
        drawn = prefix.generate(instances, length, generator, "test")
        with torch.no_grad():
            solution = model.solve(torch.from_numpy(drawn.given))
        found[length] = float(prefix.is_solution(drawn.given, model.read(solution.state).numpy()).mean())
        print(f"{length} bits: {found[length]:.0%} solved in {solution.steps.double().mean():.0f} evaluations")
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
