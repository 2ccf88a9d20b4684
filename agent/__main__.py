"""`python -m agent`: the same as the command `edgelet`."""

import sys

from agent.cli import main

sys.exit(main())
