"""`diagnose`: one layer and one batch measured, without changing either."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.checks import LOOKED_AT, Look, cell_name, look_at
from poise.fixed_point.linear import GMRES
from poise.fixed_point.options import check_kind
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solution import Solution, Status
from poise.fixed_point.solve import fixed_point
from poise.fixed_point.solvers import Anderson, Picard, Solver
from poise.fixed_point.state import Layout
from poise.fixed_point.tally import Counters
from poise.fixed_point.tree import select_rows, tree_leaves, tree_map
from poise.nn.contraction import contraction_rate
from poise.nn.diagnosis import Accuracy, Cost, Diagnosis, Dynamics
from poise.nn.equilibrium import Equilibrium
from poise.nn.findings import Case, findings
from poise.nn.independence import Independence, path_independence
from poise.nn.parametrized import computed_weights, pinned
from poise.nn.precision import HalvesSeen
from poise.nn.spectral import spectral_radius

ARNOLDI_STEPS = 60  # products for the spectral radius
TIMED = 5  # evaluations, of which the median counts


def diagnose(layer: Equilibrium, batch: Any, *, valid: Any = None, seed: int = 0) -> Diagnosis:
    """Measure an equilibrium layer on a batch and say in words what is wrong, the most important first.

    `batch`, `valid`: as in `layer.solve`; the mode (training or evaluation) and the solver are the layer's. Looks at
    the residuals, the contraction and the spectral radius at the slowest samples, whether the cell repeats itself,
    keeps its samples apart and uses its context, whether other starts lead to the same state and more evaluations leave
    it, the errors of state and gradient against a tighter solve (in float64 where a copy of the cell runs in it), the
    floor of the precision, and the cost. Takes a few hundred evaluations. Everything happens to a copy: the layer, its
    counters and buffers, gradients and PyTorch's generators stay as they are; `seed` is that of the copy's noise.

    Raises TypeError for anything but an `Equilibrium` that can be copied.

    >>> print(poise.diagnose(layer, x))
    """
    if not isinstance(layer, Equilibrium):
        raise TypeError(
            f"diagnose takes an Equilibrium and its input, not a {type(layer).__name__}; pass the layer within it."
        )
    check_kind("diagnose", "seed", seed, "int")
    try:
        twin = copy.deepcopy(layer)
    except Exception as error:
        raise TypeError(
            f"diagnose works on a copy, but copying the layer fails ({error}); make it copyable."
        ) from error
    twin.on_failure = "ignore"
    twin.counters = Counters(checked=True)
    with _own_noise(seed):
        return _Measurement(twin, batch, valid).diagnosis()


@contextmanager
def _own_noise(seed: int) -> Iterator[None]:
    """Draw from generators seeded anew, and put back those of the caller."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _Gradient:
    """A solve and the gradient of random weights times its state."""

    solution: Solution
    values: list[Tensor]  # of the context, then of the parameters
    products: int
    forward_seconds: float
    backward_seconds: float


class _Measurement:
    """One diagnosis: the layer solved once, and what is measured where it ended."""

    def __init__(self, layer: Equilibrium, batch: Any, valid: Any) -> None:
        self.layer, self.batch = layer, batch
        self.error: Exception | None = None
        with torch.no_grad():
            try:
                self.solution = layer.solve(batch, valid=valid)
            except Exception as error:  # a cell that cannot do with few samples may still be looked at
                self.error = error
                self.solution = _solve_once(layer, batch, valid, error)
        if not len(self.solution.status):
            raise ValueError("diagnose was given an empty batch; pass at least one sample.")
        for module in layer.modules():  # what spectral normalisation moves has moved once, as in one solve
            if isinstance(module, ParametrizationList):
                module.eval()
        self.layout = Layout.of(self.solution.start)
        usable = self.solution.status != Status.NONFINITE
        self.rows = usable.nonzero().squeeze(1)
        # A sample without a finite state is left out of everything that follows.
        self.context, self.start, self.state, self.valid = select_rows(
            (self.solution.context, self.solution.start, self.solution.state, valid), self.rows
        )
        self.z = self.layout.pack(self.state)
        self.mask = None if valid is None else self.layout.pack_mask(self.valid, len(self.rows))
        # The narrowest precision in which the cell answers, or, once it has been watched, computes.
        self.dtype = HalvesSeen().narrowest(*(part.dtype.to_real() for _, part in tree_leaves(self.solution.state)))

    def diagnosis(self) -> Diagnosis:
        """Measure what can be measured."""
        look, dynamics, accuracy, independence = Look(), Dynamics(), Accuracy(), Independence()
        cost = Cost(self.solution.evaluations, self.solution.rows)
        backward: Solution | None = None
        packed = self._packed(self.context)
        if len(self.rows):
            with torch.no_grad():
                rows = torch.arange(len(self.rows), device=self.z.device)
                with HalvesSeen() as halves:
                    image = packed(self.z)
                self.dtype = halves.narrowest(self.dtype)
                look = look_at(packed, self.z, image, rows, thorough=True)
            if self.error is not None and look.finding is None:
                raise self.error
            if look.finding is None or look.uses_context is not None:
                dynamics = self._dynamics()
                independence = self._independence()
                for _ in range(2):  # the first time warms up
                    gradient = self._gradient(self.layer.cell, self.start, self.context, *self._own())
                backward = gradient.solution.backward
                accuracy = self._accuracy(gradient)
                cost = replace(
                    cost,
                    products=gradient.products,
                    forward_seconds=gradient.forward_seconds,
                    backward_seconds=gradient.backward_seconds,
                    cell_seconds=self._evaluation_seconds(packed),
                )
        case = Case(
            cell_name(packed), *self._own(), self.solution, backward, look, dynamics, accuracy, self.dtype,
            self._bad_inputs(), self._bad_weights(), bool(packed.casts.dtypes), independence,
        )  # fmt: skip
        bare = replace(self.solution, state=None, start=None, context=None)
        return Diagnosis(findings(case), bare, backward, look, dynamics, accuracy, cost, self.dtype, independence)

    def _own(self) -> tuple[Solver, Adjoint]:
        return self.layer.solver_in_use, self.layer.adjoint

    def _packed(self, context: Any) -> PackedCell:
        cell = self.layer.cell
        return PackedCell(pinned(cell, computed_weights(cell)), self.layout, context, selectable=True)

    def _dynamics(self) -> Dynamics:
        """Measure the contraction and the spectral radius at the samples that were hardest to solve."""
        steps, residual = self.solution.steps[self.rows].double(), self.solution.residual[self.rows].double()
        slowest = (steps + residual / (1 + residual)).argsort(descending=True)[:LOOKED_AT]
        context, start, state, valid = select_rows((self.context, self.start, self.state, self.valid), slowest)
        packed = self._packed(context)
        contraction = contraction_rate(packed, self.layout.pack(start), self.dtype)
        spectrum = spectral_radius(packed.f, state, context, valid=valid, steps=ARNOLDI_STEPS)
        largest = spectrum.radius.nan_to_num(nan=float("inf")).argmax()
        return Dynamics(contraction, spectrum.radius[largest].item(), spectrum.residual[largest].item())

    def _independence(self) -> Independence:
        """Solve anew from other starts, and further from where the layer ended."""
        solver = self._own()[0]
        if not solver.recordable:  # an external root finder has no iterates of its own
            return Independence()
        dims = getattr(self.layer.cell, "position_dim", 1)
        layout = Layout.of(
            self.state,
            groups=dims if solver.scope == "prefix" else (),
            positions=dims if solver.residual == "position" else (),
        )
        packed = replace(self._packed(self.context), layout=layout)
        mask = None if self.valid is None else layout.pack_mask(self.valid, len(self.rows))
        generator = torch.Generator().manual_seed(0)
        return path_independence(packed, layout.pack(self.state), solver, mask, generator)

    def _gradient(self, cell: nn.Module, start: Any, context: Any, solver: Solver, adjoint: Adjoint) -> _Gradient:
        """Solve and differentiate the inner product of the state with fixed random numbers."""

        def leaf(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            return tensor.requires_grad_() if tensor.is_floating_point() or tensor.is_complex() else tensor

        context = tree_map(leaf, context)
        parameters = [parameter for parameter in cell.parameters() if parameter.requires_grad]
        inputs = [tensor for _, tensor in tree_leaves(context) if tensor.requires_grad] + parameters
        counters = Counters(checked=True)
        layout = Layout.of(start)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(self.z.shape, generator=generator, dtype=torch.float64).to(self.z.device, layout.dtype)
        weights = weights if self.mask is None else weights * self.mask
        with torch.enable_grad():
            began = _now(self.z)
            solution = fixed_point(
                pinned(cell, computed_weights(cell)), start, context, solver=solver, adjoint=adjoint,
                parameters=parameters, valid=self.valid, position_dim=getattr(cell, "position_dim", 1),
                on_failure="ignore", counters=counters,
            )  # fmt: skip
            solved = _now(self.z)
            product = (layout.pack(solution.state) * weights).sum()
            values = [torch.zeros_like(tensor) for tensor in inputs]
            if product.requires_grad:
                found = torch.autograd.grad(product, inputs, allow_unused=True)
                values = [zero if value is None else value for zero, value in zip(values, found, strict=True)]
        return _Gradient(solution, values, counters.backward.evaluations, solved - began, _now(self.z) - solved)

    def _accuracy(self, own: _Gradient) -> Accuracy:
        """Compare with a tighter solve from where the layer ended, in float64 if a copy of the cell runs in it."""
        cell, state, context = self.layer.cell, self.state, self.context
        wider = torch.float64 not in (self.layout.dtype, *(tensor.dtype for tensor in own.values))
        found = None
        if wider:
            try:
                double = copy.deepcopy(cell).double()
                found = self._gradient(
                    double, tree_map(_widened, state), tree_map(_widened, context), *self._tight(1e-11)
                )
            except Exception:  # a cell that insists on its own precision is compared within it
                wider = False
        if found is None:
            found = self._gradient(cell, state, context, *self._tight(10 * torch.finfo(self.dtype).eps))
        reference = found.solution
        bare = replace(reference, state=None, start=None, context=None)
        if not reference.ok:
            return Accuracy(reference=bare, wider=wider)
        exact = Layout.of(reference.start).pack(reference.state).detach()
        mask = 1.0 if self.mask is None else self.mask
        gap = _distance([self.layout.pack(own.solution.state).detach() * mask], [exact * mask])
        floor = None
        if wider:  # one evaluation at the exact state, rounded, leaves what rounding leaves
            rounded = self.layout.unpack(exact.to(self.layout.dtype))
            once = fixed_point(
                pinned(cell, computed_weights(cell)), rounded, context, solver=Picard(rtol=None, max_steps=1),
                adjoint=Implicit(), valid=self.valid, on_failure="ignore", check=False,
            )  # fmt: skip
            # Luck may round a few numbers well; a quarter of a unit is beyond what can be counted on.
            floor = max(once.residual.max().item(), torch.finfo(self.dtype).eps / 4)
        known = reference.backward is None or reference.backward.ok
        return Accuracy(gap, _distance(own.values, found.values) if known else None, floor, bare, wider)

    def _tight(self, rtol: float) -> tuple[Solver, Adjoint]:
        own = self.layer.solver_in_use
        solver = Anderson(rtol=rtol, history=20, max_steps=max(500, own.max_steps), scope=own.scope)
        return solver, Implicit(GMRES(rtol=10 * rtol, restart=60, max_steps=600))

    def _evaluation_seconds(self, packed: PackedCell) -> float:
        """The median time of an evaluation of the whole batch."""
        seconds = []
        with torch.no_grad():
            for _ in range(TIMED):
                began = _now(self.z)
                packed(self.z)
                seconds.append(_now(self.z) - began)
        return sorted(seconds)[TIMED // 2]

    def _bad_inputs(self) -> tuple[int, ...]:
        batch = len(self.solution.status)
        leaves = [leaf for _, leaf in tree_leaves(self.batch) if leaf.dim() and leaf.shape[0] == batch]
        bad = {
            i for leaf in leaves for i in (~leaf.isfinite().reshape(batch, -1).all(dim=1)).nonzero().flatten().tolist()
        }
        return tuple(sorted(bad))

    def _bad_weights(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.layer.named_parameters() if not bool(value.isfinite().all()))


def _solve_once(layer: Equilibrium, batch: Any, valid: Any, error: Exception) -> Solution:
    """Return the solution of a single evaluation, or raise the error that the layer's own solve met."""
    once = copy.copy(layer)
    once.solver = once.eval_solver = Picard(rtol=None, max_steps=1)
    try:
        return once.solve(batch, valid=valid)
    except Exception:
        raise error from None


def _widened(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def _distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the relative Euclidean distance of two lists of tensors."""

    def norm(tensors: list[Tensor]) -> float:
        return sum(float(tensor.abs().double().square().sum()) for tensor in tensors) ** 0.5

    difference = norm([_widened(a) - _widened(b) for a, b in zip(found, expected, strict=True)])
    return difference / max(norm(expected), torch.finfo(torch.float64).tiny)


def _now(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
    return time.perf_counter()
