"""The documents: every Python block runs, and prints what stands below it."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_blocks_run_and_print_what_they_say(document):
    blocks = BLOCK.findall((ROOT / document).read_text())
    assert blocks
    names: dict = {"__name__": "document"}
    for code, expected in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, document, "exec"), names)
        if expected:  # counts and rounding may differ by a little from one processor to another
            masked = [re.sub(r"\d[\d.e-]*", "#", text.strip()) for text in (out.getvalue(), expected)]
            assert masked[0] == masked[1]


def test_links_lead_somewhere():
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
