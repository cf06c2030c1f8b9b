"""`python -m lbcore`: the command line."""

import sys

from lbcore.cli import main

sys.exit(main())
