"""`python -m poise`: the command line."""

import sys

from poise.cli.main import main

sys.exit(main())
