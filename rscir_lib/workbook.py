"""`python -m rscir_lib.workbook`: runs the notebooks, as `rscir workbook` does."""

import sys

from rscir_lib.apps.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["workbook", *sys.argv[1:]]))
