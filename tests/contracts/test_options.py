"""An option of the wrong kind is refused where it is given, in one sentence, by every class and function."""

from dataclasses import MISSING, dataclass, fields, is_dataclass

import pytest
import torch
from torch import nn

import poise
from poise import Adjoint, Anderson, Equilibrium, External, LinearSolver, Picard, Solver
from poise.nn import TransformerCell, dropout_mask, jacobian_penalty, jittered, spectral_radius, trajectory_correction

BASES = (Solver, Adjoint, LinearSolver)
CLASSES = [
    kind
    for name in poise.__all__
    if is_dataclass(kind := getattr(poise, name)) and issubclass(kind, BASES) and kind not in BASES
]
REQUIRED = {External: {"find": lambda g, z: z}}
WRONG = {int: ["3", 2.5, True, None, [1]], float: ["3", True, [1]], bool: [1, "yes", None], str: ["loud", 3, None, [1]]}


def wrong_values():
    for kind in CLASSES:
        for field in fields(kind):
            default = field.default
            # What is wrong follows from the value that is right; what is no number is a solver or a function.
            values = ["gmres", 3, None] if default is MISSING else WRONG.get(type(default), ["gmres", 3, None])
            yield from ((kind, field.name, value) for value in values)


def test_every_class_is_looked_at():
    assert {kind.__name__ for kind in CLASSES} == {
        "Anderson", "BiCGSTAB", "Broyden", "Dense", "External", "GMRES", "Implicit", "JacobianFree", "Neumann",
        "NewtonKrylov", "Phantom", "Picard", "Reversible", "Unrolled",
    }  # fmt: skip


def assert_one_sentence(caught):
    message = str(caught.value)
    assert message.endswith(".") and ". " not in message and "; pass " in message, message


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [pytest.param(*case, id=f"{case[0].__name__}-{case[1]}-{case[2]!r}") for case in wrong_values()],
)
def test_an_option_of_the_wrong_kind(kind, option, value):
    with pytest.raises((TypeError, ValueError), match=option) as caught:
        kind(**{**REQUIRED.get(kind, {}), option: value})
    assert_one_sentence(caught)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_tolerance_may_be_none_where_a_budget_can_be_fixed(kind):
    options = {field.name for field in fields(kind)}
    if "rtol" in options and "max_steps" in options:
        assert kind(**REQUIRED.get(kind, {}), rtol=None).rtol is None
    elif "rtol" in options:
        with pytest.raises(TypeError, match=r"rtol=None\) is of type NoneType; pass a number") as caught:
            kind(rtol=None)
        assert_one_sentence(caught)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert Anderson(history=numpy.int64(3), rtol=numpy.float32(1e-3)).history == 3
    assert poise.Phantom(numpy.int32(2)).steps == 2


def test_what_is_given_by_position():
    with pytest.raises(TypeError, match=r"Neumann\(terms=2.5\) is of type float; pass a whole number"):
        poise.Neumann(2.5)
    assert poise.Neumann(3) == poise.Neumann(terms=3)


def test_the_options_of_a_solver_from_elsewhere():
    @dataclass(frozen=True, kw_only=True)
    class Momentum(Picard):
        momentum: float = 0.3
        restarts: int = 2
        floor: float | None = None

    assert Momentum(momentum=1, floor=None).momentum == 1
    for wrong in ({"momentum": "a"}, {"restarts": 0.5}, {"floor": "a"}, {"max_steps": 3.0}):
        with pytest.raises(TypeError, match=rf"Momentum\({next(iter(wrong))}=") as caught:
            Momentum(**wrong)
        assert_one_sentence(caught)


def half(z, x):
    return 0.5 * z + x


@pytest.mark.parametrize(
    "options",
    [
        {"f": 3},
        {"record": 3},
        {"record": "all"},
        {"record": (n for n in (1, 2))},  # which would be used up by being looked at
        {"record": (1, 2.5)},
        {"record": ("first",)},
        {"callback": 3},
        {"position_dim": "last"},
        {"check": "yes"},
        {"solver": Anderson},
        {"adjoint": "implicit"},
        {"parameters": 3},
        {"parameters": nn.Linear(2, 2).parameters},
        {"parameters": torch.ones(3)},
        {"parameters": [3]},
        {"on_failure": "loud"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_a_solve_is_given(options):
    given = {"f": half, "z0": torch.zeros(2, 3), "context": torch.ones(2, 3), **options}
    with pytest.raises((TypeError, ValueError), match=next(iter(options))) as caught:
        poise.fixed_point(**given)
    assert_one_sentence(caught)


x = torch.ones(2, 3)
CALLS = {
    "g": lambda: poise.find_root(3, x),
    "delta": lambda: jittered(Picard(), 2.5),
    "solver": lambda: jittered("picard", 2),
    "draws": lambda: jacobian_penalty(half, x, x, draws=1.5),
    "steps": lambda: spectral_radius(half, x, x, steps=2.5),
    "rtol": lambda: spectral_radius(half, x, x, rtol="tight"),
    "gamma": lambda: trajectory_correction(torch.sum, [x], gamma="half"),
    "p": lambda: dropout_mask(x, "0.1"),
    "n_layers": lambda: TransformerCell(8, 2, 1.5, 16),
    "dropout": lambda: TransformerCell(8, 2, 1, 16, dropout="0.1"),
    "initializer": lambda: Equilibrium(poise.nn.inject(nn.Tanh()), initializer=torch.zeros_like),
    "cell": lambda: Equilibrium(torch.tanh),
    "seed": lambda: poise.diagnose(Equilibrium(poise.nn.inject(nn.Tanh())), x, seed="one"),
}


@pytest.mark.parametrize("option", CALLS)
def test_what_the_functions_of_nn_are_given(option):
    with pytest.raises(TypeError, match=rf"\b{option}=") as caught:
        CALLS[option]()
    assert_one_sentence(caught)
