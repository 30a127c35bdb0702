"""`poise report RUN`: write report.html again, from what the folder holds. Needs neither torch nor the data.

With `--beside` the run is compared with others, in the report and in the terminal.
"""

from __future__ import annotations

from pathlib import Path

from poise.cli.errors import DONE
from poise.cli.opening import open_peers, open_settings, run_arguments
from poise.cli.table import load, require_packages
from poise.report import write
from poise.tasks.peers import keep, table


def run(argv: list[str]) -> int:
    """Write the report and print its path."""
    parser = run_arguments("report", "Write report.html again from what the folder holds.", {})
    parser.add_argument(
        "--beside", metavar="RUN", type=Path, nargs="+", help="runs to compare it with, such as those of peers"
    )
    arguments = parser.parse(argv)
    require_packages()
    folder, task, entry, _ = open_settings(arguments.run)
    if arguments.beside:
        keep(folder, open_peers(task, arguments.beside))
        print(f"{table(folder)}\n")
    write(load(entry.report)(folder), folder.report)
    print(folder.report)
    return DONE
