"""What training does so that equilibria stay easy to find, in any task: counted, and against dense Jacobians."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from poise import Equilibrium, Implicit, Picard
from poise.configs.base import PretrainingConfig, RegularizationConfig, SolverConfig
from poise.configs.errors import ConfigError
from poise.configs.language import LanguageConfig, ModelConfig, TextDataConfig
from poise.configs.vicreg import EncoderConfig, VICRegConfig
from poise.fixed_point import Unrolled
from poise.tasks.classify import ClassifyTask
from poise.tasks.evaluation import measure
from poise.tasks.language import LanguageTask
from poise.tasks.regularization import observed, penalty, solving, step_of_training
from poise.tasks.run_folder import RunFolder
from poise.tasks.training import train
from poise.tasks.vicreg import VICRegTask
from tests.tasks.recognition_runs import BUDGET, Standing, classify, means, step, write_classes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("set") / "classes", train=12)


def made(pictures, steps=1, **more):
    return ClassifyTask.create(classify(steps, path=pictures, batch_size=4, **more))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The penalty ----------------------------------------------------------------------------------------------------------


class TwoScales(nn.Module):
    """A cell of a state in two parts, in float64."""

    def __init__(self):
        super().__init__()
        draw = generator(5)
        self.weight = nn.Parameter(0.4 * torch.randn(5, 5, generator=draw, dtype=torch.float64))

    def initial_state(self, context):
        return context.new_zeros(len(context), 2), context.new_zeros(len(context), 3)

    def forward(self, z, context):
        return torch.tanh(torch.cat(z, dim=1) @ self.weight.T + context).split((2, 3), dim=1)


def test_the_penalty_of_a_step_is_that_of_the_dense_jacobian_with_the_state_held():
    layer = Equilibrium(TwoScales(), Picard(rtol=1e-12, max_steps=500), Implicit())
    x = torch.randn(3, 5, generator=generator(1), dtype=torch.float64, requires_grad=True)
    with observed(layer) as solves:
        layer(x)
        layer(2 * x)  # a loss may solve several times
    settings = RegularizationConfig(jacobian_weight=1.0, jacobian_frequency=1.0)
    draws = torch.stack([penalty(solves, settings, 0.0, generator()) for _ in range(800)])
    found = torch.autograd.grad(draws.mean(), (layer.cell.weight, x))

    exact = 0
    for given in (x, 2 * x):
        z = torch.cat(layer(given), dim=1).detach()
        slopes = 1 - torch.tanh(z @ layer.cell.weight.T + given).square()
        jacobians = slopes.unsqueeze(2) * layer.cell.weight  # d tanh(W z + x) / d z
        exact = exact + jacobians.square().sum(dim=(1, 2)).mean() / 5 / 2
    expected = torch.autograd.grad(exact, (layer.cell.weight, x))
    assert draws.mean().item() == pytest.approx(exact.item(), rel=0.1)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < 0.2 * b.norm()


def test_the_weight_multiplies_the_penalty_and_nothing_else(pictures):
    losses = {}
    for weight in (0.0, 0.5, 2.0):
        task = made(pictures, regularization=RegularizationConfig(jacobian_weight=weight, jacobian_frequency=1.0))
        loss, measures, _ = step(task, 0)
        losses[weight] = loss.item(), measures.get("jacobian_penalty")
    plain = losses[0.0][0]
    assert losses[0.0][1] is None
    for weight in (0.5, 2.0):
        loss, added = losses[weight]
        assert added > 0 and loss == pytest.approx(plain + weight * added.item(), rel=1e-5)


@pytest.mark.parametrize(("frequency", "least", "most"), [(1.0, 40, 40), (0.25, 4, 17)])
def test_the_penalty_comes_as_often_as_asked(tmp_path, pictures, frequency, least, most):
    settings = RegularizationConfig(jacobian_weight=0.1, jacobian_frequency=frequency)
    config = classify(40, path=pictures, batch_size=4, regularization=settings)
    folder = RunFolder(tmp_path)
    train(ClassifyTask, config, folder)
    rows = [row for row in folder.read_metrics() if "loss" in row]
    penalised = [row for row in rows if "jacobian_penalty" in row]
    assert len(rows) == 40 and least <= len(penalised) <= most
    assert all(row["loss"] == row["class_loss"] for row in rows)  # what is shown is the task's own, with or without
    assert "Jacobian penalty" in folder.report.read_text()


def test_a_penalty_makes_the_jacobian_smaller(tmp_path, pictures):
    radii = []
    for weight in (0.0, 20.0):
        settings = RegularizationConfig(jacobian_weight=weight, jacobian_frequency=1.0, spectral_radius_samples=6)
        config = classify(25, path=pictures, batch_size=4, regularization=settings)
        radii.append(train(ClassifyTask, config, RunFolder(tmp_path / str(weight)))["val_spectral_radius"])
    assert radii[1] < 0.8 * radii[0]


def test_a_network_that_solves_nothing_is_left_alone(pictures):
    settings = RegularizationConfig(jacobian_weight=1.0, jacobian_frequency=1.0, jitter=50, spectral_radius_samples=2)
    config = {"regularization": settings, "pretraining": PretrainingConfig(steps=3)}
    task = made(pictures, model={"kind": "explicit"}, **config)
    task.trainer = standing = Standing()
    loss = task.training_step(task.training_batch(0), 0)
    assert set(task.measures) == {"loss", "class_loss", "batch_accuracy"} and standing.global_step == 0
    assert loss.item() == pytest.approx(task.measures["class_loss"].item())


# The budget -----------------------------------------------------------------------------------------------------------


def test_jitter_changes_the_budget_within_its_bounds_alike_in_all_processes(pictures):
    task = made(pictures, regularization=RegularizationConfig(jitter=2))
    before = means(task)
    spent = [step(task, number)[2] for number in range(24)]
    assert set(spent) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert [step(task, number, rank=1)[2] for number in range(24)] == spent
    assert means(task) == before


def test_a_jitter_that_leaves_nothing_is_refused_before_anything_is_written(tmp_path, pictures):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text("a run that is to be replaced")
    config = classify(path=pictures, batch_size=4, regularization=RegularizationConfig(jitter=BUDGET.max_steps))
    with pytest.raises(ConfigError, match="regularization.jitter is 3 and solver.max_steps 3, .* pass a jitter below"):
        train(ClassifyTask, config, folder, overwrite=True)
    assert folder.config.read_text() == "a run that is to be replaced"


def test_a_step_that_fails_leaves_the_layer_as_it_was(pictures):
    settings = RegularizationConfig(jitter=1, jacobian_weight=1.0, jacobian_frequency=1.0)
    for pretraining in (PretrainingConfig(), PretrainingConfig(steps=5)):
        task = made(pictures, regularization=settings, pretraining=pretraining)
        before = means(task)
        task.trainer = standing = Standing()
        x, labels, _ = task.training_batch(0)
        with pytest.raises(IndexError):
            task.training_step((x, labels + 99, None), 0)
        assert means(task) == before and standing.global_step == 0


def test_means_for_a_while_and_observers_are_put_back():
    layer = Equilibrium(TwoScales(), Picard(rtol=None, max_steps=4), Implicit())
    seen = []
    layer.on_solution = seen.append
    x = torch.zeros(2, 5, dtype=torch.float64)
    with pytest.raises(ZeroDivisionError), solving(layer, Picard(rtol=None, max_steps=7), Unrolled()):
        with observed(layer) as solves:
            assert layer.solve(x).evaluations == 7
        raise ZeroDivisionError
    assert len(solves) == 1 and not seen
    assert layer.solve(x).evaluations == 4 and isinstance(layer.adjoint, Implicit) and len(seen) == 1
    nothing = RegularizationConfig(), PretrainingConfig()
    with step_of_training(layer, *nothing, 0, generator()):
        assert layer.solve(x).evaluations == 4


def test_of_a_few_samples_only_the_first_solve_of_a_layer_is_held():
    layer = Equilibrium(TwoScales(), Picard(rtol=None, max_steps=4), Implicit())
    x = torch.randn(6, 5, generator=generator(), dtype=torch.float64)
    with observed(layer, 2) as solves:
        first = layer.solve(x)
        layer.solve(2 * x)
    (held,) = solves
    assert torch.equal(held.context, x[:2]) and len(held.residual) == 2
    for part, whole in zip(held.state, first.state, strict=True):
        assert torch.equal(part, whole[:2]) and part.untyped_storage().nbytes() < whole.untyped_storage().nbytes()


# The spectral radius --------------------------------------------------------------------------------------------------


def test_the_spectral_radius_of_validation_is_the_dense_one(tmp_path, pictures):
    settings = RegularizationConfig(spectral_radius_samples=3)
    model = {"channels": (4,), "groups": 2, "downsamplings": 1}
    task = made(pictures, model=model, regularization=settings, eval_solver=SolverConfig(rtol=1e-4, max_steps=200))
    found = measure(task, "valid", task.config.trainer, RunFolder(tmp_path))
    again = measure(task, "valid", task.config.trainer, RunFolder(tmp_path))
    assert again == found  # nothing is drawn from a hidden generator
    x = task.plain(task.samples.test)[0][0][:3]
    task.eval()
    radii = []
    with torch.no_grad():
        solution = task.model.solve(x)
    for sample in range(3):
        injection = solution.context.injection[sample : sample + 1].detach()
        state = solution.state[0][sample].detach()

        def alone(z, injection=injection):
            context = replace(solution.context, injection=injection)
            return task.model.equilibrium.cell((z.unsqueeze(0),), context)[0].squeeze(0)

        jacobian = torch.autograd.functional.jacobian(alone, state).reshape(state.numel(), -1)
        radii.append(torch.linalg.eigvals(jacobian).abs().max().item())
    assert found["val_spectral_radius"] == pytest.approx(max(radii), rel=0.03)


# Other tasks ----------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "regularization": RegularizationConfig(
        jacobian_weight=0.1, jacobian_frequency=1.0, jitter=1, spectral_radius_samples=2
    ),
    "pretraining": PretrainingConfig(steps=1, layers=2),
}


def test_language_has_the_same_settings(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {n} of a text, with {n * n} numbers\n" for n in range(40)))
    default = LanguageConfig()
    config = LanguageConfig(
        data=TextDataConfig(path=str(text), sequence_length=16, batch_size=3, eval_batch_size=3),
        model=ModelConfig(d_model=16, n_heads=2, n_layers=1),
        solver=replace(default.solver, rtol=None, max_steps=3),
        eval_solver=replace(default.eval_solver, rtol=1e-2),
        trainer=replace(classify(4).trainer, val_check_interval=4),
        **EVERYTHING,
    )
    folder = RunFolder(tmp_path / "run")
    assert_everything(folder, train(LanguageTask, config, folder))


def test_vicreg_has_the_same_settings(tmp_path):
    config = VICRegConfig(
        model=EncoderConfig(kind="deq", width=16, features=8, expander=(12,)),
        solver=SolverConfig(rtol=None, max_steps=3),
        eval_solver=SolverConfig(rtol=1e-2, max_steps=50),
        trainer=replace(classify(4).trainer, val_check_interval=4),
        **EVERYTHING,
    )
    folder = RunFolder(tmp_path / "run")
    assert_everything(folder, train(VICRegTask, config, folder))


def assert_everything(folder, summary):
    rows = [row for row in folder.read_metrics() if "loss" in row]
    assert len(rows) == 4 and all(row["jacobian_penalty"] > 0 and row["residual"] > 0 for row in rows)
    spent = [row["forward_evaluations"] for row in rows]
    assert spent[0] == 2.0 and set(spent[1:]) <= {2.0, 3.0, 4.0}
    assert 0 < summary["val_spectral_radius"] < 5
