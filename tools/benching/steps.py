"""The training step against its reference form: time, host, feeding, memory, FLOPs, losses."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from core.data.shards import TokenStream
from core.train.recipe import Recipe
from core.train.schedules import Stage, knobs, stages
from tools.backends import load
from tools.benching.blocks import Clock, in_turns
from tools.benching.flops import flops_of, peak_of
from tools.benching.job import Job
from tools.benching.tokens import mean_context, random_shards

OWN, REFERENCE = "this project", "reference form"
LOSS_STEP = 50  # at which losses are compared, or the last step that both have made
BF16_LOSS_STEP = 10  # in bf16: one form is 3e-2 from itself at step 50, from run to run
LOSS_GAP = 1e-3  # nats; both forms train the same model
FIRST_STEPS = 2  # that a form makes alone, for the memory it takes
PRODUCT_SIZES = {"cpu": 1024}  # of the square product that is a device's peak
PRODUCT_SIZE = 8192


@dataclass(eq=False)
class Stepping:
    """A form that goes from step to step; what it is fed is its own."""

    trainer: Any
    feeder: Any
    stage: Stage
    now: Clock = time.perf_counter
    done: int = 0
    host_s: list[float] = field(default_factory=list)
    fed_s: list[float] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)

    def __call__(self) -> tuple[Stepping, int, Any]:
        """Start one step; what it cost the host until nothing was left but to wait."""
        recipe, step = self.trainer.recipe, self.done
        tokens = step * recipe.data.train_batch_tokens
        started = self.now()
        batch = self.feeder.batch_at(tokens, self.stage.batch_phase)
        fed = self.now()
        loss = self.trainer.step(batch, replace(knobs(recipe, step, 0.0), stage=self.stage))
        self.host_s.append(self.now() - fed)
        self.fed_s.append(fed - started)
        self.done += 1
        return self, step, loss


def settle(launched: tuple[Stepping, int, Any]) -> None:
    form, step, loss = launched
    form.losses[step] = float(loss)


def measure(job: Job) -> dict[str, Any]:
    """Both forms of the recipe's step, on shards of drawn tokens."""
    recipe = job.recipe()
    group = load(job.row.backend, "distributed").Solo()
    stage = stages(recipe)[job.row.stage]
    with random_shards(recipe) as stream:
        forms, peaks = opened(job, recipe, group, stream, stage)
        if job.profile is not None:
            note_profile(job, forms[OWN])
        drain = partial(load(job.row.backend, "yardsticks").settle, [])
        turns = in_turns(forms, settle, job.rules, drain)
        context = first_context(stream, recipe) if recipe.arch.doc_mask else 0.0
    own_s, ratio = turns.step_s(OWN), turns.ratio(REFERENCE, OWN)
    own, reference = forms[OWN], forms[REFERENCE]
    counted = turns.counts(ratio.median)
    return {
        **named(job, recipe, group),
        "clock": job.rules.clock,
        "steps": job.rules.steps,
        "blocks": job.rules.blocks,
        "reference_ms": 1000 * turns.step_s(REFERENCE).median,
        "step_ms": 1000 * own_s.median,
        "step_ms_range": [1000 * own_s.low, 1000 * own_s.high],
        "ratio": ratio.median,
        "ratio_range": [ratio.low, ratio.high],
        "noise": turns.noise(),
        "counts": counted,
        "host_ms": 1000 * median(own.host_s),
        "feeding_ms": 1000 * median(own.fed_s),
        "feeding_share": median(own.fed_s) / own_s.median,
        "peak_memory_bytes": peaks[OWN],
        "reference_peak_memory_bytes": peaks[REFERENCE],
        **of_the_peak(job, recipe, group, stage, context, own_s.median),
        **compared(own, reference, LOSS_STEP if recipe.precision == "fp32" else BF16_LOSS_STEP),
    }


def opened(
    job: Job, recipe: Recipe, group: Any, stream: TokenStream, stage: Stage
) -> tuple[dict[str, Stepping], dict[str, int | None]]:
    """Both forms after their first steps, and the device memory that each takes by itself."""
    backend = job.row.backend
    makers = {
        OWN: load(backend, "loop").Trainer,
        REFERENCE: load(backend, "reference").ReferenceTrainer,
    }
    forms, peaks = dict[str, Stepping](), dict[str, int | None]()
    for name, maker in makers.items():
        before = load(backend, "yardsticks").held_bytes(group.device)
        feeder = load(backend, "feeder").Feeder(stream, recipe, group)
        forms[name] = Stepping(maker(recipe, group), feeder, stage, job.rules.now)
        for _ in range(FIRST_STEPS):
            settle(forms[name]())
        after = group.peak_bytes()
        peaks[name] = None if before is None or after is None else after - before
        forms[name].host_s.clear()  # of steps that compile
        forms[name].fed_s.clear()
    return forms, peaks


def note_profile(job: Job, form: Stepping) -> None:
    """Three steps under the framework's profiler."""

    def work() -> None:
        for launched in [form() for _ in range(3)]:
            settle(launched)

    job.keep_profile(load(job.row.backend, "yardsticks").profiled, work)
    form.host_s.clear()
    form.fed_s.clear()


def named(job: Job, recipe: Recipe, group: Any) -> dict[str, Any]:
    return {
        "backend": job.row.backend,
        "device": str(group.device),
        "device_name": group.device_name(),
        "recipe": recipe.name,
        "stage": job.row.stage,
        "precision": recipe.precision,
        "compile": recipe.compile,
        "train_batch_tokens": recipe.data.train_batch_tokens,
        "micro_batch": recipe.data.micro_batch,
    }


def of_the_peak(
    job: Job, recipe: Recipe, group: Any, stage: Stage, context: float, step_s: float
) -> dict[str, Any]:
    """MFU and roofline by the stated formula."""
    yardsticks = load(job.row.backend, "yardsticks")
    size = 64 if job.tiny else PRODUCT_SIZES.get(device_kind(group.device), PRODUCT_SIZE)
    product = yardsticks.product(recipe.precision, size, group.device)
    given = (group.device_name(), job.peak_flops, product, size, yardsticks.settle)
    peak = peak_of(*given, job.rules.now)
    flops, tokens = flops_of(recipe.arch, stage.phase, context), recipe.data.train_batch_tokens
    least_s = flops.per_token * tokens / peak.flops
    return {
        "tokens_per_s": tokens / step_s,
        "flops_per_token": flops.per_token,
        "flops_terms": flops.terms,
        "peak_flops": peak.flops,
        "peak_source": peak.source,
        "roofline_ms": 1000 * least_s,
        "mfu": least_s / step_s,
    }


def device_kind(device: Any) -> str:
    """cpu, cuda or gpu (Metal), of what either framework calls its device."""
    name = str(device)
    return next((kind for kind in ("cuda", "gpu", "mps") if kind in name), "cpu")


def first_context(stream: TokenStream, recipe: Recipe) -> float:
    rows = recipe.data.train_batch_tokens // recipe.arch.seq_len
    tokens = stream.slice(0, rows * recipe.arch.seq_len)
    return mean_context(tokens.reshape(rows, -1))


def compared(own: Stepping, reference: Stepping, at: int) -> dict[str, Any]:
    """The losses of both at the step that is asked for, or the last one that both have made."""
    step = min(at, max(own.losses.keys() & reference.losses.keys()))
    ours, theirs = own.losses[step], reference.losses[step]
    fields = {"loss_step": step, "loss": ours, "reference_loss": theirs}
    return {**fields, "loss_gap": abs(ours - theirs)}


def agrees(fields: dict[str, Any]) -> bool:
    """Whether both forms trained the same model."""
    return bool(fields["loss_gap"] <= LOSS_GAP)


def cells(fields: dict[str, Any]) -> dict[str, str]:
    """A row of the table."""
    low, high = fields["ratio_range"]
    peak, theirs = fields["peak_memory_bytes"], fields["reference_peak_memory_bytes"]
    counts = "" if fields["counts"] else ", within noise"
    return {
        "tokens a step": f"{fields['train_batch_tokens']:,}",
        "reference form ms": f"{fields['reference_ms']:.1f}",
        "this project ms": f"{fields['step_ms']:.1f}",
        "ratio": f"{fields['ratio']:.2f} ({low:.2f} to {high:.2f}){counts}",
        "A to A": f"±{fields['noise']:.1%}",
        "tokens/s": f"{fields['tokens_per_s']:,.0f}",
        "MFU": f"{fields['mfu']:.1%}",
        "roofline ms": f"{fields['roofline_ms']:.1f}",
        "host ms": f"{fields['host_ms']:.1f}",
        "feeding": f"{fields['feeding_share']:.2%}",
        "peak MB": "-" if peak is None else f"{peak / 1e6:,.0f}, {theirs / 1e6:,.0f}",
        "loss gap": f"{fields['loss_gap']:.0e} at {fields['loss_step']}",
    }


def remarks(fields: dict[str, Any]) -> str:
    """What stands below the table."""
    return (
        f"{fields['title']}: {fields['blocks']} blocks of {fields['steps']} steps by the "
        f"{fields['clock']} clock; FLOPs a token {fields['flops_terms']}; peak "
        f"{fields['peak_flops'] / 1e12:.3f} TFLOP/s ({fields['peak_source']}); losses "
        f"{fields['loss']:.5f} and {fields['reference_loss']:.5f} (reference form) at step "
        f"{fields['loss_step']}"
    )
