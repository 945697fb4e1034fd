"""Bytes of whole models at equal loss: python -m tests.bench_quant --help.

The field's way, SDClip with its k tuned for each role, GPTQ and brotli, against steps by column, by
Fisher weights, a trellis and rANS. Hessians and Fisher weights are from training tokens, k is tuned
on other training tokens, at equal bits, losses are of validation documents that neither has
seen. What is kept of each run lies in its folder, in bench_quant.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.params import Weights, param_table
from core.artifact.allocation import anisotropy
from core.artifact.container import Artifact, weights_in, write
from core.artifact.packed import matrix_shape
from core.artifact.quant import Quant
from core.artifact.solving import Calibration, solve
from core.artifact.sums import Solver
from core.data.shards import open_split
from core.score.scoring import Validation, score
from core.train.corpus import open_corpus
from core.train.recipe import Recipe, with_changes
from core.train.run_folder import load_recipe, load_weights
from tests.quantizers import saving

Point = dict[str, float]  # bits and brotli_bits a weight, kl in nats a token, gap in BPB, seconds
SDCLIP = Quant(
    attn="int6",
    mlp="int6",
    attn_sigmas=12.85,
    mlp_sigmas=12.85,
    embed_sigmas=20.0,
    keep_below=4096,
    codec="rans",
    solver="gptq",
)
SCALES = (0.7, 1.0, 1.5, 2.2)
TILT = 2.0**0.5  # between two k that are tried
TRIES = 24  # of step scales
NEAR_BITS = 0.002  # a weight: at a slope of 6 dB a bit, 0.3 % of KL
FIRST, FIELD = "SDClip", "SDClip, brotli"
RULES: dict[str, dict[str, Any]] = {  # beside the k that are tuned for SDClip, and for columns
    FIRST: {},
    "SDClip, 8 states": {"trellis": 8},
    "columns": {"steps": "columns"},
    "columns, 8 states": {"steps": "columns", "trellis": 8},
    "Fisher": {"steps": "fisher"},
    "Fisher, 8 states": {"steps": "fisher", "trellis": 8},
}
HEAD = ("quantizer", "bits", "KL", "at equal KL", "", "against the field's, equal KL", "equal BPB")
MEASURED = ("solver=gptq", "steps=fisher", "step_scale=0.01", "calibration_batches=4")


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A trained model, what is known of it, and what is lost where other weights take its place."""

    recipe: Recipe
    weights: Weights
    known: Calibration
    solver: Solver
    tuned_by: Callable[[Weights], float]  # KL on training tokens
    kl: Callable[[Weights], float]  # on validation documents
    bpb: Callable[[Weights], float]  # on twice as many tokens: a gap in it is noisier than a KL
    whole_bpb: float

    @property
    def size(self) -> int:
        return sum(row.size for row in param_table(self.recipe.arch))

    def solved(self, quant: Quant) -> tuple[Artifact, Weights]:
        tensors = solve(self.weights, self.recipe.arch, quant, self.known, self.solver)
        artifact = Artifact(self.recipe.arch, tuple(tensors))
        return artifact, weights_in(write(artifact, "zlib"), self.recipe.arch)

    def bits(self, artifact: Artifact, codec: str) -> float:
        return 8 * len(write(artifact, codec)) / self.size


def open_run(folder: Path, tokens: int) -> Subject:
    from backend_torch.distributed import Solo
    from backend_torch.evaluate import open_evaluator
    from backend_torch.feeder import Feeder
    from backend_torch.loop import Trainer
    from backend_torch.solve import Solver as TorchSolver
    from tests.tapped import divergence_of

    recipe, weights = load_recipe(folder), load_weights(folder)
    recipe = with_changes(recipe, [f"score.limit_tokens={2 * tokens}", "precision=fp32"])
    measured = replace(recipe, quant=replace(SDCLIP, **_plain(MEASURED)))
    corpus, group = open_corpus(recipe), Solo()
    feeder = Feeder(corpus.train, measured, group)
    known = Trainer(measured, group).calibration(weights, feeder, corpus.train)

    def bpb(found: Weights) -> float:
        evaluator, arch = open_evaluator(found, recipe.arch, "fp32"), recipe.arch
        return score(evaluator.nats, corpus.validation, arch.seq_len, 8).val_bpb

    return Subject(
        recipe=recipe,
        weights=weights,
        known=known,
        solver=TorchSolver(group.device),
        tuned_by=divergence_of(recipe, weights, _last_rows(recipe, tokens // 4)),
        kl=divergence_of(recipe, weights, _first_rows(corpus.validation, recipe, tokens)),
        bpb=bpb,
        whole_bpb=bpb(weights),
    )


def _plain(words: tuple[str, ...]) -> dict[str, Any]:
    """Fields of Quant as they are given in words."""
    quant = with_changes(Recipe(), [f"quant.{word}" for word in words]).quant
    return {word.split("=")[0]: getattr(quant, word.split("=")[0]) for word in words}


def _last_rows(recipe: Recipe, tokens: int) -> np.ndarray:
    """Of the training split: the Hessians are of others."""
    stream, time_ = open_split(Path(recipe.data.path), "train"), recipe.arch.seq_len
    rows = tokens // time_
    return stream.slice(len(stream) - rows * time_, len(stream)).astype(np.int32).reshape(rows, -1)


def _first_rows(validation: Validation, recipe: Recipe, tokens: int) -> np.ndarray:
    rows = min(tokens, len(validation.stream)) // recipe.arch.seq_len
    held = validation.stream.slice(0, rows * recipe.arch.seq_len)
    return held.astype(np.int32).reshape(rows, -1)


def tuned(subject: Subject, base: Quant) -> Quant:
    """The k of attention and of embeddings of least KL beside that of the MLP, at equal bits.

    One after the other, twice, by a factor up or down for as long as that helps.
    """
    wanted = subject.bits(subject.solved(base)[0], "rans")

    def loss(quant: Quant) -> float:
        return subject.tuned_by(at_bits(subject, quant, wanted)[1])

    least = loss(base)
    for name, factor in 2 * list(product(("attn_sigmas", "embed_sigmas"), (TILT, 1 / TILT))):
        while (found := loss(tilted := _tilted(base, name, factor))) < least:
            base, least = tilted, found
    return base


def _tilted(quant: Quant, name: str, factor: float) -> Quant:
    return replace(quant, **{name: getattr(quant, name) * factor})


def at_bits(subject: Subject, quant: Quant, wanted: float) -> tuple[Quant, Weights]:
    """With the step scale that takes so many bits a weight, or the nearest of TRIES.

    Steps of twice the size save about one; of a small model bits move in jumps.
    """
    nearest, found = math.inf, (quant, subject.weights)
    for _ in range(TRIES):
        artifact, weights = subject.solved(quant)
        miss = subject.bits(artifact, "rans") - wanted
        if abs(miss) < nearest:
            nearest, found = abs(miss), (quant, weights)
        if nearest < NEAR_BITS:
            break
        quant = replace(quant, step_scale=quant.step_scale * 2.0**miss)
    return found


def points(subject: Subject, quant: Quant) -> list[Point]:
    """At each step scale; brotli has the levels as they are."""
    found = []
    for scale in SCALES:
        start_s = time.process_time()
        artifact, held = subject.solved(replace(quant, step_scale=quant.step_scale * scale))
        seconds = time.process_time() - start_s
        found.append(
            {
                "bits": subject.bits(artifact, "rans"),
                "brotli_bits": subject.bits(artifact, "brotli"),
                "kl": subject.kl(held),
                "gap": subject.bpb(held) - subject.whole_bpb,
                "seconds": seconds,
            }
        )
    return found


def unit_of(subject: Subject, quant: Quant) -> Quant:
    """Fisher steps have one constant: the one of as many bits as SDClip's at a step scale of 1."""
    wanted = subject.bits(subject.solved(SDCLIP)[0], "rans")
    return at_bits(subject, quant, wanted)[0]


def measure(folder: Path, tokens: int, names: list[str]) -> dict[str, Any]:
    """All rules on one run; what was measured before is not measured again."""
    kept = folder / "bench_quant.json"
    told = json.loads(kept.read_text()) if kept.exists() else {}
    if told.get("tokens") != tokens:
        told = {"tokens": tokens, "rules": {}}
    if any(name not in told["rules"] for name in names):
        subject = open_run(folder, tokens)
        told |= {"bpb": subject.whole_bpb, "size": subject.size, "why": why(subject)}
        for name in names:
            if name in told["rules"]:
                continue
            quant = replace(SDCLIP, **RULES[name])
            alike = told.setdefault("tuned", {})  # a trellis has the steps of what it is beside
            if quant.steps not in alike:
                plain = replace(quant, trellis=0)
                plain = (
                    unit_of(subject, plain) if quant.steps == "fisher" else tuned(subject, plain)
                )
                alike[quant.steps] = _tuned_words(plain)
            quant = replace(quant, **alike[quant.steps])
            told["rules"][name] = {"quant": _tuned_words(quant), "points": points(subject, quant)}
            kept.write_text(json.dumps(told, indent=1))
            print(f"{folder.name} {name}: {told['rules'][name]}", file=sys.stderr, flush=True)
    return told


def _tuned_words(quant: Quant) -> dict[str, float]:
    names = ("attn_sigmas", "mlp_sigmas", "embed_sigmas", "step_scale")
    return {name: round(getattr(quant, name), 6) for name in names}


def why(subject: Subject) -> dict[str, dict[str, float]]:
    """Bits a weight that unlike steps are worth, by kind of matrix: the mean of its blocks'."""
    found: dict[str, list[dict[str, float]]] = {}
    for row in param_table(subject.recipe.arch):
        if row.name in subject.known.hessians:
            rows, cols = matrix_shape(row.shape)
            weight = np.asarray(subject.weights[row.name]).reshape(rows, cols)
            offers = anisotropy(weight, subject.known.worth(row.name, cols))
            kind = ".".join(part for part in row.name.split(".") if not part.isdigit())
            found.setdefault(kind, []).append(offers)
    return {
        kind: {key: float(np.mean([one[key] for one in offers])) for key in offers[0]}
        for kind, offers in found.items()
    }


def table(seeds: list[dict[str, Any]], names: list[str]) -> None:
    """Prints the mean over the seeds, and each seed's own saving in bytes."""
    print(f"| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 1)}")
    first = [[(p["brotli_bits"], p["kl"]) for p in _of(seed, FIRST)] for seed in seeds]
    for name in (FIELD, *names):
        bits_key, rule = ("brotli_bits", FIRST) if name == FIELD else ("bits", name)
        own = [_of(seed, rule) for seed in seeds]
        kls = [[(p[bits_key], p["kl"]) for p in one] for one in own]
        plain = [[(p["bits"], p["kl"]) for p in _of(seed, FIRST)] for seed in seeds]
        gaps = [_gaps(one, bits_key) for one in own]
        theirs = [_gaps(_of(seed, FIRST), "brotli_bits") for seed in seeds]
        middle = [one[SCALES.index(1.0)] for one in own]
        cells = [name, _mean(p[bits_key] for p in middle), _mean((p["kl"] for p in middle), 5)]
        cells += [_savings(plain, kls, 0), _savings(plain, kls, 1)]
        cells += [_savings(first, kls, 1), _savings(theirs, gaps, 1)]
        print(f"| {' | '.join(cells)} |")
    print()
    for kind in seeds[0]["why"]:
        offers = seeds[0]["why"][kind]
        told = [
            f"{key} {_mean(seed['why'][kind][key] for seed in seeds)}" for key in sorted(offers)
        ]
        print(f"| {kind} | {' | '.join(told)} |")


def _gaps(points_: list[Point], bits: str) -> list[tuple[float, float]]:
    """Without the points at which chance made the packed model better."""
    return [(p[bits], p["gap"]) for p in points_ if p["gap"] > 0]


def _of(seed: dict[str, Any], rule: str) -> list[Point]:
    found: list[Point] = seed["rules"][rule]["points"]
    return found


def _mean(values: Any, digits: int = 3) -> str:
    return f"{float(np.mean(list(values))):.{digits}f}"


def _savings(theirs: list[Any], ours: list[Any], part: int) -> str:
    """Mean over the seeds, and each seed's in brackets where there are several."""
    told = [saving(a, b)[part] for a, b in zip(theirs, ours, strict=True)]
    values = [float(one.strip("<>% ")) for one in told]
    end = " %" if part else ""
    one = f"{np.mean(values):.{3 - 2 * part}f}{end}"
    return one if len(told) == 1 else f"{one} ({', '.join(f'{v:g}' for v in values)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="of tests.quant_models")
    parser.add_argument("--tokens", type=int, default=32_768, help="of validation documents")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    args = parser.parse_args()
    names = [FIRST, *(name for name in args.rules if name != FIRST)]
    seeds = [measure(folder, args.tokens, names) for folder in args.runs]
    table(seeds, names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
