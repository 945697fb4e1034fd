"""The log reader: every variant of the public records, our own runs, and any bytes at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.train.run_folder import RunFolder
from tests.conftest import Text
from tools.strangers import logs
from tools.strangers.log_places import find_logs
from tools.strangers.logs import RunLog, read_log, read_text
from tools.train import train

RULE = "=" * 100
SOURCE = '''"""A trainer. An earlier run of it:
step:9/9 train_loss:1.0000 train_time:9ms step_avg:1.00ms
final_int8_zlib_roundtrip_exact val_loss:0.10000000 val_bpb:0.20000000
Total submission size int8+zlib: 5 bytes
seed:77
"""
import os
import sys

def main():
    print("x")

if __name__ == "__main__":
    main()
'''
BASELINE = """logs/abc.txt
val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./t/fineweb_1024_bpe.model
train_loader:dataset:fineweb10B_sp1024 train_shards:80
val_loader:shards pattern=./d/fineweb_val_*.bin tokens:63779840
model_params:17059912
world_size:8 grad_accum_steps:1
train_batch_tokens:524288 train_seq_len:1024 iterations:20000 max_wallclock_seconds:600.000
seed:1337
warmup_step:20/20
step:1/20000 train_loss:6.9370 train_time:40ms step_avg:40.12ms
step:1000/20000 val_loss:2.3500 val_bpb:1.3900 train_time:43500ms step_avg:43.50ms
step:13780/20000 val_loss:2.0606 val_bpb:1.2172 train_time:600038ms step_avg:43.54ms
stopping_early: wallclock_cap train_time:600038ms step:13780/20000
peak memory allocated: 10184 MiB reserved: 10200 MiB
Serialized model: 67224983 bytes
Code size: 47642 bytes
Total submission size: 67272625 bytes
Serialized model int8+zlib: 15815847 bytes (payload:17178912 raw_torch:17224025 payload_ratio:3.91x)
Total submission size int8+zlib: 15863489 bytes
final_int8_zlib_roundtrip val_loss:2.0727 val_bpb:1.2244 eval_time:1401ms
final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570
"""
MLX = """run_id:mlx_smoke
mlx_version:0.31.1
val_loader:shards pattern=/d/fineweb_val_*.bin tokens:62021632
iterations:200 train_batch_tokens:8192 warmup_steps:20 max_wallclock_seconds:0.000
warmup_step:20/20
step:1/200 train_loss:6.9428 train_time:135ms step_avg:135.15ms tok_s:60615
val_progress:1/100
step:200/200 val_loss:5.4259 val_bpb:3.2131 train_time:23232ms step_avg:116.16ms
saved_model:logs/mlx_smoke_mlx_model.npz bytes:67212188
serialized_model_int8_zlib:5110855 bytes (payload:17178912 raw_pickle:17188361 payload_ratio:3.91x)
final_int8_zlib_roundtrip val_loss:5.4780 val_bpb:3.2439 eval_time:2525ms
final_int8_zlib_roundtrip_exact val_loss:5.47795963 val_bpb:3.24391161
"""
FRONTIER = """W0501 22:35:33.727000 3892303 torch/distributed/run.py:803]
Hyperparameters:
  adam_eps: 1e-08
  seed: 42
  ttt_eval_batches:
  val_doc_fraction: 1.0
  world_size: 8
train_shards: 128
val_tokens: 40540160
gptq:reserving 13s, effective=587000ms
0/20000 val_loss: 9.0094 val_bpb: 4.1166
4000/20000 train_loss: 2.5144 train_time: 7.6m tok/s: 6904774
4000/20000 val_loss: 2.4283 val_bpb: 1.1095
stopping_early: wallclock_cap train_time: 587637ms step: 4550/20000
ema:applying EMA weights
pre-quantization post-ema val_loss:2.80000000 val_bpb:1.08735000 eval_time:6977ms
Serialized model: 135418111 bytes
Code size (uncompressed): 61274 bytes
Code size (compressed): 17155 bytes
GPTQ:collected 67 Hessians in 12.6s
Serialized model quantized+brotli: 15974775 bytes
Total submission size quantized+brotli: 15991930 bytes
quantized val_loss:2.84000000 val_bpb:1.09970000 eval_time:8962ms
quantized_sliding_window val_loss:2.79600000 val_bpb:1.08286000 eval_time:90000ms
ttt:chunk 5/100 loss:2.7
quantized_ttt val_loss:2.79200000 val_bpb:1.08079000 eval_time:370000ms
total_eval_time:470.5s
"""
SLIDING = """step:1/9000 train_loss:6.9 train_time:153ms
step:7407/9000 val_loss:1.9331 val_bpb:1.1449 train_time:600028ms step_avg:81.01ms
DIAGNOSTIC post_ema val_loss:1.9208 val_bpb:1.1376 eval_time:2240ms
Total submission size int6+zstd: 15,695,752 bytes
final_int6_roundtrip_exact val_loss:1.95171603 val_bpb:1.15591617
final_int6_sliding_window_exact val_loss:1.91389421 val_bpb:1.13351895
final_int6_sliding_window val_loss:1.9139 val_bpb:1.1335 stride:64 eval_time:68826ms
"""


def facts(log: RunLog) -> tuple[object, ...]:
    score = log.score
    assert score is not None
    return (score.label, score.val_bpb, log.seed, log.train_time_ms, log.last_step, log.total_bytes)


def test_the_baselines_log() -> None:
    log = read_text(BASELINE, "train.log")
    label = "final_int8_zlib_roundtrip_exact"
    assert facts(log) == (label, 1.2243657, 1337, 600_038.0, 13_780, 15_863_489)
    assert (log.code_bytes, log.model_bytes) == (47_642, 15_815_847)
    assert [size.bytes for size in log.sizes] == [67224983, 47642, 67272625, 15815847, 15863489]
    assert (log.world_size, log.train_shards, log.tokens) == (8, 80, 63_779_840)
    assert log.stopped_early and log.missing == () and log.notes == ()
    assert log.hyperparameters["train_batch_tokens"] == "524288"
    assert log.finals[0].eval_time_ms == 1401.0 and log.finals[0].line == 20
    assert [(val.step, val.val_bpb) for val in log.vals] == [(1000, 1.39), (13780, 1.2172)]
    assert abs((log.implied_bytes or 0) - 155_769_746) < 1000


def test_the_mlx_log() -> None:
    log = read_text(MLX, "x.txt")
    assert log.score is not None and log.score.val_loss == 5.47795963
    assert log.model_bytes == 5_110_855 and log.steps[0].tokens_per_s == 60_615
    assert set(log.missing) == {"seed", "code size", "total size", "world size"}
    assert not log.stopped_early and log.train_time_ms == 23_232


def test_the_frontiers_log() -> None:
    log = read_text(FRONTIER, "train_seed42.log")
    assert facts(log) == ("quantized_ttt", 1.08079, 42, 587_637.0, 4550, 15_991_930)
    assert log.code_bytes == 17_155 and log.model_bytes == 15_974_775
    assert log.tokens == 40_540_160 and log.train_shards == 128 and log.subset is None
    assert log.phases_s == {"gptq_reserve_s": 13.0, "hessians_s": 12.6, "total_eval_s": 470.5}
    assert log.steps[0].train_time_ms == pytest.approx(7.6 * 60_000)
    assert [final.after_quantization for final in log.finals] == [False, True, True, True]
    assert log.missing == () and log.hyperparameters["ttt_eval_batches"] == ""


def test_a_sliding_score_and_its_rounded_twin() -> None:
    log = read_text(SLIDING, "log.txt")
    assert log.score is not None and log.score.val_bpb == 1.13351895
    assert log.total_bytes == 15_695_752 and log.seed is None
    assert log.finals[-1].eval_time_ms == 68_826
    sizes = "Code size (compressed): 5 bytes\nCode size (uncompressed): 9 bytes\n"
    assert read_text(sizes, "x").code_bytes == 5


SCORES = {
    "pre-quantization post-ema": None,
    "prequant_ttt": None,
    "DIAGNOSTIC post_ema": None,
    "swa": None,
    "final_int5_sliding_window_ngram9_exact": 1.5,
    "diagnostic quantized": 1.5,
    "legal_ttt_exact": 1.5,
    "2026-03-20 12:00:01,123 | final_ternary_roundtrip": 1.5,
    "[rank0]: quantized_ttt_phased": 1.5,
}


@pytest.mark.parametrize("label", SCORES)
def test_which_lines_are_scores(label: str) -> None:
    log = read_text(f"{label} val_loss:2.5 val_bpb:1.5 eval_time:3ms\n", "x")
    assert len(log.finals) == 1 and (log.score and log.score.val_bpb) == SCORES[label]
    assert log.finals[0].label == label.split("| ")[-1].split("]: ")[-1]
    assert ("score after quantization" in log.missing) == (SCORES[label] is None)


@pytest.mark.parametrize("body", [BASELINE, FRONTIER, MLX])
def test_numbers_of_an_embedded_source_are_not_results(body: str) -> None:
    head = f"{SOURCE}\n{RULE}\nRunning Python 3.12\n{RULE}\n"
    log, plain = read_text(head + body, "x_seed1337.log"), read_text(body, "x_seed1337.log")
    assert log.embedded_source == SOURCE and log.source_bytes == len(SOURCE.encode())
    assert [line.val_bpb for line in log.finals] == [line.val_bpb for line in plain.finals]
    assert [line.bytes for line in log.sizes] == [line.bytes for line in plain.sizes]
    assert (log.seed, log.last_step) == (plain.seed, plain.last_step)
    assert log.finals[0].line == plain.finals[0].line + head.count("\n")


def test_sources_that_end_otherwise() -> None:
    inside = SOURCE.replace(
        "import os", f"X = '''\n{RULE}\nfinal_x val_loss:1 val_bpb:1\n'''\nimport os"
    )
    assert len(read_text(f"{inside}\n{RULE}\n{SLIDING}", "x").finals) == 4
    packed = "import lzma as L,base64 as B;exec(L.decompress(B.b85decode('" + "x" * 90_000 + "')))"
    log = read_text(f"{packed}\n{RULE}\n{BASELINE}", "x")
    assert log.source_bytes == len(packed) and log.total_bytes == 15_863_489
    log = read_text(f"{SOURCE}{BASELINE}", "x")
    assert log.notes == ("the embedded source has no end marked",) and len(log.finals) == 2
    whole = f"{SOURCE}\n{RULE}\n{BASELINE}{SOURCE}\n{RULE}\n{SLIDING}"
    log = read_text(whole, "x")
    assert log.last_step == 7407 and "earlier run" in log.notes[0]
    trace = "Traceback:\n  File 'x.py', line 1, in f\n    return g()\n    import os\n"
    assert read_text(f"{BASELINE}{trace * 9}", "x").embedded_source is None


def test_labels_seeds_and_odd_names() -> None:
    exact = "final_int8_zlib_roundtrip_exact val_loss:2.0 val_bpb:1.2 tokens:5 bytes:6"
    log = read_text(exact + ' eval_time:9ms subset:{"name": "first-1m", "targets": 5}\n', "x")
    assert log.subset is not None and "first-1m" in log.subset
    assert (log.tokens, log.bytes) == (5, 6)
    assert read_text(exact + " (modified: arch.rope_dims=0)", "x").modified is not None
    part = FRONTIER.replace("val_doc_fraction: 1.0", "val_doc_fraction: 0.2")
    assert read_text(part, "x").subset == "val_doc_fraction 0.2"
    assert read_text(exact, "train_seed314.log").seed == 314
    assert read_text(exact, "bass444.log").seed is None
    assert "seed 7" in read_text(BASELINE, "train_seed7.log").notes[0]


def test_a_run_of_ours(text: Text, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "one")
    finished = train(text.recipe(), "torch", folder, quiet=True)
    assert finished is not None
    log = read_log(folder.path)
    assert log.missing == () and log.notes == () and log.seed == 1337
    assert log.score is not None and abs(log.score.val_bpb - finished.after.val_bpb) < 1e-8
    assert (log.tokens, log.bytes) == (finished.after.tokens, finished.after.bytes)
    assert log.total_bytes == finished.ledger.artifact_bytes
    assert log.model_bytes == finished.ledger.model_bytes and log.world_size == 1
    assert log.hyperparameters["schedule.steps"] == "6" and log.last_step == 6
    assert [val.step for val in log.vals] == [3] and "score_s" in log.phases_s
    (folder.path / "recipe.json").write_text("[" * 100_000)
    assert read_log(folder.path).notes == ("recipe.json is not JSON",)


@pytest.mark.parametrize(
    "line, size",
    [
        ("Serialized model int8+zlib: 15.82 MB", None),
        ("Serialized model int8+zlib: 15 MiB", None),
        ("Serialized model int8+zlib: 15.82 MB (15815847 bytes)", 15_815_847),
        ("Serialized model int8+zlib: 15,815,847 bytes", 15_815_847),
    ],
)
def test_a_rounded_size_is_none(line: str, size: int | None) -> None:
    assert read_text(line, "train.log").model_bytes == size


def test_what_a_tokenizer_loses_is_told() -> None:
    line = 'final_int8_zlib_roundtrip_exact val_loss:2.0 val_bpb:1.2 lossy:"folded to lower case"'
    assert read_text(line, "train.log").lossy == "folded to lower case"
    assert read_text(line.split(" lossy")[0], "train.log").lossy is None


def test_the_header_and_the_score_are_kept_apart() -> None:
    log = read_text("val_tokens:23662\nfinal_int8_exact val_loss:2.0 val_bpb:1.2 tokens:2366", "x")
    assert (log.stated_tokens, log.tokens) == (23_662, 2_366)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_log(tmp_path / "none").missing == ("the file",)
    assert read_log(tmp_path).missing == ("the file",)
    assert read_log("a\0b").missing[0].startswith("the file")
    (tmp_path / "big.log").write_text(BASELINE)
    monkeypatch.setattr(logs, "MAX_BYTES", 100)
    log = read_log(tmp_path / "big.log")
    assert log.finals == () and "100 are the most" in log.missing[0]
    monkeypatch.setattr(logs, "MAX_LINES", 12)
    assert "the rest is not read" in read_text(BASELINE, "x").notes[0]


PIECES = [
    "step:",
    "1/2",
    " train_loss:",
    "val_loss:",
    "val_bpb: ",
    "nan",
    "1e999",
    "-inf",
    "9" * 40,
]
PIECES += [
    "\n",
    RULE + "\n",
    "Hyperparameters:\n",
    "  seed: 5\n",
    "import os\n",
    "\x00",
    "=" * 5000,
]
PIECES += [
    "Code size: ",
    " bytes",
    "modified: ",
    "subset:{",
    "stopped: step:",
    "phases x:1s",
    "ms ",
]


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=30))
def test_no_text_raises(parts: list[str]) -> None:
    log = read_text("".join(parts), "x")
    assert log.score is None or log.score.after_quantization
    assert log.implied_bytes is None or log.implied_bytes > 0


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_raise(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(data + BASELINE.encode())
    assert read_log(path).total_bytes == 15_863_489


HOSTILE = ["1/1 " * 500_000, "step:" * 400_000, "val_loss" + ":" * 2_000_000, " " * 2_000_000]
HOSTILE += ["1/1" + " " * 2_000_000, "x:1 " * 500_000, "subset:{" * 250_000, "modified:" * 200_000]
HOSTILE += ["code size" * 200_000, "exec(import" * 200_000, "[" * 2_000_000, "a1:" * 600_000]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_long_lines_take_no_time(line: str) -> None:
    """Two million characters of what a pattern begins with; a quadratic one takes hours."""
    start = time.process_time()
    read_text(f"{line}\n{line} train_loss val_loss:1 val_bpb:1\n", "x")
    assert time.process_time() - start < 5.0


def test_places(tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text(BASELINE)
    (tmp_path / "c.txt").write_text(SLIDING)
    (tmp_path / "requirements.txt").write_text("torch\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text(BASELINE)
    names = ["a.log", "b.log", "c.txt", "run"]
    assert [path.name for path in find_logs(str(tmp_path))] == names
    assert [p.name for p in find_logs(f"{tmp_path}/b.log, {tmp_path}/run")] == ["b.log", "run"]
    assert [p.name for p in find_logs(f"{tmp_path}/*.log")] == ["a.log", "b.log"]
    with pytest.raises(ValueError, match="no such log"):
        find_logs(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither a run"):
        find_logs(str(tmp_path / "empty"))
