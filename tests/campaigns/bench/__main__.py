"""`python tests/campaigns/bench`: see `bench`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

try:
    from bench import main  # takes seconds, in which somebody may change their mind, too

    sys.exit(main())
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
