"""What a plan for a folder of published data means for what is already there, in words."""

from __future__ import annotations

from pathlib import Path

from tools.published.fetched import Plan, some
from tools.published.hub import hashed
from tools.published.variants import SHARD


def replaced(plan: Plan) -> list[str]:
    """What was fetched once, is no longer that, and will be fetched again."""
    held = plan.record.files
    here = {e.path: plan.out / e.path for e in plan.coming if (plan.out / e.path).exists()}
    return [name for name, path in here.items() if hashed(path) != held[name].sha256]


def beyond(plan: Plan) -> list[str]:
    """Train shards in the folder that were not asked for: training reads them all the same."""
    wanted = {entry.path for entry in plan.choice.train}
    there = (entry.path for entry in [*plan.here, *plan.coming])
    found = ((path, SHARD.fullmatch(path)) for path in there if path not in wanted)
    return sorted(path for path, match in found if match and match["split"] == "train")


def remarks(plan: Plan) -> list[str]:
    """Sentences on both."""
    said = []
    if names := replaced(plan):
        said.append(
            f"{some([str(plan.out / name) for name in names])}: no longer what this command had "
            "fetched; fetched once more, in place of what is there now"
        )
    if names := beyond(plan):
        asked = len(plan.choice.train)
        files = some([Path(name).name for name in names])
        said.append(
            f"{plan.out / plan.choice.folder} holds {asked + len(names)} train shards, {asked} "
            f"were asked for, and training reads all that are there: move {files} away, or choose "
            f"another --out, to train on {asked}"
        )
    return said
