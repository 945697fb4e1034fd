"""Bytes and seconds of the coders on levels: python -m tests.coders --help."""

from __future__ import annotations

import sys

from tools.benching.coders import main

if __name__ == "__main__":
    sys.exit(main())
