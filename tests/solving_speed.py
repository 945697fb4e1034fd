"""Seconds of packing a record's matrices, by solver: python -m tests.solving_speed --help."""

from __future__ import annotations

from tools.benching.solving import main

if __name__ == "__main__":
    main()
