"""The house: imports point one way, and public names resolve."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import poise

ROOT = Path(poise.__file__).parent
# A room may import the rooms before it (DESIGN, section 6) and the packages named.
ROOMS = ["fixed_point", "nn", "models", "objectives", "attacks", "data", "configs", "tasks", "recipes", "report", "cli"]
ALLOWED = {
    "fixed_point": set(),
    "nn": {"fixed_point"},
    "models": {"fixed_point", "nn"},
    "objectives": set(),
    "data": set(),
    "configs": set(),
    "report": set(),
    "recipes": {"configs"},
    "tasks": {"fixed_point", "nn", "models", "objectives", "data", "configs", "report"},
    "cli": {"configs", "tasks", "recipes", "report", "data", "models"},
}
STDLIB_ONLY = {"configs", "report", "recipes"}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files(room):
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_point_down(room):
    for path in files(room):
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "poise" and len(parts) > 1:
                assert parts[1] in ALLOWED[room] | {room, "__version__"}, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", ["fixed_point", "nn", "models", "objectives"])
def test_the_core_needs_torch_alone(room):
    for path in files(room):
        outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert outside <= {"torch", "poise"}, f"{path.relative_to(ROOT)} imports {outside}"


@pytest.mark.parametrize("room", sorted(STDLIB_ONLY))
def test_rooms_that_need_no_torch_import_none(room):
    for path in files(room):
        outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert outside <= {"poise", "yaml"}, f"{path.relative_to(ROOT)} imports {outside}"


def test_every_room_is_known():
    found = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found <= set(ROOMS) and found == set(ALLOWED)


@pytest.mark.parametrize("name", poise.__all__)
def test_public_names_resolve(name):
    assert getattr(poise, name) is not None
    assert name in dir(poise)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'andersen'"):
        poise.andersen  # noqa: B018


@pytest.mark.parametrize("order", ["import poise.fixed_point", "from poise.fixed_point import solvers", "import poise"])
def test_the_room_and_the_function_share_a_name(order):
    code = f"{order}\nimport poise, torch\nprint(poise.fixed_point(lambda z: 0.5 * z + 1, torch.zeros(1, 1)).ok)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout == "True\n"


def test_importing_the_package_imports_no_torch():
    code = "import poise, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout == "False\n"
