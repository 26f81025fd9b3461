"""What people start: the `rscir` command, and what lies behind it."""

# what a person can do something about: said in one line, without a traceback
FAILURES = (ValueError, OSError, RuntimeError, ImportError)
