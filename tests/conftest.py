import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("poise", max_examples=20, deadline=None, derandomize=True)
settings.load_profile("poise")


@pytest.fixture(autouse=True)
def one_thread():
    """Two workers share two cores; one thread each is fastest, and the same everywhere."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield


os.environ.setdefault("OMP_NUM_THREADS", "1")
