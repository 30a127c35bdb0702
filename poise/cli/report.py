"""`poise report RUN`: write report.html again, from what the folder holds. Needs neither torch nor the data."""

from __future__ import annotations

from poise.cli.errors import DONE
from poise.cli.opening import open_settings, run_arguments
from poise.cli.table import load, require_packages
from poise.report import write


def run(argv: list[str]) -> int:
    """Write the report and print its path."""
    arguments = run_arguments("report", "Write report.html again from what the folder holds.", {}).parse(argv)
    require_packages()
    folder, _, entry, _ = open_settings(arguments.run)
    write(load(entry.report)(folder), folder.report)
    print(folder.report)
    return DONE
