"""Adapters for 16 documents at once against one at a time: python -m tests.adapting_speed."""

from __future__ import annotations

from tools.benching.adapting import main

if __name__ == "__main__":
    main()
