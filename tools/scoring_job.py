"""One scoring as a job: of what, over what, by what protocol and on which engine; its ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.artifact.container import Artifact, identity, read, weights
from core.data.batches import Data
from core.data.export import read_manifest
from core.data.reencoding import check_encoding
from core.data.tokenizer import open_tokenizer
from core.score.adapted import adapted_windows, score_adapting
from core.score.bpb import Scored, Tally
from core.score.modified import Modified, modify
from core.score.resume import Task, data_hash
from core.score.scoring import Score, Validation, open_tally, open_validation, score
from core.train.events import score_fields
from tools.backends import load
from tools.environment import leads, variables
from tools.say import UsageError, note
from tools.scoring import Keeper, Progress

ALONE = "what a model learns on the way is kept by one rank alone"
Place = Callable[[Task], Path]  # where the state of a scoring is kept


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
        settings.windows_by,
        settings.adaptation,
    )
    if read_manifest(Path(where.path)) is None:  # nobody says whose shards these are
        check_encoding(open_tokenizer(where.tokenizer), validation.stream)
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

    def tally(self) -> Tally:
        """Nothing added up yet."""
        seq_len, validation = self.model.spec.seq_len, self.validation
        if validation.adaptation is None:
            return open_tally(validation, seq_len)
        windows = adapted_windows(validation, seq_len, self.batch)
        return open_tally(validation, seq_len, windows)

    def label(self) -> str:
        return label(self.subset, self.model.changes, bool(self.validation.lossy))

    def described(self) -> dict[str, Any]:
        """How, as fields of the result."""
        protocol = self.validation.protocol.described(self.model.spec.seq_len)
        how = self.validation.adaptation
        adapted = {} if how is None else {"adapt": how.described()}
        return {
            "protocol": {**protocol, "batch": self.batch, **adapted},
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
    if model.dropped and leads(variables()):
        note(f"--set drops what the changed model has not: {', '.join(model.dropped)}")
    return model


def perform(job: Job, place: Place | None) -> tuple[Scored, float, int]:
    """The score, the seconds of it, and how many targets an earlier command had done.

    Several ranks share the batches; each of them returns the same.
    """
    model, seq_len = job.model, job.model.spec.seq_len
    group = load(job.backend, "distributed").open_group()
    open_evaluator = load(job.backend, "evaluate").open_evaluator
    opened = open_evaluator(model.weights, model.spec, job.precision, group)
    adapts = job.validation.adaptation is not None
    keeper, tally = Keeper(group), job.tally()
    if place is not None and adapts and group.world_size > 1:
        if keeper.leads:
            note(f"nothing is kept to go on from: {ALONE}, here are {group.world_size}")
    elif place is not None:
        task = job.task()
        keeper = Keeper(group, place(task), task, adapts)
        tally = keeper.stopped_at(tally, len(job.validation.stream))
    resumed_targets = tally.targets
    of_targets = targets(job.validation, seq_len)
    progress = Progress(of_targets, job.label(), keeper.leads, keeper.started)

    def after(tally: Tally) -> None:
        progress(tally)
        keeper(tally)

    with progress, keeper:
        try:
            if adapts:
                scored = adapt(job, opened, after, tally, keeper)
            else:
                scored = score(opened.nats, job.validation, seq_len, job.batch, after, tally, group)
        except RuntimeError as error:
            keep_partial(keeper, progress, tally)
            raise ValueError(
                f"the engine failed behind target {tally.targets}: {error}; a smaller --batch "
                "needs less memory, --debug shows where"
            ) from error
        except Exception:
            keep_partial(keeper, progress, tally)
            raise
    keeper.forget()
    group.close()
    return scored, keeper.seconds(), resumed_targets


def adapt(
    job: Job, opened: Any, after: Callable[[Tally], None], tally: Tally, keeper: Keeper
) -> Scored:
    """The score of a model that learns on the way."""
    learner = load(job.backend, "adapt").Learner(opened.model, job.validation.adaptation)
    settings = job.validation, job.model.spec, job.batch, job.precision
    keep = keeper.hold if keeper.path else None
    learned = keeper.held[1] if keeper.held else None
    group = keeper.group
    return score_adapting(
        learner, opened.nats, *settings, after, tally, group, keep=keep, learned=learned
    )


def targets(validation: Validation, seq_len: int) -> int:
    """How many will be scored."""
    if validation.subset is None:
        return validation.of_targets
    return sum(window.count for window in validation.windows(seq_len))


def keep_partial(keeper: Keeper, progress: Progress, tally: Tally) -> None:
    """Keep the score so far, and tell it as what it is."""
    if not tally.windows:
        return
    keeper.save(tally)
    if keeper.leads:
        note(f"partial, not a score: {progress.so_far(tally)}{keeper.kept()}")


def label(subset: str | None, changes: Sequence[str], lossy: bool) -> str:
    """What must stand beside a score that is not the model's own of the whole split."""
    parts = [f"subset {subset}"] if subset else []
    parts += [f"modified: {', '.join(changes)}"] if changes else []
    parts += ["lossy"] if lossy else []
    return f" ({'; '.join(parts)})" if parts else ""
