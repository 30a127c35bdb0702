"""What is looked at once a reasoner is trained: how it solves fresh puzzles, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.fixed_point import Solution, Status, Step
from poise.models import Reasoner
from poise.objectives import auroc

if TYPE_CHECKING:
    from poise.tasks.reason import ReasonTask

BUDGETS = (10, 16, 25, 50, 100, 200, 500, 1000)  # evaluations after which answers are read
FRAMES = 6  # of one puzzle being solved
SCATTERED = 60  # puzzles of each size whose evaluations are drawn over their difficulty
FEWEST_WRONG = 10  # answers below which a verdict on signs says little


def analyse(task: ReasonTask) -> dict[str, Any]:
    """Return how each size is solved: accuracy by budget, evaluations, convergence, agreement; signs of an error."""
    model = task.model
    if not isinstance(model, Reasoner):
        return {"sizes": [{"name": one.name, "solved": _solved(task, *one.batch)} for one in task.test_sets]}
    sizes, seen = [], []
    for one in task.test_sets:
        found = solve(task, *one.batch)
        seen.append(found)
        sizes.append({"name": one.name, "difficulty": float(one.instances.difficulty.mean()), **found.summary()})
    hardest = len(seen) - 1
    analysis = {
        "sizes": sizes,
        "signs": signs(seen),
        "scatter": [
            {
                "name": one.name,
                "difficulty": one.instances.difficulty[:SCATTERED].tolist(),
                "evaluations": found.steps[:SCATTERED].tolist(),
            }
            for one, found in zip(task.test_sets, seen, strict=True)
        ],
        "agreement": seen[hardest].agreement_counts(),
        "frames": frames(task, task.test_sets[hardest].batch[0][_first_solved(seen[hardest]) :][:1]),
    }
    model.equilibrium.counters.reset()  # these solves are none of the run's
    return analysis


@dataclass(frozen=True)
class Solved:
    """What solving puzzles of one size showed; (puzzles,) unless said otherwise."""

    budgets: Mapping[int, Tensor]  # whether the answer after so many evaluations was right
    right: Tensor
    steps: Tensor
    residual: Tensor
    converged: Tensor
    trace: Tensor  # (evaluations, puzzles)
    agreement: Tensor  # (compared,) of the starts of the first puzzles
    from_random: Tensor  # (compared,) the part of their starts from N(0, 1) that lead to the right answer

    def summary(self) -> dict[str, Any]:
        """Return means as plain values."""
        return {
            "budgets": {str(budget): _share(right) for budget, right in self.budgets.items()},
            "solved": _share(self.right),
            "evaluations": float(self.steps.double().mean()),
            "converged": _share(self.converged),
            "agreement": float(self.agreement.double().mean()),
            "solved_from_random": float(self.from_random.double().mean()),
        }

    def residual_at(self, budget: int) -> Tensor:
        """Return the residual after so many evaluations, of finished puzzles their last."""
        early = self.trace[:budget]
        measured = early.isfinite().int().cumsum(dim=0).argmax(dim=0)  # the last evaluation that was tested
        return early.gather(0, measured.unsqueeze(0))[0]

    def compared(self, x: Tensor) -> Tensor:
        """Return the part of (puzzles,) that was solved from several starts."""
        return x[: len(self.agreement)]

    def agreement_counts(self) -> list[dict[str, float]]:
        """Return how many answers were right and wrong at each agreement that occurs."""
        right = self.compared(self.right)
        return [
            {
                "agreement": value,
                "right": int((right & (self.agreement == value)).sum()),
                "wrong": int((~right & (self.agreement == value)).sum()),
            }
            for value in sorted(set(self.agreement.tolist()))
        ]


@torch.no_grad()
def solve(task: ReasonTask, given: Tensor, answer: Tensor) -> Solved:
    """Solve puzzles from zeros, read off at every budget, and the first of them from several starts."""
    model = task.model
    assert isinstance(model, Reasoner)
    settings, size = task.config.starts, task.config.data.eval_batch_size
    solver = model.equilibrium.solver_in_use
    budgets = [*(budget for budget in BUDGETS if budget < solver.max_steps), solver.max_steps]
    generator = torch.Generator(task.device).manual_seed(task.config.seed)
    given, answer = given.to(task.device), answer.to(task.device)
    parts = []
    for few, wanted in zip(given.split(size), answer.split(size), strict=True):
        answers, solution = answers_within(model, few, budgets)
        at = {budget: _right(found, wanted) for budget, found in answers.items()}
        parts.append((at, _right(model.read(solution.state), wanted), solution))
    first, few_at_once = slice(settings.puzzles), max(1, size // settings.compared)
    together, drawn = [], []
    for few, wanted in zip(given[first].split(few_at_once), answer[first].split(few_at_once), strict=True):
        starts = model.solve(few, starts=settings.compared, generator=generator).starts
        together.append(starts.agreement)
        states = starts.states[:, 1:].unbind(1)  # the first start is zeros
        drawn.append(torch.stack([_right(model.read(state), wanted) for state in states]).double().mean(dim=0))
    longest = max(solution.evaluations for *_, solution in parts)
    traces = [F.pad(one.trace, (0, 0, 0, longest - len(one.trace)), value=float("nan")) for *_, one in parts]
    return Solved(
        budgets={budget: torch.cat([at[budget] for at, _, _ in parts]) for budget in budgets},
        right=torch.cat([right for _, right, _ in parts]),
        steps=torch.cat([one.steps for *_, one in parts]),
        residual=torch.cat([one.residual for *_, one in parts]),
        converged=torch.cat([one.status == Status.CONVERGED for *_, one in parts]),
        trace=torch.cat(traces, dim=1),
        agreement=torch.cat(together),
        from_random=torch.cat(drawn),
    )


def answers_within(model: Reasoner, given: Tensor, budgets: Sequence[int]) -> tuple[dict[int, Tensor], Solution]:
    """Return the answers that solves with smaller budgets would give, and the solve with the solver in use.

    A puzzle that is not finished is answered from its state of the smallest residual so far, as at the end of a solve.
    """
    answers = torch.zeros(0)
    least = torch.full((len(given),), float("inf"), dtype=torch.float64, device=given.device)
    found: dict[int, Tensor] = {}

    def see(step: Step) -> None:
        nonlocal answers
        read = model.read(step.state)
        if step.number == 1:
            answers = read.clone()
        improved = step.residual.double() < least[step.samples]
        rows = step.samples[improved]
        answers[rows], least[rows] = read[improved], step.residual[improved].double()
        if step.number in budgets:
            found[step.number] = answers.clone()

    solution = model.solve(given, callback=see)
    last = model.read(solution.state)
    return {budget: found.get(budget, last) for budget in budgets}, solution


def signs(seen: Sequence[Solved]) -> dict[str, Any]:
    """Return how well each sign tells right answers from wrong ones, over all sizes (AUROC; None: undefined).

    The residual at one budget is that after as many evaluations as solve nearest to half of the puzzles, where it can
    say most, against whether the answer at that budget is right; finished puzzles have their last.
    """
    right = torch.cat([one.compared(one.right) for one in seen])
    scores = {
        "agreement of starts": torch.cat([one.agreement for one in seen]),
        "fewer evaluations": -torch.cat([one.compared(one.steps) for one in seen]),
        "residual after the solve": -torch.cat([one.compared(one.residual) for one in seen]),
    }
    found = {name: auroc(score.double(), right) for name, score in scores.items()}
    by_budget = {b: torch.cat([one.budgets[b] for one in seen]) for b in seen[0].budgets}
    budget = min(by_budget, key=lambda b: abs(_share(by_budget[b]) - 0.5))
    residual = torch.cat([one.residual_at(budget) for one in seen])
    found[f"residual after {budget} evaluations"] = auroc(-residual.double(), by_budget[budget])
    return {"right": int(right.sum()), "wrong": int((~right).sum()), "auroc": found}


@torch.no_grad()
def frames(task: ReasonTask, given: Tensor) -> dict[str, Any]:
    """Return one puzzle being solved: its answers, confidences and residuals on the way."""
    model = task.model
    assert isinstance(model, Reasoner)
    given = given.to(task.device)
    solution = model.solve(given, record=True)
    last = len(solution.trajectory)
    # More frames early, where more happens.
    wanted = sorted({max(1, round(last ** (place / (FRAMES - 1)))) for place in range(FRAMES)})
    before = None
    shown = []
    for number, state in enumerate(solution.trajectory, start=1):
        if number in wanted:
            probability = model.head(state).softmax(dim=1).amax(dim=1)[0]
            change = torch.ones_like(probability) if before is None else _moved(model, before, state)
            shown.append(
                {
                    "evaluation": number,
                    "answer": model.read(state)[0].tolist(),
                    "confidence": _rounded(probability),
                    "residual": _rounded(change),
                }
            )
        before = state
    return {"given": given[0].tolist(), "frames": shown, "residuals": solution.trace[:, 0].tolist()}


def _moved(model: Reasoner, before: Tensor, state: Tensor) -> Tensor:
    """Return the relative change of each position, of Sudoku the largest over its digits."""
    features = 3 if model.puzzle == "sudoku" else 1
    change = (state - before).norm(dim=features) / state.norm(dim=features).clamp_min(1e-12)
    return change.amax(dim=1)[0] if model.puzzle == "sudoku" else change[0]


def _rounded(values: Tensor) -> Any:
    return [[round(x, 4) for x in row] if isinstance(row, list) else round(row, 4) for row in values.tolist()]


def _first_solved(seen: Solved) -> int:
    """Return the number of the first puzzle that was solved, or of the first one."""
    return int(seen.right.int().argmax())


@torch.no_grad()
def _solved(task: ReasonTask, given: Tensor, answer: Tensor) -> float:
    size = task.config.data.eval_batch_size
    parts = zip(given.split(size), answer.split(size), strict=True)
    model = task.model
    return _share(torch.cat([_right(model.choose(model(a.to(task.device))), b.to(task.device)) for a, b in parts]))


def _right(answer: Tensor, wanted: Tensor) -> Tensor:
    return (answer == wanted).flatten(1).all(dim=1)


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def shown(analysis: Mapping[str, Any]) -> str:
    """Return what solving showed as a table: a line for each size."""
    sizes = analysis["sizes"]
    if "budgets" not in sizes[0]:
        return "\n".join(f"  {size['name']:12}{size['solved']:7.1%}" for size in sizes)
    budgets = list(sizes[0]["budgets"])
    head = f"  {'solved within':12}" + "".join(f"{budget:>7}" for budget in budgets)
    lines = [f"{head}  evaluations  converged  starts agree"]
    for size in sizes:
        cells = "".join(f"{size['budgets'][budget]:7.0%}" for budget in budgets)
        ends = f"{size['evaluations']:13.1f}{size['converged']:11.0%}{size['agreement']:14.0%}"
        lines.append(f"  {size['name']:12}{cells}{ends}")
    found = analysis["signs"]
    if found["wrong"] and found["right"]:
        told = ", ".join(f"{name} {value:.2f}" for name, value in found["auroc"].items() if value is not None)
        few = f" (of {found['wrong']} wrong answers, which is few)" if found["wrong"] < FEWEST_WRONG else ""
        lines.append(f"  what tells right from wrong, AUROC{few}: {told}")
    else:
        only = "right" if found["right"] else "wrong"
        lines.append(f"  what tells right from wrong is undefined: every answer is {only}")
    return "\n".join(lines)
