"""What people start: the `rscir` command, and what lies behind it."""

import subprocess

# what a person can do something about: said in one line, without a traceback
FAILURES = (ValueError, OSError, RuntimeError, ImportError, subprocess.CalledProcessError)
