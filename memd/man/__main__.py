"""`python -m memd.man DIRECTORY` writes the manual pages there."""

from __future__ import annotations

import sys

from memd.man.write import write_pages

if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
    sys.exit("usage: python -m memd.man DIRECTORY")
for written in write_pages(sys.argv[1]):
    print(written)
