"""Two processes make the loss and the averaged gradient of one that has the whole batch, and send little for it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from poise.objectives import BarlowTwinsLoss, VICRegLoss

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")

LOSSES = {"vicreg": VICRegLoss(), "paper": VICRegLoss("paper"), "barlow": BarlowTwinsLoss()}
SHAPES = {"rows": (12, 10), "rows, wide": (12, 40), "columns": (24, 5)}
SPLITS = {"equal": 0.5, "unequal": 0.25}


def views(shape):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


class Bytes:
    """Counts what a ring would send for the collectives that are called: (W - 1) / W of what each one makes."""

    def __init__(self, monkeypatch):
        self.sent = 0.0
        for name, factor, place in (("all_gather_into_tensor", 1, 0), ("all_reduce", 2, 0), ("all_gather", 1, 0)):
            monkeypatch.setattr(dist, name, self.counting(getattr(dist, name), factor, place))

    def counting(self, collective, factor, place):
        def call(*args, **options):
            made = args[place]
            size = sum(part.nbytes for part in made) if isinstance(made, list) else made.nbytes
            self.sent += factor * size * (dist.get_world_size() - 1) / dist.get_world_size()
            return collective(*args, **options)

        return call


def run(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        count = Bytes(patch)
        for shape_name, shape in SHAPES.items():
            for split_name, share in SPLITS.items():
                first = int(share * shape[0])
                for name, loss in LOSSES.items():
                    own = [(z[:first] if rank == 0 else z[first:]).clone().requires_grad_() for z in views(shape)]
                    before = count.sent
                    terms = loss(*own)
                    forward = count.sent - before
                    terms.total.backward()
                    found[shape_name, split_name, name] = {
                        "value": terms.total.item(),
                        "gradients": [z.grad for z in own],
                        "forward": forward,
                        "backward": count.sent - before - forward,
                    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gather")
    mp.spawn(run, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_averaged_gradient_is_that_of_the_whole_batch(processes, name, shape, split):
    whole = [z.requires_grad_() for z in views(SHAPES[shape])]
    value = LOSSES[name](*whole).total
    value.backward()
    ranks = [found[shape, split, name] for found in processes]
    assert sum(rank["value"] for rank in ranks) / 2 == pytest.approx(value.item(), rel=1e-12)
    for place, z in enumerate(whole):
        # Averaging over processes halves what each one has for its own rows.
        found = torch.cat([rank["gradients"][place] for rank in ranks]) / 2
        assert (found - z.grad).abs().max() <= 1e-12 * z.grad.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_sent(processes, name, shape):
    """The published layer gathers each view and reduces all its slices in the backward: three times the batch."""
    batch, width = SHAPES[shape]
    published = 2 * 3 * (batch * width * 8) / 2
    found = processes[0][shape, "equal", name]
    assert found["backward"] == 0
    assert found["forward"] <= 0.4 * published


def test_the_own_rows_alone_are_another_loss():
    z = views((12, 10))
    assert VICRegLoss(gather=False)(*(v[:6] for v in z)).total != VICRegLoss()(*z).total
