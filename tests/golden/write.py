"""Writes the golden files of architecture and schedules anew: python -m tests.golden.write

Run it when a change is meant to move them, and read the difference before you commit it. The
payload and batch hashes are not rewritten here: other people's files depend on those.
"""

from __future__ import annotations

from core.train.recipe import to_json
from core.train.recipes import RECIPES, baseline
from tests.core.test_arch import GOLDEN, table_text, weights_text
from tests.core.test_schedules import schedules_text


def main() -> None:
    texts = {f"params_{name}.txt": table_text(recipe().arch) for name, recipe in RECIPES.items()}
    texts["first_weights.txt"] = weights_text()
    texts["schedules.txt"] = schedules_text()
    texts["recipe_baseline.json"] = to_json(baseline())
    for name, text in texts.items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
