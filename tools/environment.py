"""Old commands: the variables of the two reference training scripts, as fields of a recipe.

`NUM_LAYERS=4 ITERATIONS=200 python train_mlx.py` keeps working through the one table below, and
nothing else sets a field of a recipe from the environment. A variable stands above the recipe and
below the command line; whatever it changes is logged with its origin.

What else is read there says where and not what: MATCHED_FINEWEB_REPO_ID and
MATCHED_FINEWEB_REMOTE_ROOT_PREFIX are where `golf data get` fetches from; GOLF_DEVICE=cpu keeps an
engine on the CPU; RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, TORCHELASTIC_RESTART_COUNT,
MLX_RANK and MLX_HOSTFILE are a launcher's; OMP_WAIT_POLICY is set where it is not, and so are
CUBLAS_WORKSPACE_CONFIG for `deterministic=true`, and TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR
for what `golf rehearse` starts. HF_ENDPOINT,
HF_HUB_OFFLINE, HF_TOKEN and LD_PRELOAD are reported by `golf doctor`. A bundle, which has no
command line, takes DATA_PATH, TOKENIZER_PATH, SEED and RUN_ID.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

from core.train.recipe import Recipe
from tools.say import UsageError

Kind = Literal["int", "float", "bool", "str"]
Values = dict[str, Any]  # what is set, typed by its row


@dataclass(frozen=True)
class Variable:
    """One variable and where it goes."""

    name: str
    kind: Kind
    reaches: str  # a field, an --option, or nothing
    note: str = ""  # what becomes of it, where the field does not take it as it is


class Change(NamedTuple):
    """One field set from outside the recipe."""

    field: str
    value: str
    origin: str

    @property
    def word(self) -> str:
        return f"{self.field}={self.value}"


CONTROL = (
    "attn_scale,attn_scales,mlp_scale,mlp_scales,resid_mix,resid_mixes,q_gain,"
    "skip_weight,skip_weights"
)
_POLICY = "what is kept in floats stands in the rows of param_table; only the default is accepted"
_MEMORY = "changed only memory in the reference script, never a number; it has no effect here"

DIRECT = (  # the value is the field's; of two names for a field the later row counts
    Variable("DATA_PATH", "str", "data.path"),
    Variable("TOKENIZER_PATH", "str", "data.tokenizer"),
    Variable("SEED", "int", "seed"),
    Variable("VAL_LOSS_EVERY", "int", "score.val_every_steps"),
    Variable("ITERATIONS", "int", "schedule.steps"),
    Variable("TRAIN_BATCH_TOKENS", "int", "data.train_batch_tokens"),
    Variable("TRAIN_MAX_SEQ_LEN", "int", "arch.seq_len"),
    Variable("TRAIN_SEQ_LEN", "int", "arch.seq_len"),
    Variable("QK_GAIN_INIT", "float", "arch.qk_gain_init"),
    Variable("VOCAB_SIZE", "int", "arch.vocab_size"),
    Variable("NUM_LAYERS", "int", "arch.num_layers"),
    Variable("NUM_KV_HEADS", "int", "arch.num_kv_heads"),
    Variable("MODEL_DIM", "int", "arch.model_dim", "arch.mlp_dim follows"),
    Variable("NUM_HEADS", "int", "arch.num_heads"),
    Variable("TIE_EMBEDDINGS", "bool", "arch.tie_embeddings", "optim.embed_lr follows"),
    Variable("ROPE_BASE", "float", "arch.rope_base"),
    Variable("LOGIT_SOFTCAP", "float", "arch.logit_softcap"),
    Variable("HEAD_LR", "float", "optim.head_lr"),
    Variable("TIED_EMBED_INIT_STD", "float", "arch.tied_embed_init_std"),
    Variable("MATRIX_LR", "float", "optim.matrix_lr"),
    Variable("SCALAR_LR", "float", "optim.scalar_lr"),
    Variable("MUON_MOMENTUM", "float", "optim.momentum"),
    Variable("MUON_BACKEND_STEPS", "int", "optim.ns_steps"),
    Variable("MUON_MOMENTUM_WARMUP_START", "float", "optim.momentum_start"),
    Variable("MUON_MOMENTUM_WARMUP_STEPS", "int", "optim.momentum_warmup_steps"),
    Variable("BETA1", "float", "optim.beta1"),
    Variable("BETA2", "float", "optim.beta2"),
    Variable("ADAM_EPS", "float", "optim.adam_eps"),
    Variable("GRAD_CLIP_NORM", "float", "optim.grad_clip_norm"),
)
RULED = (  # one of the rules in translate.py makes the field's value of it
    Variable("VAL_BATCH_SIZE", "int", "score.batch", "tokens, as windows of seq_len"),
    Variable("TRAIN_LOG_EVERY", "int", "schedule.log_every_steps", "0: the first ten steps"),
    Variable("WARMDOWN_ITERS", "int", "schedule.warmdown", "in steps"),
    Variable("WARMUP_STEPS", "int", "schedule.warmup_steps", "at most 3: they only compile"),
    Variable("MAX_WALLCLOCK_SECONDS", "float", "schedule.budget_s", "0 or less: no limit"),
    Variable("MLP_MULT", "float", "arch.mlp_dim", "times model_dim"),
    Variable("EMBED_LR", "float", "optim.embed_lr", "where the embedding is not tied"),
    Variable("TIED_EMBED_LR", "float", "optim.embed_lr", "where the embedding is tied"),
    Variable("GRAD_ACCUM_STEPS", "int", "data.micro_batch", "parts of a step's sequences"),
    Variable("MLX_MAX_MICROBATCH_TOKENS", "int", "data.micro_batch", "tokens, as sequences"),
)
OTHERS = (  # options of the command, and what has no field
    Variable("RUN_ID", "str", "--run-id"),
    Variable("OUT_DIR", "str", "--runs"),
    Variable("MLX_EAGER_EVAL", "bool", "", _MEMORY),
    Variable("LOGIT_CHUNK_TOKENS", "int", "", _MEMORY),
    Variable("CONTROL_TENSOR_NAME_PATTERNS", "str", "", _POLICY),
    Variable("INT8_KEEP_FLOAT_FP32_NAME_PATTERNS", "str", "", _POLICY),
)
VARIABLES = (*DIRECT, *RULED, *OTHERS)  # all 45 of the two scripts
FROM_RECORDS = (  # common in the records' scripts; rules read those with a note
    Variable("EMA_DECAY", "float", "optim.ema_decay"),
    Variable("MIN_LR", "float", "schedule.lr_floor"),
    Variable("COMPRESSOR", "str", "quant.codec"),
    Variable("WARMDOWN_FRAC", "float", "schedule.warmdown", "of the whole run"),
    Variable("ROPE_DIMS", "int", "arch.rope_dims", "0: all of a head"),
)
NOT_YET = (
    *("EVAL_STRIDE", "EVAL_SEQ_LEN", "MUON_WD", "ADAM_WD", "EMBED_WD", "XSA_LAST_N", "LN_SCALE"),
    *("DATA_DIR", "MATRIX_BITS", "EMBED_BITS", "GPTQ_RESERVE_SECONDS", "GPTQ_CALIBRATION_BATCHES"),
    *("TTT_ENABLED", "NUM_LOOPS", "LOOP_START", "LOOP_END", "BIGRAM_VOCAB_SIZE", "CASEOPS_ENABLED"),
)
SCRIPT_DEFAULTS = {  # of the MLX script, where they differ from the baseline's
    "torch": {},
    "mlx": {"VAL_LOSS_EVERY": "0", "MLX_MAX_MICROBATCH_TOKENS": "8192"},
}
KNOWN = {row.name: row for row in (*VARIABLES, *FROM_RECORDS)}
PLACES = ("DATA_PATH", "TOKENIZER_PATH", "SEED", "RUN_ID", "OUT_DIR")  # of any command, old or not
# Everyday names that are near a known one, or belong to another program.
_ORDINARY = re.compile(
    r"(CUDA|MLX|OMP|MKL|LC|CONDA|NCCL|TORCH|PYTORCH|HF|XDG|SLURM|SM|GIT|SSH|NVIDIA)_|MODEL_DIR$"
)


def variables() -> Mapping[str, str]:
    """The environment, for those who report what is in it."""
    return dict(os.environ)


def leave(code: int) -> NoReturn:
    """End the process. One rank of several leaves at once when all is said: at the usual end of
    Python a thread of its communication may still run, and aborts what has succeeded."""
    if of_several(os.environ):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def hub_source(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the variables of the reference downloader say that the published data is."""
    found = {}
    if environ.get("MATCHED_FINEWEB_REPO_ID"):
        found["repo_id"] = environ["MATCHED_FINEWEB_REPO_ID"]
    if "MATCHED_FINEWEB_REMOTE_ROOT_PREFIX" in environ:  # empty: the top of the repository
        found["remote_root"] = environ["MATCHED_FINEWEB_REMOTE_ROOT_PREFIX"]
    return found


def rank_of(environ: Mapping[str, str]) -> str:
    """Which of a run's processes this is, by its launcher."""
    return environ.get("RANK", environ.get("MLX_RANK", "0"))


def of_several(environ: Mapping[str, str]) -> bool:
    """Whether torchrun started this process as one of several."""
    return int(environ.get("WORLD_SIZE", "1")) > 1


def leads(environ: Mapping[str, str]) -> bool:
    """Whether this process is the first of its run: the one that talks."""
    return rank_of(environ) == "0"


def leads_node(environ: Mapping[str, str]) -> bool:
    """Whether it is the first on its machine; mlx.launch does not say, and starts one on each."""
    return environ.get("LOCAL_RANK", environ.get("RANK", "0")) == "0"


def read(environ: Mapping[str, str]) -> Values:
    """The known variables that are set and not empty, typed."""
    return {name: _typed(row, environ[name]) for name, row in KNOWN.items() if environ.get(name)}


def old_command(values: Values) -> str | None:
    """The first variable that only an old command sets; None where there are but places."""
    return next((name for name in values if name not in PLACES), None)


def option(values: Values, name: str) -> str | None:
    """What stands for the command-line option `name`, as --run-id."""
    found = [values[row.name] for row in VARIABLES if row.reaches == name and row.name in values]
    return found[0] if found else None


def remarks(environ: Mapping[str, str], settled: Recipe) -> list[str]:
    """What a user should know of variables that do less than they say, or nothing."""
    said = [f"{row.name}: {row.note}" for row in OTHERS if row.note and environ.get(row.name)]
    tied, schedule = settled.arch.tie_embeddings, settled.schedule
    if environ.get(idle := "EMBED_LR" if tied else "TIED_EMBED_LR"):
        said.append(f"{idle} has no effect: the embedding is {'' if tied else 'not '}tied")
    falls = schedule.warmdown_unit == "steps" and schedule.warmdown > schedule.steps
    if environ.get("ITERATIONS") and falls and not schedule.budget_s:  # else by the clock alone
        said.append(
            f"the rates fall from the first step on: schedule.warmdown is {schedule.warmdown:g} "
            f"steps, the run {schedule.steps}, without a time limit; WARMDOWN_ITERS=0 holds them"
        )
    return said + _without_effect(environ)


def _without_effect(environ: Mapping[str, str]) -> list[str]:
    """The names that belong to records, and those that look misspelt."""
    said = []
    for name in sorted(environ):
        if name in NOT_YET or name.startswith("TTT_"):
            said.append(f"{name} is a variable of the records; not supported yet, it has no effect")
        elif meant := misspelt(name):
            said.append(f"{name} is not known and has no effect; did you mean {meant}?")
    return said


def misspelt(name: str) -> str | None:
    """The known variable that `name` seems to be meant for."""
    names = (*KNOWN, *NOT_YET)
    looks = re.fullmatch(r"[A-Z][A-Z0-9_]{4,}", name) and not _ORDINARY.match(name)
    if name in names or not looks:
        return None
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.86)
    return near[0] if near else None


def _typed(row: Variable, text: str) -> Any:
    """The value that `text` spells; a policy in words is refused unless it is the reference's."""
    if row.note == _POLICY:
        need(text == CONTROL, row.name, text, f"{CONTROL!r}: {_POLICY}")
    if row.kind == "bool":
        need(text in ("0", "1"), row.name, text, "0 or 1")
        return text == "1"
    if row.kind == "str":
        return text
    what = {"int": "a whole number", "float": "a number"}[row.kind]
    try:
        return {"int": int, "float": float}[row.kind](text)
    except ValueError:
        raise UsageError(f"{row.name}={text}: expected {what}") from None


def need(holds: bool, name: str, text: str, what: str) -> None:
    if not holds:
        raise UsageError(f"{name}={text}: expected {what}")
