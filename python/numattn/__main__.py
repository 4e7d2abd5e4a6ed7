"""`python -m numattn` is the command `numattn`."""

from __future__ import annotations

import sys

from numattn.cli import main

if __name__ == "__main__":
    sys.exit(main())
