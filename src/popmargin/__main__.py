"""`python -m popmargin`."""

import sys

from popmargin.cli.main import main

sys.exit(main())
