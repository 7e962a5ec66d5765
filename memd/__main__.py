"""`python -m memd` is the command `memd`."""

from __future__ import annotations

import sys

from memd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
