"""`python -m rscir_lib.bench`."""

from rscir_lib.bench import main

main()
