"""`python -m rscir_lib.workbook`: run the notebooks; see `rscir_lib.apps.commands.workbook`."""

import sys

from rscir_lib.apps.commands.workbook import main

if __name__ == "__main__":
    sys.exit(main())
