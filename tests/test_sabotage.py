"""Breaks the code on purpose, one line at a time, in a copy: a test must fail each time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("core", "backend_torch", "backend_mlx", "tools", "tests", "pyproject.toml")
COPIED += ("train_torch.py", "train_mlx.py")


@dataclass(frozen=True)
class Break:
    """In the files of `file`, `old` becomes `new`; one of `tests` must fail."""

    file: str
    old: str
    new: str
    tests: str


ALIKE = "tests/parity/test_ladder.py -k baseline or control"


def both(file: str) -> str:
    """The same file of both backends."""
    return f"backend_torch/{file}.py backend_mlx/{file}.py"


LADDER = "tests/parity/test_ladder.py tests/parity/test_verbs.py -k baseline or verb or torchs"
BREAKS = {
    "rotate the other way": Break(
        "backend_mlx/ops.py", "x1 * cos + x2 * sin", "x1 * cos - x2 * sin", LADDER
    ),
    "rotate both the other way": Break(
        "core/arch/rope.py", "np.sin(angles)", "np.sin(-angles)", "tests/core/test_arch.py"
    ),
    "another norm epsilon": Break(
        "backend_mlx/ops.py", "rms_norm(x, None, eps)", "rms_norm(x, None, 1e-6)", LADDER
    ),
    "another norm epsilon in core": Break(
        "core/arch/spec.py", "1.1920929e-07", "1e-06", "tests/core/test_recipe.py"
    ),
    "an average in place of heavy-ball momentum": Break(
        "backend_torch/muon.py",
        "momentum = beta * momentum + grad",
        "momentum = beta * momentum + (1 - beta) * grad",
        LADDER,
    ),
    "no bias correction": Break(
        "backend_mlx/adam.py", "lr / mean_left * mean", "lr * mean", "tests/parity -k adam"
    ),
    "epsilon inside the root": Break(
        "backend_torch/adam.py",
        "torch.sqrt(square)",
        "torch.sqrt(square + eps)",
        "tests/parity -k adam",
    ),
    "another leaky slope": Break(
        "backend_mlx/ops.py", "x * slope)", "x * 0.01)", "tests/parity -k leaky_relu2"
    ),
    "a table that is trained": Break("backend_mlx/model.py", "self._cos", "self.cos", LADDER),
    "an argument renamed on one side": Break(
        "backend_mlx/ema.py", "decay: array", "rate: array", "tests/test_mirror.py"
    ),
    "a registry entry gone on one side": Break(
        "backend_mlx/ops.py", '    "leaky_relu2": leaky_relu2,\n', "", "tests/parity -k registries"
    ),
    "x0 and x mixed the wrong way, on both sides": Break(
        both("block"), "mix[0] * x + mix[1] * x0", "mix[1] * x + mix[0] * x0", ALIKE
    ),
    "no last norm, on both sides": Break(
        both("model"),
        "        return rms_norm(x, self.spec.norm_eps)\n\n    def token_nats",
        "        return x\n\n    def token_nats",
        ALIKE,
    ),
    "keys that are not normalised, on both sides": Break(
        both("block"),
        "k = rotate(rms_norm(k, self.spec.norm_eps), given.cos, given.sin)",
        "k = rotate(k, given.cos, given.sin)",
        ALIKE,
    ),
    "one rate for all of Adam": Break(
        "core/train/schedules.py", '"scalar": optim.scalar_lr', '"scalar": optim.embed_lr', ALIKE
    ),
    "no momentum warm-up, on both sides": Break(
        both("optimizer"), 'beta=dials["momentum"]', "beta=self.optim.momentum", ALIKE
    ),
    "Adam a step late": Break(
        "core/train/schedules.py",
        "beta2 ** (knobs.step + 1)",
        "beta2 ** (knobs.step + 2)",
        ALIKE,
    ),
    "live weights packed for their averages, on both sides": Break(
        both("loop"),
        'held(self.optimizer.whole(self.state), "ema")',
        'held(self.optimizer.whole(self.state), "weight")',
        "tests/test_resume.py -k come_when_they_are_due",
    ),
    "gradients that no rank adds up": Break(
        "backend_torch/distributed.py",
        "        dist.all_reduce(flat)\n",
        "",
        "tests/test_many_ranks.py -k torch",
    ),
    "a manifest that nobody holds the files to": Break(
        "core/data/export.py",
        "if sha != wanted[name]:",
        "if False:",
        "tests/core/test_score.py",
    ),
    "tensors that the model has not": Break(
        "core/artifact/header.py",
        "_check_table(rows, spec)\n",
        "pass\n",
        "tests/core/test_container.py",
    ),
    "a backend that imports its twin": Break(
        "backend_mlx/ema.py",
        "from mlx.core import array",
        "from backend_torch.ema import ema as twin\nfrom mlx.core import array",
        "tests/test_rooms.py",
    ),
    "core that imports a framework": Break(
        "core/score/bpb.py", "import math", "import math\nimport torch", "tests/test_rooms.py"
    ),
    "the tail window dropped": Break(
        "core/score/windows.py",
        "-((seq_len - lengths) // stride)",
        "(lengths - seq_len) // stride",
        "tests/core/test_score.py",
    ),
    "a context that reaches across documents": Break(
        "core/score/protocols.py",
        "documents(stream) if self.name in ISOLATES",
        "documents(stream) if not ISOLATES",
        "tests/core/test_protocols.py",
    ),
    "the first positions asked for, on both sides": Break(
        both("block"),
        "x[:, -self.last :]",
        "x[:, : self.last]",
        "tests/parity/test_evaluate.py -k baseline",
    ),
    "the last queries turned as the first, on both sides": Break(
        both("block"),
        "self.cos[-self.last :], self.sin[-self.last :]",
        "self.cos[: self.last], self.sin[: self.last]",
        "tests/parity/test_evaluate.py -k baseline",
    ),
    "a scorer that learns before it scores": Break(
        "core/score/tape.py",
        "if state_hash(scorer) != self.state_hash:",
        "if False:",
        "tests/core/test_tape.py",
    ),
    "ranks in another order": Break(
        "core/score/tape.py",
        "zip(turn, given, strict=False)",
        "zip(turn, given[::-1], strict=False)",
        "tests/core/test_tape.py",
    ),
    "a mixture that knows its token": Break(
        "core/score/mixture.py",
        "sliding_window_view(self._cache, order)[:-1]",
        "sliding_window_view(self._cache, order)[1:]",
        "tests/core/test_mixture.py",
    ),
    "a space counted twice": Break(
        "core/data/token_bytes.py",
        "return self.base_bytes[targets] + spaces",
        "return self.base_bytes[targets] + spaces + self.leading_space[targets]",
        "tests/core/test_token_bytes.py",
    ),
    "a byte piece by its printed name": Break(
        "core/data/token_bytes.py",
        'return 1 if piece.kind == "byte"',
        'return 6 if piece.kind == "byte"',
        "tests/core/test_token_bytes.py",
    ),
    "levels from the scale before it is rounded": Break(
        "core/artifact/rounding.py",
        "weight / _values(scale, grid)[:, None]",
        "weight / (grid.reach(weight) / grid.qmax + 1e-38)[:, None]",
        "tests/core/test_quant.py",
    ),
    "the floor under the scales forgotten": Break(
        "core/artifact/rounding.py",
        "np.float32(grid.floor)",
        "np.float32(0)",
        "tests/core/test_quant.py",
    ),
    "a sigma whose sum has an order": Break(
        "core/artifact/grid.py",
        "np.sum(fixed * fixed, axis=1)",
        "np.sum((fixed * fixed).astype(np.float32), axis=1)",
        "tests/core/test_quant.py",
    ),
    "streams that may end anywhere": Break(
        "core/artifact/rans.py",
        "if len(words) or np.any(states != LOW)",
        "if False",
        "tests/core/test_rans.py",
    ),
    "more tables than a byte counts": Break(
        "core/artifact/rans.py", "len(share) > LOW or ", "", "tests/core/test_rans.py"
    ),
    "errors that stay in their block": Break(
        "core/artifact/sums.py",
        "weight[:, end:] -= lost",
        "weight[:, end:] -= 0 * lost",
        "tests/core/test_gptq.py",
    ),
    "errors that stay in their half, on both sides": Break(
        both("solve"), "@ first[1]", "@ (0 * first[1])", "tests/parity/test_solve.py"
    ),
    "a path that starts anywhere, on both sides": Break(
        both("solve"),
        "costs[0, :states]",
        "costs[0, -states:]",
        "tests/parity/test_solve.py -k best_path",
    ),
    "a payload in another order": Break(
        "core/artifact/streams.py",
        "sha256()",
        "sha256(b' ')",
        "tests/core/test_container.py",
    ),
    "batches that miss a row": Break(
        "core/data/batches.py", "np.array_split", "np.split", "tests/core/test_batches.py"
    ),
    "a first weight moved": Break(
        "core/arch/noise.py", "np.uint64(30)", "np.uint64(29)", "tests/core/test_arch.py"
    ),
    "documents without their windows": Break(
        both("attend"),
        "window, doc_mask=False",
        "0, doc_mask=False",
        "tests/parity/test_documents.py",
    ),
    "a schedule moved": Break(
        "core/train/schedules.py", "(1.0 - risen)", "(1.1 - risen)", "tests/core/test_schedules.py"
    ),
    "a clock that stops after the budget": Break(
        "core/train/clock.py",
        "elapsed_s + step_s > budget_s",
        "elapsed_s > budget_s",
        "tests/core/test_schedules.py",
    ),
    "a cap of 16 MiB": Break(
        "core/artifact/ledger.py", "16_000_000", "16_777_216", "tests/core/test_ledger.py"
    ),
    # Each technique's own line, alike on both engines: the case of its name must fail.
    **{
        f"without {case}, on both sides": Break(both(file), old, new, f"tests/parity -k {case}")
        for case, (file, old, new) in {
            "xsa": ("block", "y = exclusive(y, given.asked(v))", "y = y"),
            "attn_gate": ("ops", "scale * logits", "logits"),
            "ln_scale": ("block", "x * self.norm_scale if", "x if"),
            "parallel": ("block", "attended(x, given) + layer.fed(asked)", "attended(x, given)"),
            "lanes": ("block", "post[1, 0] * m\n    return x, resid", "m\n    return x, resid"),
            "lanes_in_turn": ("block", "layer.mixed(lane, given.x0)", "lane"),
            "skip_gates": ("model", "share * x + (1.0 - share) * skip", "x + skip"),
            "universal": ("model", "self.step_emb[visit.position]", "self.step_emb[0]"),
            "partial_tying": ("model", "self.blocks[visit.mlp]", "self.blocks[visit.attn]"),
            "visit_scale": ("model", "self.visit_scale[visit.position]", "self.visit_scale[0]"),
            "random": ("linear", "project(x, self._frozen)\n", "0.0 * project(x, self._frozen)\n"),
            "smear_content": ("model", "share * before(x, tokens)", "before(x, tokens)"),
            "smear_static": ("model", "(before(x, tokens) - x)", "before(x, tokens)"),
            "bigram": ("ops", "27191 * earlier", "27191 * tokens"),
            "doc_mask": ("attend", "if doc_mask:\n        document", "if False:\n        document"),
            "windows": ("attend", "back < window", "back <= window"),
            "value_residual": ("block", "v + share * given", "v + given"),
            "value_embed": ("block", "if self.takes_rows and", "if False and"),
            "poly5": ("ops", "3.0 * square - 10.0", "2.0 * square - 10.0"),
            "head_bias": ("model", "logits + self.head_bias", "logits"),
            "swiglu": ("block", "h = h * self.gate(x)", "h = h"),
            "factored": ("model", "x = self.embed_out(x)", "x = x[..., : self.spec.embed_dim]"),
            "ternary": ("linear", "scale * levels", "levels"),
            "row_norm": ("muon", "update = unit_rows(update)", "update = update"),
            "normuon": ("muon", "update, square = even_rows", "_, square = even_rows"),
            "weight_decay": ("muon", "else move + decay * weight", "else move"),
            "z_loss": ("loop", "self.recipe.optim.z_loss", "0.0"),
            "looped": ("model", "self._plans[phase]", "self._plans[0]"),
            "qat": ("qat", "reach / grid.qmax", "reach / (grid.qmax + 1)"),
            "qat_noise": ("qat", "x ^ (x >> 15)", "x ^ (x >> 14)"),
            "swa": ("ema", "(1.0 - decay) * weight", "weight"),
            "batch_schedule": ("loop", "self._sizes[stage.batch_phase]", "self._sizes[0]"),
        }.items()
    },
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without its history, and beside it what stands beside the real one."""
    folder = tmp_path_factory.mktemp("broken") / "project"
    folder.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.so")
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, folder / name, **({"ignore": skip} if source.is_dir() else {})
        )
    return folder


def failures(folder: Path, tests: str) -> int:
    """pytest's exit code: 0 all passed, 1 some failed."""
    files, _, words = tests.partition(" -k ")
    chosen = ["-k", words] if words else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow",
        *files.split(),
        *chosen,
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_caught(copy: Path, name: str) -> None:
    broken = BREAKS[name]
    whole = {copy / file: (copy / file).read_text("utf-8") for file in broken.file.split()}
    for path, text in whole.items():
        assert broken.old in text, f"{path.name} no longer says {broken.old!r}"
        path.write_text(text.replace(broken.old, broken.new), encoding="utf-8")
    try:
        assert failures(copy, broken.tests) == 1
    finally:
        for path, text in whole.items():
            path.write_text(text, encoding="utf-8")
