"""Sliding windows against a straightforward loop, in one run: python -m tests.scoring_speed."""

from __future__ import annotations

from tools.benching.sliding import main

if __name__ == "__main__":
    main()
