"""README.md of a records folder: the table, what each file is, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.artifact.ledger import CAP_BYTES
from core.score.rules import RUNS
from tools.submission.runs import Run


def readme(runs: Sequence[Run], fields: Mapping[str, Any], unlimited: bool) -> str:
    parts = [_head(fields), _table(runs, fields), _remarks(runs, fields, unlimited)]
    return "\n\n".join([*(part for part in parts if part), _files(runs, fields), _again(runs)])


def _head(fields: Mapping[str, Any]) -> str:
    mean, sd = fields["val_bpb"], fields.get("val_bpb_std")
    spread = "" if sd is None else f" (sd {sd:.5f})"
    head = f"# {fields['name']}\n\n**val_bpb {mean:.8f}**{spread}, mean of "
    head += f"{len(fields['seeds'])} seeds; {fields['bytes_total']:,} of {CAP_BYTES:,} bytes in "
    head += "the worst of them."
    return f"{head}\n\n{fields['blurb']}" if fields["blurb"] else head


def _table(runs: Sequence[Run], fields: Mapping[str, Any]) -> str:
    lines = ["| seed | val_loss | val_bpb | steps | training | scoring | model | code + model |"]
    lines.append("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for run in runs:
        told = fields["seed_results"][str(run.seed)]
        lines.append(
            f"| {run.seed} | {told['val_loss']:.8f} | {told['val_bpb']:.8f} | {told['steps']:,} | "
            f"{told['train_time_s']:.1f} s | {told['eval_time_s']:.1f} s | "
            f"{told['model_bytes']:,} | {told['artifact_bytes']:,} |"
        )
    first = runs[0]
    lines += ["", f"Hardware: {fields['hardware']}. Every run scored {first.log.tokens:,} targets"]
    lines[-1] += f" of {first.log.bytes:,} bytes, each once, after reading its packed file back."
    return "\n".join(lines)


def _remarks(runs: Sequence[Run], fields: Mapping[str, Any], unlimited: bool) -> str:
    told = []
    if len(runs) < RUNS:
        told.append(f"This is no record: it shows {len(runs)} runs where a record shows {RUNS}.")
    if unlimited:
        told.append("This is a submission of unlimited compute: training took as long as it took.")
    if runs[0].log.lossy:
        told.append(
            f"The scores are lossy, and compare with none of the whole text: {runs[0].log.lossy}"
        )
    if runs[0].backend != "torch":
        told.append(
            f"The runs were trained with {runs[0].backend}; train_gpt.py is the same recipe on "
            "torch, whose weights differ by rounding."
        )
    return "\n\n".join(told)


def _files(runs: Sequence[Run], fields: Mapping[str, Any]) -> str:
    rows = [
        ("train_gpt.py", f"the whole program, packed: {fields['bytes_code']:,} bytes, all that"),
        ("train_seed<k>.log", "the log of each run, as it was written but for local paths"),
        ("submission.json", "the same numbers, and the identity and SHA-256 of each artifact"),
        ("requirements.txt", "what the script imports"),
    ]
    rows[0] = (rows[0][0], rows[0][1] + " counts as code")
    tokenizer = fields["golf"]["tokenizer"]
    if tokenizer["shipped"]:
        rows.append((tokenizer["file"], f"the tokenizer, SHA-256 {tokenizer['sha256'][:16]}"))
    return "## Files\n\n" + "\n".join(f"- `{name}`: {what}" for name, what in rows)


def _again(runs: Sequence[Run]) -> str:
    ranks = runs[0].log.world_size or 1
    seed = runs[0].seed
    return (
        "## Run it again\n\n```\npip install -r requirements.txt\n"
        f"DATA_PATH=<shards> TOKENIZER_PATH=<model> SEED={seed} \\\n"
        f"    torchrun --standalone --nproc_per_node={ranks} train_gpt.py\n```\n\n"
        f"It leaves `runs/seed{seed}/log.txt` and `model.bin`. The source, unpacked and without "
        "running it: `golf unpack train_gpt.py`. This folder against the rules: `golf check .`\n"
    )
