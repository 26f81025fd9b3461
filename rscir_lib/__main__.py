"""`python -m rscir_lib COMMAND ...`: the `rscir` command, for a Python whose scripts are not on the path."""

import sys

from rscir_lib.apps.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
