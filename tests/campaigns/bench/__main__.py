"""`python tests/campaigns/bench`: see `bench`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import main

sys.exit(main())
