"""FSDP2 around a layer works; around what the loop calls it is refused."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import poise
from poise import Anderson, Equilibrium, JacobianFree, Phantom, Picard, Reversible, Unrolled

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


@pytest.fixture
def shard():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    yield lambda module, **options: fully_shard(module, mesh=mesh, **options)
    dist.destroy_process_group()


def layer(solver=Anderson(rtol=1e-6), **options):
    torch.manual_seed(0)
    made = Equilibrium(poise.nn.inject(nn.Sequential(nn.Linear(6, 6), nn.Tanh())), solver, **options)
    nn.init.orthogonal_(made.cell.block[0].weight, gain=0.7)
    return made


X = torch.linspace(-1, 1, 24).reshape(4, 6)
ADJOINTS = {
    "implicit": {},
    "phantom": {"adjoint": Phantom()},
    "jacobian_free": {"adjoint": JacobianFree()},
    "unrolled": {"adjoint": Unrolled(), "solver": Picard()},
    "reversible": {"adjoint": Reversible(), "solver": Picard(damping=0.5, rtol=None, max_steps=8)},
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reshard", [True, False])
@pytest.mark.parametrize("name", ADJOINTS)
def test_a_sharded_layer_has_its_gradient(shard, name, reshard):
    whole = layer(**ADJOINTS[name])
    split = nn.Sequential(copy.deepcopy(whole))
    shard(split[0], reshard_after_forward=reshard)
    shard(split, reshard_after_forward=reshard)
    whole(X).square().sum().backward()
    split(X).square().sum().backward()
    for found, expected in zip(split.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(found.grad.full_tensor(), expected.grad, rtol=1e-6)


SENTENCE = r"is sharded by itself.*shard the layer that holds the cell instead, as in fully_shard\(layer\)"


def test_a_sharded_cell_is_refused(shard):
    of_the_cell, of_a_part = layer(), layer()
    shard(of_the_cell.cell)
    with pytest.raises(TypeError, match=SENTENCE):
        of_the_cell(X)
    shard(of_a_part.cell.block[0])
    with pytest.raises(TypeError, match=rf"its part 'block.0'\) {SENTENCE}"):
        of_a_part(X)
    for solve in (poise.fixed_point, poise.find_root):
        with pytest.raises(TypeError, match=SENTENCE):
            solve(of_the_cell.cell, X, X)


def test_nothing_of_fsdp_is_imported_for_it():
    for room in ("fixed_point", "nn"):
        for path in (Path(poise.__file__).parent / room).rglob("*.py"):
            assert "import torch.distributed" not in path.read_text() and "from torch.distr" not in path.read_text()
