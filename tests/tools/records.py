"""A stranger's record, synthetic: three logs in the reference's form, a packed script, its JSON."""

from __future__ import annotations

import base64
import json
import lzma
import math
from pathlib import Path
from typing import Any

TOKENS, BYTES = 62_021_632, 151_080_363
MODEL, SOURCE = 15_800_000, "import torch\nprint(torch.__version__)\n"
MODELS = {1337: MODEL, 42: MODEL - 511, 7: MODEL - 1024}  # compressed, by seed
LOSSES = {1337: 2.0601, 42: 2.0612, 7: 2.0609}
LOG = """world_size:{ranks} grad_accum_steps:1
{limit}train_batch_tokens:524288 train_seq_len:1024 iterations:20000 max_wallclock_seconds:600.000
val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={tokenizer}
val_loader:shards pattern=./data/fineweb_val_*.bin tokens:{tokens}
seed:{seed}
step:0/20000 val_loss:6.9357 val_bpb:4.1077 train_time:0ms step_avg:0.01ms
step:13000/20000 train_loss:2.1 train_time:565000ms step_avg:43.46ms
step:13800/20000 val_loss:2.0500 val_bpb:1.2150 train_time:{train_ms}ms step_avg:43.48ms
stopping_early: wallclock_cap train_time:{train_ms}ms step:13800/20000
Serialized model int8+zlib: {model} bytes (payload:1 raw_torch:2 payload_ratio:3.00x)
Code size: {code} bytes
Total submission size int8+zlib: {total} bytes
final_int8_zlib_roundtrip val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:1500ms
final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}
NVIDIA H100 80GB HBM3
"""


def log_of(seed: int, loss: float, code: int, **other: Any) -> str:
    bpb = loss / math.log(2.0) * TOKENS / BYTES
    model = MODELS.get(seed, MODEL)
    places = {"ranks": 8, "tokenizer": "./a_1024.model", "limit": ""}
    told = {
        **places,
        "tokens": TOKENS,
        "train_ms": 600_044,
        "model": model,
        "total": model + code,
        **other,
    }
    return LOG.format(seed=seed, loss=loss, bpb=bpb, code=code, **told)


def write_record(root: Path) -> Path:
    """A record as the reference scripts would leave it, packed by another's hand."""
    path = root / "records" / "track_10min_16mb" / "2026-03-18_Another"
    path.mkdir(parents=True)
    packed = base64.b85encode(lzma.compress(SOURCE.encode())).decode()
    script = f"import lzma, base64\nexec(lzma.decompress(base64.b85decode('{packed}')))\n"
    (path / "train_gpt.py").write_text(script)
    (path / "README.md").write_text("# Another\n")
    scores = []
    for seed, loss in LOSSES.items():
        (path / f"train_seed{seed}.log").write_text(log_of(seed, loss, len(script)))
        scores.append((loss, loss / math.log(2.0) * TOKENS / BYTES))
    mean = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
    fields = {
        "author": "Another",
        "github_id": "another",
        "name": "Another",
        "date": "2026-03-18T10:00:00Z",
        "val_loss": round(mean[0], 6),
        "val_bpb": round(mean[1], 6),
        "bytes_total": MODEL + len(script),
        "bytes_code": len(script),
        "seeds": list(LOSSES),
        "train_seconds": 600.04,
    }
    (path / "submission.json").write_text(json.dumps(fields))
    return path
