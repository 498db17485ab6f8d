"""`python -m agentbudget.cli`."""

import sys

from agentbudget.cli import main

sys.exit(main())
