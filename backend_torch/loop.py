"""The training run: a Trainer that makes one step, and train(recipe), the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import SupportsFloat

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from backend_torch import kernels
from backend_torch.adapt import Learner
from backend_torch.attend import attention_choice
from backend_torch.calibrate import fisher, moments
from backend_torch.distributed import Solo, open_group
from backend_torch.evaluate import Evaluator
from backend_torch.feeder import Feeder, MicroBatch
from backend_torch.model import GPT
from backend_torch.optimizer import Optimizer, arrays, held, matrices
from backend_torch.qat import Rounding, put, rounded, row_steps, with_rate
from backend_torch.solve import Solver
from backend_torch.weights import added, load_weights, narrowed, parameters, to_numpy
from core.arch.params import Weights, init_params, products
from core.artifact.solving import NOTHING, Calibration
from core.artifact.sums import REFERENCE
from core.data.shards import TokenStream
from core.score.adapted import score_adapting
from core.score.bpb import Scored
from core.score.protocols import SLIDES
from core.score.scoring import Validation, score
from core.train.calibration import (
    Given,
    Moments,
    calibration,
    counted,
    drawer,
    first_rows,
    share,
    tapped,
    token_counts,
    weighed,
    written,
)
from core.train.clock import BudgetClock, out_of_time
from core.train.corpus import data_identity, open_corpus
from core.train.events import (
    Events,
    log_resumed,
    log_saved,
    log_start,
    log_stop,
    log_val,
    log_warmup,
    silent,
)
from core.train.finish import Finished, finish, look, steer
from core.train.keeper import Ask, Keeper, Lead, Snapshot, Stopped, check_snapshot
from core.train.qat import Qat, noise_keys, rounded_grids
from core.train.reader import StepReader
from core.train.recipe import Recipe
from core.train.schedules import PLAIN, Knobs, Stage, after, knobs, stages, validates


class Trainer:
    """The model, its rules, and the whole state of a run: one flat dict of arrays and numbers."""

    def __init__(self, recipe: Recipe, group: Solo) -> None:
        self.recipe = recipe
        self.group = group
        self.model = GPT(recipe.arch, recipe.precision).to(group.device)
        load_weights(self.model, init_params(recipe.arch, recipe.seed), recipe.arch)
        if recipe.kernels == "on":
            kernels.put(self.model)
        compiles = _compiles(recipe, group.device)
        self.optimizer = Optimizer(recipe.arch, recipe.optim, group, compiles)
        self.state = self.optimizer.start(parameters(self.model))
        self._sizes = recipe.data.phases(recipe.arch.seq_len)
        self._grids = rounded_grids(recipe.arch, recipe.quant, recipe.qat)
        self._products = [] if recipe.precision == "fp32" else products(recipe.arch)
        self._nats_of = torch.compile(self._nats, dynamic=False) if compiles else self._nats

    def gradients(
        self, batches: list[MicroBatch], stage: Stage = PLAIN, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per token of the whole step, and its gradients, over all ranks;
        of those of matrices that are dealt to the ranks, this rank's own.

        step: how many were done before; it is what the noise of training is drawn by.
        """
        tokens = self._sizes[stage.batch_phase].train_batch_tokens
        by, weights = None, narrowed(parameters(self.model), self._products)
        if stage.qat:
            by, weights = self._rounding(step), parameters(self.model)
        total, grads = torch.zeros((), device=self.group.device), dict[str, Tensor]()
        for batch in batches:
            nats, more = self._nats_and_grads(weights, batch, stage.phase, tokens, by)
            total, grads = total + nats, added(grads, more)
        grads = grads or {name: torch.zeros_like(w) for name, w in parameters(self.model).items()}
        own: dict[str, Tensor] = {}
        for names in matrices(self.optimizer.banks):
            own |= self.group.scatter({name: grads.pop(name) for name in names})
        summed = self.group.sum({**grads, "loss": total}) | own
        loss = summed.pop("loss")
        return loss, self._with_rate(summed) if self.recipe.optim.rate_lambda else summed

    def step(self, batches: list[MicroBatch], now: Knobs) -> SupportsFloat:
        """One optimizer step; the loss before it, or NaN where the step was not applied."""
        loss, grads = self.gradients(batches, now.stage, now.step)
        good = self.optimizer.update(self.state, grads, now)
        return self.group.late(loss.masked_fill(~good, torch.nan))

    def warm_up(self, batches: list[MicroBatch], stage: Stage = PLAIN) -> None:
        """A step of this stage, for what it compiles and allocates; then all state is put back."""
        saved = {key: array.detach().clone() for key, array in arrays(self.state).items()}
        float(self.step(batches, replace(knobs(self.recipe, 0, 0.0), stage=stage)))
        with torch.no_grad():
            for key, array in arrays(self.state).items():
                array.copy_(saved[key])

    def snapshot(self) -> Snapshot:
        """All state on the host: float32 arrays, and the numbers. All ranks ask for it."""
        return {**self.state, **to_numpy(self.optimizer.whole(self.state))}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of either engine."""
        check_snapshot(snapshot, self.state)
        with torch.no_grad():
            for key, value in snapshot.items():
                if "/" in key:
                    self.state[key].copy_(torch.tensor(value))
                else:
                    self.state[key] = value

    def packs(self) -> Weights:
        """What would be packed now: the average where there is one. All ranks ask for it."""
        if self.recipe.optim.averages:
            return to_numpy(held(self.optimizer.whole(self.state), "ema"))
        return to_numpy(held(self.state, "weight"))

    def score(self, validation: Validation, phase: int = -1, ask: Ask | None = None) -> Scored:
        """Score the weights that are being trained, the blocks in the order of this phase."""
        settings = self.recipe.score
        nats_of = Evaluator(self.model, phase, settings.protocol in SLIDES).nats
        if self.recipe.score.adapt != "none" and validation.adaptation is not None:
            learner, how = Learner(self.model, validation.adaptation), self.recipe
            given = learner, nats_of, validation, how.arch, settings.batch, how.precision
            return score_adapting(*given, ask, ranks=self.group)
        seq_len = self.recipe.arch.seq_len
        return score(nats_of, validation, seq_len, settings.batch, ask, ranks=self.group)

    def score_weights(
        self, weights: Weights, validation: Validation, ask: Ask | None = None
    ) -> Scored:
        """Score other weights; they take the place of those in training."""
        load_weights(self.model, weights, self.recipe.arch)
        return self.score(validation, -1, ask)

    def calibration(self, weights: Weights, feeder: Feeder, stream: TokenStream) -> Calibration:
        """What the quantizer wants to know of these weights' inputs, from tokens of training or
        from rows that the model writes itself."""
        recipe, quant = self.recipe, self.recipe.quant
        load_weights(self.model, weights, recipe.arch)
        leaves = sorted({*tapped(recipe.arch, quant).values()})
        given = self._own_texts(feeder) if quant.calibration_rows else self._texts(feeder, stream)
        found = moments(self.model, given.batches, leaves, self.group)
        worth = self._worth(given.batches) if quant.steps == "fisher" else {}
        return calibration(recipe.arch, quant, found, worth, given.counts)

    def _texts(self, feeder: Feeder, stream: TokenStream) -> Given:
        """The first steps' batches, in the sizes of the last phase."""
        quant, phase = self.recipe.quant, len(self._sizes) - 1
        tokens = self._sizes[phase].train_batch_tokens
        starts = range(0, quant.calibration_batches * tokens, tokens)
        batches = [batch.x for at in starts for batch in feeder.batch_at(at, phase)]
        return Given(batches, token_counts(stream, self.recipe.arch.vocab_size))

    def _own_texts(self, feeder: Feeder) -> Given:
        """This rank's share of the rows, and the tokens of all ranks'."""
        recipe, group, seq_len = self.recipe, self.group, self._sizes[-1].seq_len
        mine = share(recipe.quant.calibration_rows, group.rank, group.world_size)
        next_logits = Evaluator(self.model).next_logits
        rows = list(written(next_logits, mine, seq_len, recipe.seed))
        counts = counted(np.concatenate(rows), recipe.arch.vocab_size).astype(np.float32)
        return Given([feeder.put(some) for some in rows], group.gather(counts).sum(0))

    def _worth(self, batches: Iterable[Tensor]) -> Moments:
        """Of the outputs of the matrices, from the first rows of these."""
        recipe, group, seq_len = self.recipe, self.group, self._sizes[-1].seq_len
        given = first_rows(batches, seq_len, group.world_size)
        leaves = sorted({*weighed(recipe.arch, recipe.quant).values()})
        return fisher(self.model, given, leaves, group, drawer(recipe.seed, group.rank))

    def _nats_and_grads(
        self,
        weights: dict[str, Tensor],
        batch: MicroBatch,
        phase: int,
        tokens: int,
        by: Rounding | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        nats = self._nats_of(weights, batch, phase, by) / tokens
        more = torch.autograd.grad(nats, [*weights.values()], materialize_grads=True)
        return nats.detach(), dict(zip(weights, more, strict=True))

    def _nats(
        self,
        weights: dict[str, Tensor],
        batch: MicroBatch,
        phase: int,
        by: Rounding | None,
    ) -> Tensor:
        """What is trained on, by the weights as they are or rounded."""
        if by is not None:
            weights = weights | rounded(weights, self._grids, by)
        x, y, cu_seqlens = batch
        given = x, y, phase, self.recipe.optim.z_loss, cu_seqlens
        nats: Tensor = functional_call(self.model, weights, given)
        return nats

    def _with_rate(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        """With what the bits of the weights cost."""
        recipe, weights = self.recipe, parameters(self.model)
        grids = rounded_grids(recipe.arch, recipe.quant, Qat())
        return with_rate(grads, weights, row_steps(weights, grids), recipe.optim.rate_lambda)

    def _rounding(self, step: int) -> Rounding:
        recipe, count = self.recipe, len(self._grids)
        steps = row_steps(parameters(self.model), self._grids)
        if recipe.qat.form == "ste":
            return Rounding(steps, None)
        keys = noise_keys(recipe.seed, step, count).tolist()
        return Rounding(steps, put(keys, self.group.device))


def train(
    recipe: Recipe,
    code_bytes: int,
    now: Callable[[], float],
    events: Events,
    keeper: Keeper,
) -> Finished | None:
    """Train, score, pack and score again; None on every rank but the first."""
    group, clock = open_group(recipe.deterministic), BudgetClock(now)
    lead = Lead(group, keeper)
    corpus = lead.together(partial(open_corpus, recipe))
    keeper.hold_to(data_identity(recipe.data))
    trainer, feeder = Trainer(recipe, group), Feeder(corpus.train, recipe, group)
    main, schedule, state = group.rank == 0, recipe.schedule, trainer.state
    events, keeper = (events, keeper) if main else (silent, keeper.silent())
    on_the_way = corpus.validation.chunked()
    log_start(events, recipe, corpus, "torch", group, attention_choice(group.device, recipe))
    passes_s = warm_up(trainer, feeder, clock)
    log_warmup(events, recipe, passes_s)
    if keeper.snapshot is not None:
        trainer.restore(keeper.snapshot)
        clock.charge("train", state["elapsed_s"])
    if keeper.goes_on:
        log_resumed(events, recipe, state["step"], state["elapsed_s"])
    reader = StepReader(recipe, events, partial(keeper.save, trainer.snapshot))
    clock.begin(lap_s=max(passes_s[-1]) if passes_s else 0.0)
    while True:
        step, elapsed_s = state["step"], state["elapsed_s"]
        step_s, stop, saves = group.max(clock.next_s(), keeper.stops(), keeper.due(step))
        late = out_of_time(schedule.budget_s, elapsed_s, step_s * group.steps_ahead)
        last = step == schedule.steps or late
        scores = validates(recipe, step) and not last
        if last or saves or scores:
            reader.settle()
            (elapsed_s,) = group.max(clock.lap("train"))
            state["elapsed_s"] = elapsed_s
        dials = knobs(recipe, step, elapsed_s, state["snapshots"], state["wd_steer"])
        if saves or last:
            with clock.phase("save"):
                saved = keeper.save(trainer.snapshot)
                group.max(0.0)  # the other ranks wait here, not in their next step
            if saved:
                log_saved(events, recipe, step, elapsed_s, keeper.asked_to_stop)
        if stop:
            group.close()
            raise Stopped(keeper.asked_to_stop)
        if scores:
            scores_now = partial(trainer.score, on_the_way, dials.stage.phase)
            try:
                with clock.phase("score"):
                    seen = look(recipe, scores_now, trainer.packs, code_bytes, lead)
            except Stopped:
                continue  # to where the state is saved
            log_val(events, recipe, step, elapsed_s, *seen, on_the_way)
            state["wd_steer"] = steer(recipe, state["wd_steer"], seen[1], lead)
        if last:
            break
        loss = trainer.step(feeder.batch_at(state["tokens_done"], dials.stage.batch_phase), dials)
        reader.settle()
        (elapsed_s,) = group.max(clock.lap("train"))
        state |= after(recipe, state, dials) | {"elapsed_s": elapsed_s}
        reader.tell(state, loss, dials)
    log_stop(events, recipe, step, elapsed_s)
    weights = trainer.packs()
    keeper.save_weights(weights)
    known, solver = NOTHING, REFERENCE
    if recipe.quant.solver == "gptq":
        with clock.phase("calibrate"):
            known, solver = trainer.calibration(weights, feeder, corpus.train), Solver(group.device)
    rest = (corpus.validation, trainer.score_weights, code_bytes, clock, events, lead, solver)
    try:
        return finish(recipe, weights, known, *rest)
    finally:
        group.close()


def warm_up(trainer: Trainer, feeder: Feeder, clock: BudgetClock) -> list[list[float]]:
    """Seconds of each stage, in each pass over all of them: the first pass compiles."""
    recipe, passes_s = trainer.recipe, list[list[float]]()
    for _ in range(recipe.schedule.warmup_steps):
        passes_s.append([])
        for stage in stages(recipe):
            before_s = clock.seconds("warmup")
            with clock.phase("warmup"):
                trainer.warm_up(feeder.batch_at(0, stage.batch_phase), stage)
            passes_s[-1].append(clock.seconds("warmup") - before_s)
    return passes_s


def _compiles(recipe: Recipe, device: torch.device) -> bool:
    return {"auto": device.type == "cuda", "on": True, "off": False}[recipe.compile]
