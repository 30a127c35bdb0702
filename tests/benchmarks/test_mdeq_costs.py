"""What the benchmark of multiscale DEQ's costs counts, and that what it times is what it says."""

import sys

import pytest
import torch

from benchmarks import cells, full_picture, mdeq_costs, mdeq_training, results
from benchmarks.overhead import EVALUATIONS, measured
from benchmarks.peers import Torchdeq
from benchmarks.results import torchdeq_version
from poise.models import MDEQ


def test_the_block_of_the_implicit_gradient_is_flat_and_at_most_12_percent_of_12_evaluations():
    entries = mdeq_costs.block_bytes([("tiny", 4, 32)], budgets=(4, 12))
    held = {(entry["adjoint"], entry["evaluations"]): entry for entry in entries}
    shallow, deep = (held["Implicit()", n]["block_bytes"] for n in (4, 12))
    assert shallow == deep <= 0.12 * held["Unrolled()", 12]["block_bytes"]
    # The recorded steps are whole evaluations, each a twelfth of what was unrolled; weights are held but once.
    for steps in (2, 3):
        assert held[f"Phantom({steps})", 12]["share_without_weight_norm"] == pytest.approx(steps / 12, abs=0.02)


@pytest.fixture
def batch():
    return torch.randn(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize("variant", mdeq_training.VARIANTS, ids=lambda variant: variant.name)
def test_every_gradient_makes_eight_evaluations_of_the_cell_and_the_peer_is_as_large_to_5_percent(variant, batch):
    network, peer = variant.build(0.0), mdeq_training.explicit(0.0)[mdeq_training.PEER]
    calls = []
    network.equilibrium.cell.register_forward_hook(lambda *_: calls.append(1))
    run = mdeq_training.step(network, *batch)
    run()  # the first solve also looks at the cell
    calls.clear()
    run()
    # The implicit gradient linearises where the solve ended, one evaluation more.
    assert len(calls) == (9 if variant.name.startswith("Implicit") else 8)
    mine, theirs = (sum(p.numel() for p in net.parameters()) for net in (network, peer))
    assert mine == pytest.approx(theirs, rel=0.05)


def test_a_penalised_step_changes_the_gradient_of_the_cell_and_not_of_the_head(batch):
    network = mdeq_training.VARIANTS[0].build(0.0)
    gradients = []
    for penalised in (False, True):
        mdeq_training.step(network, *batch, penalised=penalised)()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    moved = {name.partition(".")[0] for name, before in gradients[0].items() if not before.equal(gradients[1][name])}
    assert "equilibrium" in moved
    assert "classifier" not in moved


@torch.no_grad()
@pytest.mark.parametrize("layout", mdeq_costs.LAYOUTS)
def test_the_solves_timed_are_of_four_scales_in_the_layout_named(layout):
    problem = mdeq_costs.small_cell(layout)
    assert [part.shape[-1] for part in problem.z0] == [16, 8, 4, 2]
    assert problem.batch == 16
    image = problem.f(problem.z0, problem.context)
    assert all(part.is_contiguous(memory_format=mdeq_costs.LAYOUTS[layout]) for part in image[:3])


@torch.no_grad()
def test_a_state_of_several_scales_is_timed_with_the_solvers_given():
    peers = {"anderson": Torchdeq("anderson")} if torchdeq_version() else {}
    entries = measured(cells.mdeq(), 1, solvers={mdeq_costs.OURS: mdeq_costs.SOLVER}, peers=peers)
    assert [entry["solver"] for entry in entries] == [mdeq_costs.OURS, *peers]
    assert {entry["evaluations"] for entry in entries} == {EVALUATIONS}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read where Linux has it")
def test_the_peak_of_a_process_grows_with_what_it_holds():
    before = full_picture.peak_bytes()
    held = torch.ones(before // 4)  # as many bytes again
    assert full_picture.peak_bytes() >= before + held.nbytes // 2


def test_full_pictures_are_of_networks_of_at_most_a_million_parameters_and_the_preset_small():
    counts = {
        name: sum(p.numel() for p in MDEQ(shape, pixel_classes=full_picture.PIXEL_CLASSES).parameters())
        for name, shape in full_picture.NETWORKS.items()
    }
    assert max(counts["half"], counts["full"]) <= 1_000_000


def test_the_committed_figures_keep_the_limits_that_they_are_said_to_keep():
    content = results.read("mdeq_costs")
    blocks = [
        entry for entry in content["bytes"]["blocks"] if entry["adjoint"] == "Implicit()" and entry["batch"] >= 16
    ]
    assert max(entry["share_of_unrolled_12"] for entry in blocks) <= mdeq_costs.SHARE_LIMIT
    ours = [entry for entry in content["overhead"]["solves"] if entry["solver"] == mdeq_costs.OURS]
    assert len(ours) == len(mdeq_costs.LAYOUTS)
    assert max(entry["overhead"] for entry in ours) <= mdeq_costs.OVERHEAD_LIMIT


def test_a_part_alone_leaves_the_others_as_they_were():
    known = {"rounds": 7, "bytes": {"rule": "of before"}, "environment": {}}
    assert mdeq_costs.measure(1, [], known) == {"rounds": 1, "bytes": {"rule": "of before"}}
