"""Bits a weight of the formats, and what each loses: python -m tests.formats RUN, for the docs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.artifact.container import Artifact, write
from core.artifact.packed import dequantize
from core.artifact.quant import Quant
from core.artifact.solving import Calibration, solve_tensors
from core.train.run_folder import load_weights

BASE = Quant(keep_below=0, codec="rans")
SIX = replace(BASE, mlp="int6", mlp_sigmas=12.85)
FORMATS = {
    f"{name}{words}": replace(base, **fields)
    for name, base in {
        "int8": BASE,
        "int6, k = 12.85": SIX,
        "int4": replace(BASE, mlp="int4"),
        "fp8": replace(BASE, mlp="fp8"),
    }.items()
    for words, fields in {
        "": {},
        ", log8": {"scale_format": "log8"},
        ", tensor": {"mlp_group": "tensor"},
        ", groups of 64": {"mlp_group": 64},
        ", groups of 64, log8": {"mlp_group": 64, "scale_format": "log8"},
    }.items()
}
LEAST = 32_768  # elements of a matrix that is in it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    held = load_weights(parser.parse_args().run_folder)
    weights = {name: w for name, w in held.items() if w.ndim == 2 and w.size >= LEAST}
    size = sum(weight.size for weight in weights.values())
    print(f"{len(weights)} matrices, {size:,} weights\n\n| format | bits | lost |\n|---|--:|--:|")
    for name, quant in FORMATS.items():
        tensors = solve_tensors(weights, quant, Calibration())
        bits = 8 * len(write(Artifact(None, tuple(tensors)), quant.codec)) / size
        lost = [
            np.square(dequantize(one) - weights[one.name]).sum()
            / np.square(weights[one.name]).sum()
            for one in tensors
        ]
        print(f"| {name} | {bits:.3f} | {np.mean(lost):.2e} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
