"""The room as a whole: what it offers and what it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import poise.data


def test_every_public_name_exists_once_and_in_order() -> None:
    assert len(set(poise.data.__all__)) == len(poise.data.__all__)
    assert all(hasattr(poise.data, name) for name in poise.data.__all__)
    public = {name for name, value in vars(poise.data).items() if not name.startswith("_") and not_a_module(value)}
    assert public == set(poise.data.__all__)


def not_a_module(value: object) -> bool:
    return not isinstance(value, type(sys))


@pytest.mark.slow
def test_importing_it_loads_no_other_room_and_no_optional_package() -> None:
    code = (
        "import sys, poise.data\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('poise.')}\n"
        "optional = {'tokenizers', 'pydoc_data', 'lightning', 'scipy', 'PIL', 'sklearn'}\n"
        "print(sorted(rooms), sorted(optional & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['data'] []"
