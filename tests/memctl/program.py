"""`python -m tests.memctl.program`: memctl as a command, wherever it is installed or not."""

from __future__ import annotations

import sys

from memd.memctl.main import main

if __name__ == "__main__":
    sys.exit(main())
