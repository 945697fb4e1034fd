"""Old commands: each of the 45 variables reaches its field, and the README's two commands run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from core.train.recipe import Recipe
from core.train.recipes import RECIPES, baseline
from core.train.schedules import lr_mul
from tools.environment import CONTROL, NOT_YET, VARIABLES, misspelt
from tools.recipes import Settled, settle
from tools.say import UsageError

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30

REACHES: dict[str, tuple[str, dict[str, Any]]] = {
    # variable: a value that is not the baseline's, and every field that differs then
    "DATA_PATH": ("d", {"data.path": "d"}),
    "TOKENIZER_PATH": ("t", {"data.tokenizer": "t"}),
    "RUN_ID": ("r", {}),
    "SEED": ("7", {"seed": 7}),
    "VAL_BATCH_SIZE": ("8192", {"score.batch": 8}),
    "VAL_LOSS_EVERY": ("250", {"score.val_every_steps": 250}),
    "TRAIN_LOG_EVERY": ("10", {"schedule.log_every_steps": 10}),
    "ITERATIONS": ("200", {"schedule.steps": 200}),
    "WARMDOWN_ITERS": ("50", {"schedule.warmdown": 50.0}),
    "WARMUP_STEPS": ("20", {"schedule.warmup_steps": 3}),
    "TRAIN_BATCH_TOKENS": ("8192", {"data.train_batch_tokens": 8192}),
    "TRAIN_SEQ_LEN": ("512", {"arch.seq_len": 512}),
    "MAX_WALLCLOCK_SECONDS": ("0", {"schedule.budget_s": 0.0}),
    "QK_GAIN_INIT": ("5.25", {"arch.qk_gain_init": 5.25}),
    "VOCAB_SIZE": ("8192", {"arch.vocab_size": 8192}),
    "NUM_LAYERS": ("4", {"arch.num_layers": 4}),
    "NUM_KV_HEADS": ("2", {"arch.num_kv_heads": 2}),
    "MODEL_DIM": ("256", {"arch.model_dim": 256, "arch.mlp_dim": 512}),
    "NUM_HEADS": ("16", {"arch.num_heads": 16}),
    "MLP_MULT": ("3", {"arch.mlp_dim": 1536}),
    "TIE_EMBEDDINGS": ("0", {"arch.tie_embeddings": False, "optim.embed_lr": 0.6}),
    "ROPE_BASE": ("5000", {"arch.rope_base": 5000.0}),
    "LOGIT_SOFTCAP": ("20", {"arch.logit_softcap": 20.0}),
    "EMBED_LR": ("0.3", {}),
    "HEAD_LR": ("0.01", {"optim.head_lr": 0.01}),
    "TIED_EMBED_LR": ("0.03", {"optim.embed_lr": 0.03}),
    "TIED_EMBED_INIT_STD": ("0.02", {"arch.tied_embed_init_std": 0.02}),
    "MATRIX_LR": ("0.02", {"optim.matrix_lr": 0.02}),
    "SCALAR_LR": ("0.01", {"optim.scalar_lr": 0.01}),
    "MUON_MOMENTUM": ("0.99", {"optim.momentum": 0.99}),
    "MUON_BACKEND_STEPS": ("4", {"optim.ns_steps": 4}),
    "MUON_MOMENTUM_WARMUP_START": ("0.92", {"optim.momentum_start": 0.92}),
    "MUON_MOMENTUM_WARMUP_STEPS": ("1500", {"optim.momentum_warmup_steps": 1500}),
    "BETA1": ("0.8", {"optim.beta1": 0.8}),
    "BETA2": ("0.99", {"optim.beta2": 0.99}),
    "ADAM_EPS": ("1e-10", {"optim.adam_eps": 1e-10}),
    "GRAD_CLIP_NORM": ("0.3", {"optim.grad_clip_norm": 0.3}),
    "CONTROL_TENSOR_NAME_PATTERNS": (CONTROL, {}),
    "INT8_KEEP_FLOAT_FP32_NAME_PATTERNS": (CONTROL, {}),
    "GRAD_ACCUM_STEPS": ("16", {"data.micro_batch": 32}),
    "MLX_MAX_MICROBATCH_TOKENS": ("16384", {"data.micro_batch": 16}),
    "MLX_EAGER_EVAL": ("1", {}),
    "LOGIT_CHUNK_TOKENS": ("4096", {}),
    "OUT_DIR": ("logs", {}),
    "TRAIN_MAX_SEQ_LEN": ("2048", {"arch.seq_len": 2048}),
}


def differing(recipe: Recipe) -> dict[str, Any]:
    """The fields that are not the baseline's."""

    def flat(plain: dict[str, Any], at: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in plain.items():
            more = flat(value, f"{at}{name}.") if isinstance(value, dict) else {at + name: value}
            found |= more
        return found

    usual = flat(asdict(baseline()))
    return {name: value for name, value in flat(asdict(recipe)).items() if value != usual[name]}


def old(words: str = "", backend: str = "torch", **environ: str) -> Settled:
    return settle(words.split(), backend, environ)


def test_the_table_has_all_45() -> None:
    assert len(VARIABLES) == 45 and {row.name for row in VARIABLES} == set(REACHES)


@pytest.mark.parametrize("name", REACHES)
def test_each_variable_reaches_its_field(name: str) -> None:
    value, fields = REACHES[name]
    settled = old(**{name: value})
    assert differing(settled.recipe) == fields
    told = {change.field: change.origin for change in settled.origins}
    assert set(fields) <= set(told) and all(name in told[field] for field in fields)


def test_options_and_what_has_no_field() -> None:
    settled = old(RUN_ID="r", OUT_DIR="logs", MLX_EAGER_EVAL="1")
    assert (settled.run_id, settled.runs) == ("r", "logs")
    assert any("MLX_EAGER_EVAL" in note and "no effect" in note for note in settled.notes)


RULES = [
    # environment, words, the fields that differ
    ({"MODEL_DIM": "256", "MLP_MULT": "3"}, "", {"arch.model_dim": 256, "arch.mlp_dim": 768}),
    ({"MODEL_DIM": "256", "MLP_MULT": "4"}, "", {"arch.model_dim": 256}),
    ({"MLP_MULT": "3"}, "arch.model_dim=256", {"arch.model_dim": 256, "arch.mlp_dim": 768}),
    ({"MLP_MULT": "3"}, "arch.mlp_dim=100", {"arch.mlp_dim": 100}),
    (
        {"NUM_HEADS": "6"},
        "arch.model_dim=384 arch.num_kv_heads=3",
        {"arch.model_dim": 384, "arch.num_heads": 6, "arch.num_kv_heads": 3},
    ),
    ({"NUM_LAYERS": "4"}, "arch.num_layers=6", {"arch.num_layers": 6}),
    (
        {"TIE_EMBEDDINGS": "0", "EMBED_LR": "0.3", "TIED_EMBED_LR": "0.01"},
        "",
        {"arch.tie_embeddings": False, "optim.embed_lr": 0.3},
    ),
    (
        {"EMBED_LR": "0.3"},
        "arch.tie_embeddings=0",
        {"arch.tie_embeddings": False, "optim.embed_lr": 0.3},
    ),
    ({"TRAIN_SEQ_LEN": "512", "TRAIN_MAX_SEQ_LEN": "2048"}, "", {"arch.seq_len": 512}),
    ({"WARMUP_STEPS": "0"}, "", {"schedule.warmup_steps": 0}),
    ({"MAX_WALLCLOCK_SECONDS": "-1"}, "", {"schedule.budget_s": 0.0}),
    ({"TRAIN_LOG_EVERY": "0"}, "", {"schedule.log_every_steps": 20_000}),
    ({"VAL_BATCH_SIZE": "524288"}, "", {}),
    ({"VAL_BATCH_SIZE": "1048576"}, "", {"score.batch": 128}),
    ({"VAL_BATCH_SIZE": "100"}, "", {"score.batch": 1}),
    (
        {"GRAD_ACCUM_STEPS": "8", "MLX_MAX_MICROBATCH_TOKENS": "8192"},
        "",
        {"data.micro_batch": 8},
    ),
    ({"WARMDOWN_FRAC": "0.2"}, "", {"schedule.warmdown": 0.2, "schedule.warmdown_unit": "frac"}),
    (
        {"WARMDOWN_ITERS": "9"},
        "schedule.warmdown_unit=seconds",
        {"schedule.warmdown": 9.0, "schedule.warmdown_unit": "seconds"},
    ),
    (
        {"EMA_DECAY": "0.99", "MIN_LR": "0.1"},
        "",
        {"optim.ema_decay": 0.99, "schedule.lr_floor": 0.1},
    ),
    ({"ROPE_DIMS": "16", "COMPRESSOR": "lzma"}, "", {"arch.rope_dims": 16, "quant.codec": "lzma"}),
    ({"ROPE_DIMS": "0"}, "", {}),
    ({"NUM_LAYERS": ""}, "", {}),
]


@pytest.mark.parametrize(("environ", "words", "fields"), RULES)
def test_variables_together_and_below_the_command_line(
    environ: dict[str, str], words: str, fields: dict[str, Any]
) -> None:
    assert differing(old(words, **environ).recipe) == fields


def test_a_named_recipe_stays_below_the_environment() -> None:
    settled = old("small", NUM_LAYERS="3", MODEL_DIM="128")
    assert settled.recipe.name == "small"
    assert (settled.recipe.arch.num_layers, settled.recipe.arch.mlp_dim) == (3, 256)
    assert settled.recipe.optim == RECIPES["small"]().optim


def test_an_old_command_trains_the_baseline_on_both_engines() -> None:
    for backend in ("torch", "mlx"):
        settled = old(backend=backend, ITERATIONS="200")
        assert settled.recipe.name == "baseline" and settled.recipe.arch == baseline().arch
    assert settled.recipe.score.val_every_steps == 0, "the MLX script's own default"
    assert settled.recipe.data.micro_batch == 8
    assert ("score.val_every_steps", "0", "VAL_LOSS_EVERY, the script's default") in settled.origins
    named = old("baseline", backend="mlx", ITERATIONS="200").recipe
    assert named.score.val_every_steps == 1000, "a named recipe decides by itself"
    chosen = old(backend="mlx", VAL_LOSS_EVERY="7", TRAIN_SEQ_LEN="512").recipe
    assert (chosen.score.val_every_steps, chosen.data.micro_batch) == (7, 16)


REFUSED = {
    "NUM_LAYERS=four": "NUM_LAYERS=four: expected a whole number",
    "NUM_LAYERS=4.0": "expected a whole number",
    "MATRIX_LR=fast": "MATRIX_LR=fast: expected a number",
    "TIE_EMBEDDINGS=yes": "TIE_EMBEDDINGS=yes: expected 0 or 1",
    "NUM_HEADS=7": "num_heads 7 must divide model_dim 512 (the environment sets NUM_HEADS)",
    "MLP_MULT=2.001": "MLP_MULT=2.001: expected a whole multiple of 512",
    "COMPRESSOR=bzip2": "or 'best' or 'any', found 'bzip2'",
    "CONTROL_TENSOR_NAME_PATTERNS=q_gain": "expected 'attn_scale,attn_scales,",
    "INT8_KEEP_FLOAT_FP32_NAME_PATTERNS=tok_emb": "rows of param_table",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_a_value_that_cannot_be_meant(setting: str) -> None:
    name, value = setting.split("=")
    with pytest.raises(UsageError) as error:
        old(**{name: value})
    assert REFUSED[setting] in str(error.value)


MISSPELT = {
    "NUM_LAYER": "NUM_LAYERS",
    "NUMLAYERS": "NUM_LAYERS",
    "ITERATION": "ITERATIONS",
    "MATRX_LR": "MATRIX_LR",
    "DATA_PATHS": "DATA_PATH",
    "WARMDOWN_FRACTION": "WARMDOWN_FRAC",
    "EVAL_STRIDES": "EVAL_STRIDE",
    "LOGIT_SOFT_CAP": "LOGIT_SOFTCAP",
}
ORDINARY = (  # what stands in shells, CI, launchers, clusters and other programs
    "PATH HOME USER SHELL LANG LC_ALL LC_CTYPE TERM PWD OLDPWD SHLVL EDITOR DISPLAY LOGNAME MAIL",
    "HOSTNAME TMPDIR LD_LIBRARY_PATH LD_PRELOAD PYTHONPATH PYTHONHASHSEED PYTEST_CURRENT_TEST",
    "VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV CUDA_VISIBLE_DEVICES CUDA_HOME CUDA_PATH",
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR",
    "MASTER_PORT LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK TORCHELASTIC_RUN_ID TORCHINDUCTOR_CACHE_DIR",
    "MLX_RANK MLX_HOSTFILE MLX_DISABLE_COMPILE HF_HOME HF_TOKEN HF_HUB_OFFLINE XDG_CACHE_HOME",
    "SLURM_JOB_ID SLURM_NUM_TASKS WANDB_MODE WANDB_RUN_ID WANDB_DATA_DIR NO_COLOR FORCE_COLOR CI",
    "GITHUB_RUN_ID GITHUB_PATH RUNNER_OS MODEL_DIR MODEL_PATH MODEL_NAME DATA_ROOT OUTPUT_DIR",
    "OUTPUT_PATH BATCH_SIZE TRAIN_BATCH_SIZE LEARNING_RATE LR EPOCHS NUM_WORKERS NUM_GPUS",
    "VOCAB_FILE LOG_DIR SEQ_LEN JAVA_HOME GOPATH CARGO_HOME XPC_SERVICE_NAME __CF_USER MANPATH",
    "SSH_AUTH_SOCK SECURITYSESSIONID COMMAND_MODE HOMEBREW_PREFIX INFOPATH NCCL_DEBUG",
)


def test_misspelt_names_are_told_and_ordinary_ones_are_not() -> None:
    assert {name: misspelt(name) for name in MISSPELT} == MISSPELT
    ordinary = " ".join(ORDINARY).split()
    assert {name: misspelt(name) for name in ordinary if misspelt(name)} == {}
    settled = old(NUM_LAYER="4", PATH="/bin")
    assert settled.recipe == baseline()
    assert [n for n in settled.notes if "did you mean NUM_LAYERS?" in n] == list(settled.notes)


def test_record_names_without_a_field_are_said_not_to_work() -> None:
    for name in (*NOT_YET, "TTT_LR"):
        (note,) = old(**{name: "1"}).notes
        assert note.startswith(name) and "not supported yet" in note


def test_the_idle_embedding_rate_is_named() -> None:
    (note,) = old(EMBED_LR="0.3").notes
    assert note == "EMBED_LR has no effect: the embedding is tied"
    (note,) = old(TIED_EMBED_LR="0.3", TIE_EMBEDDINGS="0").notes
    assert note == "TIED_EMBED_LR has no effect: the embedding is not tied"


def test_a_warmdown_longer_than_an_old_commands_run_is_told() -> None:
    """Under a budget the rates follow the clock alone: nothing falls early that is not short."""
    (note,) = old(ITERATIONS="200", MAX_WALLCLOCK_SECONDS="0").notes
    assert "fall from the first step on: schedule.warmdown is 1200 steps, the run 200" in note
    unlimited = old(ITERATIONS="200", MAX_WALLCLOCK_SECONDS="0").recipe.schedule
    assert lr_mul(unlimited, 0, 0.0) == 200 / 1200
    limited = old(ITERATIONS="200")
    assert not limited.notes and lr_mul(limited.recipe.schedule, 100, 5.0) == 1.0
    assert not old(ITERATIONS="200", MAX_WALLCLOCK_SECONDS="0", WARMDOWN_ITERS="0").notes
    assert not old(ITERATIONS="2000", MAX_WALLCLOCK_SECONDS="0").notes
