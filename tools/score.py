"""Score an artifact: bits per byte over every target of a validation split, on either engine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from core.artifact.container import Artifact, identity, read, weights
from core.data.batches import Data
from core.score.bpb import Scored, Tally
from core.score.modified import Modified, modify
from core.score.resume import Task, data_hash, state_name
from core.score.scoring import Score, Validation, open_tally, open_validation, score
from core.score.subsets import SubsetName
from core.train.events import score_fields
from tools.backends import add_backend, choose, load
from tools.say import UsageError, note, print_fields, print_json
from tools.scoring import Keeper, Progress

BATCH = Score().batch
Place = Callable[[Task], Path]  # where the state of a scoring is kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="a model.bin")
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--tokenizer", required=True, help="the tokenizer of the shards")
    add_backend(parser)
    parser.add_argument("--precision", choices=("fp32", "cast", "autocast"), default="fp32")
    parser.add_argument("--batch", type=int, default=BATCH, help="windows a forward pass")
    parser.add_argument(
        "--subset",
        choices=get_args(SubsetName),
        default="full",
        help="a fixed part of the split, with a 95 %% interval for the whole",
    )
    parser.add_argument(
        "--limit-tokens", type=int, default=0, help="score only the first N targets: a subset"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="CHANGE",
        help="score with something changed, nothing trained: arch.rope_dims=0, arch.skips=none, "
        "weights.q_gain=1.0; may be given again",
    )
    parser.add_argument(
        "--allow-lossy",
        action="store_true",
        help="score a tokenizer that loses text (no byte fallback, case folding): every number "
        "says lossy",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep what is done in FILE and go on from it (default: a file beside the artifact)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        settings = Score(
            batch=args.batch,
            limit_tokens=args.limit_tokens,
            subset=args.subset,
            allow_lossy=args.allow_lossy,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    fields = score_artifact(
        args.artifact.read_bytes(),
        Data(path=args.data, tokenizer=args.tokenizer),
        settings,
        choose(args.backend),
        args.precision,
        changes=args.set,
        place=lambda task: args.resume or beside(args.artifact, task),
    )
    if args.json:
        print_json(fields)
    else:
        print_fields(readable(fields))
    return 0


def beside(artifact: Path, task: Task) -> Path:
    """A file of its own for every scoring of an artifact."""
    return artifact.with_name(f"{artifact.name}.{state_name(task)}.score-state")


def score_artifact(
    data: bytes,
    where: Data,
    settings: Score,
    backend: str,
    precision: str,
    *,
    changes: Sequence[str] = (),
    place: Place | None = None,
) -> dict[str, Any]:
    """The fields of `golf score`. `place`: where to keep what is done, and to go on from."""
    artifact = read(data)
    model = changed(artifact, changes)
    validation = open_validation(
        where,
        model.spec.vocab_size,
        settings.limit_tokens,
        settings.subset,
        model.spec.seq_len,
        settings.allow_lossy,
    )
    job = Job(
        artifact=artifact,
        model=model,
        validation=validation,
        batch=settings.batch,
        backend=backend,
        precision=precision,
    )
    scored, seconds, resumed_targets = perform(job, place)
    return {
        **score_fields(scored, validation),
        "seconds": seconds,
        **job.described(),
        "resumed_targets": resumed_targets,
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One scoring: of what, over what, by what."""

    artifact: Artifact
    model: Modified
    validation: Validation
    batch: int
    backend: str
    precision: str

    @property
    def subset(self) -> str | None:
        return None if self.validation.subset is None else self.validation.subset.name

    def label(self) -> str:
        return label(self.subset, self.model.changes, bool(self.validation.lossy))

    def described(self) -> dict[str, Any]:
        """How, as fields of the result."""
        seq_len = self.model.spec.seq_len
        return {
            "protocol": {"windows": "chunked", "seq_len": seq_len, "batch": self.batch},
            "modified": list(self.model.changes),
            "dropped": list(self.model.dropped),
            "backend": self.backend,
            "precision": self.precision,
        }

    def task(self) -> Task:
        """What must be equal for two parts of one sum."""
        return {
            "artifact": identity(self.artifact),
            "data": data_hash(self.validation),
            "subset": self.subset or "full",
            **self.described(),
        }


def changed(artifact: Artifact, changes: Sequence[str]) -> Modified:
    """The artifact's model with the changes of --set."""
    if artifact.spec is None:
        raise ValueError("the artifact names no ModelSpec, so there is no model to score")
    if not changes:
        return modify(artifact.spec, weights(artifact), ())
    try:
        model = modify(artifact.spec, weights(artifact), changes)
    except ValueError as error:
        raise UsageError(f"--set: {error}") from None
    if model.dropped:
        note(f"--set drops what the changed model has not: {', '.join(model.dropped)}")
    return model


def perform(job: Job, place: Place | None) -> tuple[Scored, float, int]:
    """The score, the seconds of it, and how many targets an earlier command had done."""
    model, seq_len = job.model, job.model.spec.seq_len
    opened = load(job.backend, "evaluate").open_evaluator(model.weights, model.spec, job.precision)
    keeper, tally = Keeper(), open_tally(job.validation, seq_len)
    if place is not None:
        task = job.task()
        keeper = Keeper(place(task), task)
        tally = keeper.stopped_at(tally, len(job.validation.stream))
    resumed_targets = tally.targets
    of_targets = sum(window.count for window in job.validation.windows(seq_len))
    with Progress(of_targets, job.label()) as progress, keeper:

        def after(tally: Tally) -> None:
            progress(tally)
            keeper(tally)

        scored = score(opened.nats, job.validation, seq_len, job.batch, after, tally)
    keeper.forget()
    return scored, keeper.seconds(), resumed_targets


def label(subset: str | None, changes: Sequence[str], lossy: bool) -> str:
    """What must stand beside a score that is not the model's own of the whole split."""
    parts = [f"subset {subset}"] if subset else []
    parts += [f"modified: {', '.join(changes)}"] if changes else []
    parts += ["lossy"] if lossy else []
    return f" ({'; '.join(parts)})" if parts else ""


def readable(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields for people: every score carries its label."""
    subset, told = fields["subset"], None
    if subset:
        told = f"{subset['name']}: {subset['targets']:,} of {subset['of_targets']:,} targets"
        low, high = subset["val_bpb_low"], subset["val_bpb_high"]
        reach = "too few windows for an interval"
        if low is not None:
            reach = f"the full split's val_bpb is within {low:.4f} and {high:.4f} (95 %)"
        told = f"{told}, {reach}"
    said = label(subset and subset["name"], fields["modified"], bool(fields["lossy"]))
    scores = {
        name: f"{fields[name]:.8f}{said}"
        for name in ("val_loss", "val_bpb", "val_bpb_raw")
        if fields[name] is not None
    }
    lists = {name: ", ".join(fields[name]) or "none" for name in ("modified", "dropped")}
    told = told or "none: the full split"
    return {**fields, **scores, **lists, "subset": told, "lossy": fields["lossy"] or "no"}
