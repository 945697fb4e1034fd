"""Parts of a step: the optimizer, attention and the loss alone; the step with each kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from core.arch.params import init_params
from core.train.schedules import knobs, stages
from tools.backends import load
from tools.benching.blocks import Drain, Launch, Rules, Settle, Turns, in_turns, nothing
from tools.benching.job import Job
from tools.benching.steps import OWN, REFERENCE, Stepping, settle
from tools.benching.tokens import random_shards

SOFTCAP = 30.0
BACKWARD = 2.5  # times attention's forward, which is made anew there


def optimizer(job: Job) -> dict[str, Any]:
    """One update from drawn gradients, batched against one tensor after the other."""
    recipe, backend = job.recipe(), job.row.backend
    group, yardsticks = load(backend, "distributed").Solo(), load(backend, "yardsticks")
    trainers = {
        OWN: load(backend, "loop").Trainer(recipe, group),
        REFERENCE: load(backend, "reference").ReferenceTrainer(recipe, group),
    }
    shapes = {name: w.shape for name, w in init_params(recipe.arch, recipe.seed).items()}
    grads = {
        name: yardsticks.drawn(shape, stream, group.device)
        for stream, (name, shape) in enumerate(shapes.items())
    }

    def updating(trainer: Any) -> Launch:
        def launch() -> list[Any]:
            trainer.optimizer.update(trainer.state, grads, knobs(recipe, 0, 0.0))
            return [array for key, array in trainer.state.items() if "/" in key]

        return launch

    forms = {name: updating(trainer) for name, trainer in trainers.items()}
    turns = in_turns(forms, yardsticks.settle, job.rules)
    return {"recipe": recipe.name, **against(turns, OWN, {}), "device": str(group.device)}


def each(job: Job) -> dict[str, Any]:
    """The step with each of torch's Triton kernels by itself, against the step with none."""
    recipe, group = replace(job.recipe(), kernels="off"), _group(job)
    kernels, yardsticks = load("torch", "kernels"), load("torch", "yardsticks")
    stage = stages(recipe)[job.row.stage]
    with random_shards(recipe) as stream:

        def stepping(names: list[str]) -> Launch:
            """Made at its first step, and put together then: a kernel may be refused."""
            made: list[Stepping] = []

            def launch() -> Any:
                if not made:
                    trainer = load("torch", "loop").Trainer(recipe, group)
                    if names:
                        kernels.put(trainer.model, names)
                    feeder = load("torch", "feeder").Feeder(stream, recipe, group)
                    made.append(Stepping(trainer, feeder, stage, job.rules.now))
                return made[0]()

            return launch

        forms = {"none": stepping([])}
        forms |= {name: stepping([name]) for name in kernels.KERNELS}
        found = compared(forms, settle, job.rules, partial(yardsticks.settle, []))
    return {**found, "precision": recipe.precision, "recipe": recipe.name}


def attention(job: Job) -> dict[str, Any]:
    """Forward and backward of (B, H, H_kv, T, D) by every backend that takes it."""
    yardsticks, group = load(job.row.backend, "yardsticks"), _group(job)
    precision = job.recipe().precision
    makers = yardsticks.attentions()
    forms = {
        name: yardsticks.attention_step(form, job.shape, precision, group.device)
        for name, form in makers.items()
    }
    rows, heads, _, time, dims = job.shape
    forward = 2 * 2 * rows * heads * dims * time * (time + 1) / 2
    found = compared(forms, yardsticks.settle, job.rules)
    rates = {n: (1 + BACKWARD) * forward / (ms / 1000) for n, ms in found["form_ms"].items()}
    return {**found, "precision": precision, "shape": job.shape, "flops_per_s": rates}


def loss(job: Job) -> dict[str, Any]:
    """Forward and backward of (tokens, vocabulary)."""
    yardsticks, group = load(job.row.backend, "yardsticks"), _group(job)
    precision = job.recipe().precision
    forms = {
        name: yardsticks.loss_step(form, job.shape, precision, group.device)
        for name, form in yardsticks.losses(SOFTCAP).items()
    }
    found = compared(forms, yardsticks.settle, job.rules)
    return {**found, "precision": precision, "shape": job.shape}


def compared(
    forms: Mapping[str, Launch], settle: Settle, rules: Rules, drain: Drain = nothing
) -> dict[str, Any]:
    """Times of the forms that run here, the first of them against each; why the others do not."""
    works, refused = dict[str, Launch](), dict[str, str]()
    for name, form in forms.items():
        try:
            settle(form())
            works[name] = form
        except (RuntimeError, NotImplementedError, ValueError, ImportError) as error:
            refused[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    first = next(iter(works))
    return against(in_turns(works, settle, rules, drain), first, refused)


def against(turns: Turns, first: str, refused: Mapping[str, str]) -> dict[str, Any]:
    """As fields: milliseconds by form, and how many times as fast the first is."""
    ratios = {name: turns.ratio(name, first) for name in turns.seconds}
    return {
        "first": first,
        "form_ms": {name: 1000 * turns.step_s(name).median for name in turns.seconds},
        "ratios": {name: one.median for name, one in ratios.items()},
        "ratio_ranges": {name: [one.low, one.high] for name, one in ratios.items()},
        "counts": {name: turns.counts(one.median) for name, one in ratios.items()},
        "noise": turns.noise(),
        "not_measured": dict(refused),
    }


def cells(fields: dict[str, Any]) -> dict[str, str]:
    """A row of the table: the first form, and the others beside it."""
    first = fields["first"]
    others = [
        f"{name} {ms:.2f} ({fields['ratios'][name]:.2f}x"
        f"{'' if fields['counts'][name] else ', within noise'})"
        for name, ms in fields["form_ms"].items()
        if name != first
    ]
    refused = [f"{name}: {why[:80]}" for name, why in fields["not_measured"].items()]
    rates = fields.get("flops_per_s")
    return {
        "form": first,
        "ms": f"{fields['form_ms'][first]:.2f}",
        "TFLOP/s": f"{rates[first] / 1e12:.2f}" if rates else "-",
        "others, ms": ", ".join(others) or "none",
        "A to A": f"±{fields['noise']:.1%}",
        "not measured": "; ".join(refused) or "-",
    }


def _group(job: Job) -> Any:
    return load(job.row.backend, "distributed").Solo()
