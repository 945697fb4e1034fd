"""The whole way in minutes, offline: text, tokenizer, shards, training, packing, both scores."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core.artifact.container import Artifact, read
from core.artifact.ledger import CAP_BYTES
from core.data.documents import read_documents
from core.data.export import tokenize
from core.data.pieces import Tokenizer
from core.data.tokenizer import open_tokenizer, train_tokenizer
from core.train.finish import Finished
from core.train.recipe import Recipe
from core.train.recipes import demo
from core.train.run_folder import RunFolder
from tools import english
from tools.backends import add_backend, choose, other
from tools.generate import continuation, open_model
from tools.say import note
from tools.scoring_job import score_artifact
from tools.train import free_run_id, train

PROMPTS = ("Return the ", "The following ", "If the argument ")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_backend(parser)
    parser.add_argument("--seconds", type=float, help="training time (default: the recipe's 100)")
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--text", nargs="+", type=Path, help="your own .txt or .jsonl files")
    parser.add_argument("--runs", default="runs", help="folder of runs (default: runs)")
    parser.set_defaults(run=run)


@dataclass
class Stopwatch:
    """Seconds by phase, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, told: str) -> Iterator[None]:
        note(told)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def run(args: argparse.Namespace) -> int:
    backend, watch = choose(args.backend), Stopwatch()
    recipe = shortened(demo(), args.seconds, args.steps)
    run_folder = RunFolder(args.runs, free_run_id(Path(args.runs), f"demo-{backend}"))
    recipe, tokenizer = prepare(run_folder.path / "text", recipe, args.text, watch)
    finished = train(recipe, backend, run_folder, quiet=True)
    assert finished is not None
    watch.seconds |= finished.phases_s
    scores = {backend: {"val_bpb": finished.after.val_bpb, "tokens": finished.after.tokens}}
    if twin := other(backend):
        with watch.phase(f"score by {twin}", f"Scoring the same file with {twin}."):
            scores[twin] = score_artifact(
                run_folder.model_path.read_bytes(), recipe.data, recipe.score, twin, "fp32"
            )
    report(finished, scores, watch)
    print("The packed model writes:")
    write_lines(read(run_folder.model_path.read_bytes()), tokenizer, backend)
    note(f"\nAll of it is in {run_folder.path}. Next, for example:")
    note(f"  golf generate {run_folder.model_path} --tokenizer {recipe.data.tokenizer}")
    return 0 if finished.ledger.fits else 1


def shortened(recipe: Recipe, seconds: float | None, steps: int | None) -> Recipe:
    schedule = recipe.schedule
    if seconds is not None:
        schedule = replace(schedule, budget_s=seconds)
    if steps is not None:
        schedule = replace(schedule, steps=steps)
    return replace(recipe, schedule=schedule)


def prepare(
    folder: Path, recipe: Recipe, text: list[Path] | None, watch: Stopwatch
) -> tuple[Recipe, Tokenizer]:
    """Tokenizer and shards in `folder`; the recipe that points at them."""
    source = "your files" if text else "this Python installation"
    with watch.phase("text", f"Gathering English text from {source}."):
        texts = list(read_documents(text)) if text else english.documents()
    model = folder / "demo.model"
    with watch.phase("tokenizer", f"Training a tokenizer on {len(texts)} documents."):
        vocab_size = train_tokenizer(texts, recipe.arch.vocab_size, model).vocab_size
    with watch.phase("shards", "Writing shards."):
        tokenize(texts, open_tokenizer(model), folder / "shards", val_docs=max(1, len(texts) // 16))
    data = replace(recipe.data, path=str(folder / "shards"), tokenizer=str(model))
    arch = replace(recipe.arch, vocab_size=vocab_size)
    return replace(recipe, arch=arch, data=data), open_tokenizer(model)


def report(finished: Finished, scores: dict[str, Any], watch: Stopwatch) -> None:
    """Both scores and their difference, bytes by part, seconds by phase."""
    console = Console()
    table = Table("the packed file by", "val BPB", "targets", title="one artifact, both engines")
    for name, fields in scores.items():
        table.add_row(name, f"{fields['val_bpb']:.8f}", f"{fields['tokens']:,}")
    bpb = [fields["val_bpb"] for fields in scores.values()]
    difference = f"{bpb[1] - bpb[0]:+.1e}" if len(bpb) == 2 else "one engine only"
    table.add_row("difference", difference, "")
    table.add_row("before packing", f"{finished.before.val_bpb:.8f}", "")
    console.print(table)
    table = Table("part", "bytes", title="the ledger")
    for part, size in finished.ledger.rows:
        table.add_row(part, f"{size:,}")
    table.add_row("artifact (code + model)", f"{finished.ledger.artifact_bytes:,}")
    table.add_row(f"left of {CAP_BYTES:,}", f"{finished.ledger.margin_bytes:,}")
    console.print(table)
    table = Table("phase", "seconds", title="time")
    for phase, seconds in watch.seconds.items():
        table.add_row(phase, f"{seconds:.1f}")
    console.print(table)


def write_lines(model: Artifact, tokenizer: Tokenizer, backend: str) -> None:
    next_logits, seq_len = open_model(model, tokenizer, backend)
    for prompt in PROMPTS:
        text = continuation(
            next_logits, tokenizer, prompt, seq_len=seq_len, tokens=48, temperature=0.7, seed=1
        )
        print("  " + " ".join(text.split()))
