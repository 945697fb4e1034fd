"""Bytes and seconds of the coders on Gaussian and on trained levels.

The rows are markdown, to paste into docs/compression.md. Seconds are of one core's work.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.arch.noise import normal
from core.arch.params import param_table
from core.artifact.codecs import CODECS, decode, encode
from core.artifact.grid import Grid
from core.artifact.packed import Levels, matrix_shape
from core.artifact.rounding import quantize_rows
from core.train.run_folder import load_recipe, load_weights
from tools.benching.job import Job

LAYER = ((512, 512), (256, 512), (256, 512), (512, 512), (2048, 512), (512, 2048))
EMBEDDING = (8192, 512)
MATRIX_GRID = Grid(bits=6, sigmas=12.85)  # of the record of 2026-04-09
EMBED_GRID = Grid(bits=8, sigmas=20.0)
CODERS = ("lzma", "zstd", "brotli", "rans")
PROGRAMS = {  # of Debian's packages of these names, at their strongest
    "lrzip": ("lrzip", "-z", "-L9", "-q", "-f", "-o", "{packed}", "{plain}"),
    "zpaq": ("zpaq", "a", "{packed}", "{plain}", "-m5"),
}
HEAD = ("levels", "weights", "order-0", *CODERS, "to brotli", "to order-0", "encode", "decode")


def gaussian(shapes: Iterable[tuple[int, int]], grid: Grid) -> list[Levels]:
    return [
        quantize_rows(normal(1, stream, shape).astype(np.float32), grid)[0]
        for stream, shape in enumerate(shapes)
    ]


def trained(folder: Path, roles: set[str], grid: Grid) -> list[Levels]:
    """The matrices of these roles that the run's recipe quantizes, by this grid."""
    recipe, weights = load_recipe(folder), load_weights(folder)
    rows = [row for row in param_table(recipe.arch) if row.role in roles and len(row.shape) > 1]
    held = (weights[row.name].reshape(matrix_shape(row.shape)) for row in rows)
    return [quantize_rows(np.asarray(weight, np.float32), grid)[0] for weight in held]


def entropy_bits(matrices: list[Levels]) -> float:
    """The order-0 entropy of each matrix by itself, summed: no table and no context is paid."""
    bits = 0.0
    for levels in matrices:
        counts = np.bincount(levels.view(np.uint8).ravel())
        counts = counts[counts > 0]
        bits += float(counts @ np.log2(levels.size / counts))
    return bits


def measure(job: Job) -> dict[str, Any]:
    """Gaussian levels. shape: layers of six bits, rows of an embedding of eight; 0: none of it."""
    layers, rows = job.shape
    matrices = gaussian(layers * LAYER, MATRIX_GRID)
    matrices += gaussian([(rows, EMBEDDING[1])] if rows else [], EMBED_GRID)
    return coded(matrices, CODERS)


def coded(matrices: list[Levels], coders: Iterable[str]) -> dict[str, Any]:
    """Bits a weight of each coder, all matrices in one stream; seconds are of the last coder."""
    data = b"".join(levels.tobytes() for levels in matrices)
    shapes = [(levels.shape[0], levels.shape[1]) for levels in matrices]
    bits: dict[str, float] = {}
    for coder in coders:
        start_s = time.process_time()
        packed = encode(coder, data, shapes)
        middle_s = time.process_time()
        assert decode(coder, packed, len(data)) == data
        bits[coder] = 8 * len(packed) / len(data)
    return {
        "weights": len(data),
        "order0_bits": entropy_bits(matrices) / len(data),
        "coder_bits": bits,
        "encode_s": middle_s - start_s,
        "decode_s": time.process_time() - middle_s,
    }


def cells(fields: dict[str, Any]) -> dict[str, str]:
    bits, order0 = fields["coder_bits"], fields["order0_bits"]
    ours = bits["rans"]
    beside = f"{100 * (ours / bits['brotli'] - 1):+.2f} %" if "brotli" in bits else ""
    return {
        "weights": f"{fields['weights']:,}",
        "order-0": f"{order0:.4f}",
        **{coder: f"{bits[coder]:.4f}" if coder in bits else "" for coder in CODERS},
        "to brotli": beside,
        "to order-0": f"{100 * (ours / order0 - 1):+.3f} %",
        "encode": f"{fields['encode_s']:.2f} s",
        "decode": f"{fields['decode_s']:.2f} s",
    }


def row(title: str, matrices: list[Levels], coders: Iterable[str]) -> str:
    return f"| {' | '.join((title, *cells(coded(matrices, coders)).values()))} |"


def outside(title: str, matrices: list[Levels], program: str) -> str:
    """Bits a weight of a program of the system, on the same bytes; rans against it."""
    data = b"".join(levels.tobytes() for levels in matrices)
    shapes = [(levels.shape[0], levels.shape[1]) for levels in matrices]
    with TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        plain, packed = Path(folder, "levels"), Path(folder, "packed.zpaq")
        plain.write_bytes(data)
        command = [word.format(plain=plain, packed=packed) for word in PROGRAMS[program]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        theirs, seconds = 8 * packed.stat().st_size / len(data), time.perf_counter() - start_s
    ours = 8 * len(encode("rans", data, shapes)) / len(data)
    apart = f"{100 * (ours / theirs - 1):+.3f} %"
    cells = (title, f"{len(data):,}", program, f"{theirs:.4f}", f"{ours:.4f}", apart)
    return f"| {' | '.join(cells)} | {seconds:.0f} s |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_folder", type=Path, nargs="?", metavar="RUN", help="a trained model")
    parser.add_argument("--layers", type=int, default=11, help="of Gaussian matrices; 0: none")
    parser.add_argument("--ours-only", action="store_true", help="seconds, not minutes")
    parser.add_argument(
        "--programs", nargs="+", choices=list(PROGRAMS), help="of the system, alone"
    )
    args = parser.parse_args()
    if args.programs:
        print("| levels | weights | program | its bits | rans | to it | its time |")
        print("|---|--:|---|--:|--:|--:|--:|")
        for program in args.programs:
            for title, matrices in (
                ("Gaussian, int6", gaussian(args.layers * LAYER, MATRIX_GRID)),
                ("Gaussian embedding, int8", gaussian([EMBEDDING], EMBED_GRID)),
            ):
                print(outside(title, matrices, program), flush=True)
        return 0
    coders = ("rans",) if args.ours_only else CODERS
    assert set(coders) <= set(CODECS)
    print(f"| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 1)}", flush=True)
    if args.layers:
        matrices = gaussian(args.layers * LAYER, MATRIX_GRID)
        print(row(f"Gaussian, {args.layers} layers, int6", matrices, coders), flush=True)
        embedding = gaussian([EMBEDDING], EMBED_GRID)
        print(row("Gaussian embedding, int8", embedding, coders), flush=True)
        print(row("both in one stream", [*matrices, *embedding], ("rans",)), flush=True)
    if args.run_folder:
        for title, roles, grid in (
            ("trained, int6", {"attn", "mlp"}, MATRIX_GRID),
            ("trained embedding, int8", {"embed", "head"}, EMBED_GRID),
        ):
            print(row(title, trained(args.run_folder, roles, grid), coders), flush=True)
    return 0
