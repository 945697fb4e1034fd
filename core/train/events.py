"""What a run says while it goes: events with all their fields, and the lines that people grep.

An event is a kind and its fields. The loop makes them through the functions here, a run folder
writes them down, a terminal shows them; none of the three knows the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, get_args

from core.arch.fields import to_plain
from core.arch.params import num_params, param_table
from core.artifact.container import Artifact, identity
from core.artifact.ledger import CAP_BYTES, Ledger
from core.artifact.quant import Format
from core.score.bpb import Scored
from core.score.scoring import Validation, subset_fields
from core.train.corpus import Corpus
from core.train.recipe import Recipe, recipe_hash
from core.train.schedules import Knobs

Events = Callable[..., None]  # events(kind, **fields)
Numbers = Mapping[str, Any]  # a run's: step, elapsed_s, tokens_done, snapshots

LINES: dict[str, str] = {
    "origin": "set {field}={value} from {origin}",
    "resolved": "all other values from recipe:{base} hash:{base_hash}",
    "start": (
        "recipe:{recipe} hash:{hash} seed:{seed} backend:{backend} device:{device} "
        "precision:{precision} attention:{attention}\n"
        "model_params:{parameters}\n"
        "train_tokens:{train_tokens} val_tokens:{val_tokens}\n"
        "world_size:{world_size} train_batch_tokens:{train_batch_tokens} seq_len:{seq_len}"
    ),
    "warmup": (
        "warmup_step:{steps}/{steps} warmup_time:{ms:.0f}ms (rolled back, not in the budget; "
        "graphs {graphs})"
    ),
    "step": (
        "step:{step}/{steps} train_loss:{train_loss:.4f} train_time:{train_ms:.0f}ms "
        "step_avg:{step_avg_ms:.2f}ms progress:{progress:.6f} lr_mul:{lr_mul:.4f} "
        "tok_s:{tokens_per_s:.0f}"
    ),
    "bad_step": (
        "bad_step:{step}/{steps} loss or gradient not finite, not applied; "
        "rows {first_row} to {last_row} of the training data ({in_a_row} in a row)"
    ),
    "resumed": "resumed: step:{step}/{steps} train_time:{train_ms:.0f}ms",
    "saved": "saved: step:{step}/{steps} train_time:{train_ms:.0f}ms{why}",
    "val": (
        "step:{step}/{steps} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} "
        "train_time:{train_ms:.0f}ms step_avg:{step_avg_ms:.2f}ms "
        "tokens:{tokens} bytes:{bytes} artifact_bytes:{artifact_bytes}{subset}{lossy}{protocol}"
    ),
    "stop": "stopped: step:{step}/{steps} train_time:{train_ms:.0f}ms",
    "stopping_early": (
        "stopping_early: wallclock_cap train_time:{train_ms:.0f}ms step:{step}/{steps}"
    ),
    "scored": (
        "{label} val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f} val_bpb_raw:{val_bpb_raw} "
        "tokens:{tokens} bytes:{bytes} bytes_raw:{bytes_raw} eval_time:{eval_ms:.0f}ms"
        "{subset}{lossy}{protocol}"
    ),
    "artifact": (
        "identity:{identity}\n"
        "Serialized model {method}: {model_bytes} bytes\n"
        "Code size: {code_bytes} bytes\n"
        "Total submission size {method}: {artifact_bytes} bytes"
    ),
    "note": "note: {text}",
    "phases": "{text}",
    "verdict": "{verdict}: artifact_bytes:{artifact_bytes} cap:{cap_bytes} margin:{margin_bytes}",
}


def log_line(kind: str, fields: dict[str, Any]) -> str | None:
    """The text of an event, or None for a step between two that are shown."""
    if kind == "step" and fields["step"] > 10 and fields["step"] % fields["log_every_steps"]:
        return None
    names = ("subset", "lossy", "protocol")
    said = {name: fields.get(name) for name in names}
    labels = {name: f" {name}:{json.dumps(one)}" if one else "" for name, one in said.items()}
    return LINES[kind].format(**{**fields, **labels})


def log_start(
    events: Events, recipe: Recipe, corpus: Corpus, backend: str, group: Any, attention: str
) -> None:
    """Everything that was decided before the first step; `group` has world_size and device."""
    events(
        "start",
        recipe=recipe.name,
        hash=recipe_hash(recipe)[:16],
        seed=recipe.seed,
        backend=backend,
        device=str(group.device),
        precision=recipe.precision,
        attention=attention,
        parameters=num_params(recipe.arch),
        train_tokens=len(corpus.train),
        val_tokens=len(corpus.validation.stream),
        world_size=group.world_size,
        train_batch_tokens=recipe.data.train_batch_tokens,
        seq_len=recipe.arch.seq_len,
    )


def log_resolved(events: Events, recipe: Recipe, base: Recipe) -> None:
    """Whose own all values are that were not set; the event has every value of the run."""
    events("resolved", base=base.name, base_hash=recipe_hash(base)[:16], values=to_plain(recipe))


def log_warmup(events: Events, recipe: Recipe, passes_s: list[list[float]]) -> None:
    """passes_s: seconds of each pass over the graphs, in turn; the first one compiles them."""
    passes_ms = [[1000.0 * seconds for seconds in graphs] for graphs in passes_s]
    shown = ["+".join(f"{ms:.0f}" for ms in graphs) + "ms" for graphs in passes_ms]
    steps, ms = recipe.schedule.warmup_steps, sum(map(sum, passes_ms))
    events("warmup", steps=steps, ms=ms, passes_ms=passes_ms, graphs=", then ".join(shown))


def log_step(events: Events, recipe: Recipe, numbers: Numbers, loss: float, dials: Knobs) -> None:
    """After a step; `numbers` are the run's behind it, progress is what its rates came from."""
    step, elapsed_s = int(numbers["step"]), numbers["elapsed_s"]
    events(
        "step",
        **_where(recipe, step, elapsed_s),
        train_loss=loss,
        progress=dials.progress,
        lr_mul=dials.lr_mul,
        momentum=dials.momentum,
        tokens_done=numbers["tokens_done"],
        tokens_per_s=numbers["tokens_done"] / max(elapsed_s, 1e-9),
        log_every_steps=recipe.schedule.log_every_steps,
    )


def log_bad_step(
    events: Events, recipe: Recipe, numbers: Numbers, dials: Knobs, in_a_row: int
) -> None:
    """A step that was not applied, and which rows of arch.seq_len tokens it was made of."""
    seq_len, done = recipe.arch.seq_len, int(numbers["tokens_done"])
    size = recipe.data.phases(seq_len)[dials.stage.batch_phase]
    events(
        "bad_step",
        step=numbers["step"],
        steps=recipe.schedule.steps,
        first_row=(done - size.train_batch_tokens) // seq_len,
        last_row=done // seq_len - 1,
        in_a_row=in_a_row,
    )


def log_resumed(events: Events, recipe: Recipe, step: int, elapsed_s: float) -> None:
    events("resumed", **_where(recipe, step, elapsed_s))


def log_saved(events: Events, recipe: Recipe, step: int, elapsed_s: float, why: str) -> None:
    events("saved", **_where(recipe, step, elapsed_s), why=f" ({why})" if why else "")


def log_val(
    events: Events,
    recipe: Recipe,
    step: int,
    elapsed_s: float,
    scored: Scored,
    counts: Ledger | None,
    validation: Validation,
) -> None:
    """A score on the way, with the bytes of code and weights if this were the end.

    counts: none where they could not be packed.
    """
    fields = score_fields(scored, validation)
    sizes = {"artifact_bytes": None if counts is None else counts.artifact_bytes}
    events("val", **_where(recipe, step, elapsed_s), **fields, **sizes)


def log_stop(events: Events, recipe: Recipe, step: int, elapsed_s: float) -> None:
    """The end of training: by the number of steps, or by the clock before the budget is spent."""
    kind = "stop" if step == recipe.schedule.steps else "stopping_early"
    events(kind, **_where(recipe, step, elapsed_s))


def log_scored(
    events: Events, label: str, scored: Scored, validation: Validation, seconds: float
) -> None:
    fields = score_fields(scored, validation)
    events("scored", label=label, eval_ms=1000.0 * seconds, **fields)


def log_artifact(events: Events, recipe: Recipe, artifact: Artifact, counts: Ledger) -> None:
    events(
        "artifact",
        method=method(recipe, "+"),
        identity=identity(artifact),
        model_bytes=counts.model_bytes,
        code_bytes=counts.code_bytes,
        artifact_bytes=counts.artifact_bytes,
    )


def log_note(events: Events, text: str) -> None:
    """Something that a reader of the run must know."""
    events("note", text=text)


def log_phases(events: Events, phases_s: dict[str, float]) -> None:
    text = " ".join(f"{name}:{seconds:.2f}s" for name, seconds in phases_s.items())
    events("phases", text=f"phases {text}", phases_s=phases_s)


def log_verdict(events: Events, counts: Ledger) -> None:
    """The last line of a run: whether code and model fit under the cap together."""
    events(
        "verdict",
        verdict="fits" if counts.fits else "failed: over the cap",
        artifact_bytes=counts.artifact_bytes,
        cap_bytes=CAP_BYTES,
        margin_bytes=counts.margin_bytes,
    )


def silent(kind: str, **fields: object) -> None:
    """The events of a rank that does not write."""


def score_fields(scored: Scored, validation: Validation) -> dict[str, Any]:
    """A score as the fields of an event or of a report."""
    return {
        "val_loss": scored.val_loss,
        "val_bpb": scored.val_bpb,
        "val_bpb_raw": scored.val_bpb_raw,
        "tokens": scored.tokens,
        "bytes": scored.bytes,
        "bytes_raw": scored.bytes_raw,
        "subset": subset_fields(scored, validation),
        "lossy": validation.lossy or None,
        "protocol": validation.how(),
    }


def method(recipe: Recipe, joint: str) -> str:
    """How matrices are stored, as the log lines name it: int8+zlib; the widest format first."""
    roles = {row.role for row in param_table(recipe.arch)} - {"control"}
    held = {getattr(recipe.quant, role) for role in roles}
    return joint.join([*(form for form in get_args(Format) if form in held), recipe.quant.codec])


def _where(recipe: Recipe, step: int, elapsed_s: float) -> dict[str, Any]:
    return {
        "step": step,
        "steps": recipe.schedule.steps,
        "train_ms": 1000.0 * elapsed_s,
        "step_avg_ms": 1000.0 * elapsed_s / max(step, 1),
    }
