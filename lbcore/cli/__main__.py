"""`python -m lbcore.cli`: the command line, as `python -m lbcore`."""

import sys

from lbcore.cli import main

sys.exit(main())
