"""What packing does to weights: the rule of their steps, the choice of their levels."""

from __future__ import annotations

from tools.explaining.technique import QUANT, Technique


def _row(
    name: str, fields: str, off: object, formula: str, source: str, effect: str, test: str
) -> Technique:
    return Technique(name, QUANT, tuple(fields.split()), off, formula, source, effect, test)


PACKING = (
    _row(
        "SDClip",
        "mlp_sigmas attn_sigmas embed_sigmas head_sigmas",
        0.0,
        "a row's step is k sigma / qmax, whatever its largest weight is",
        "record of 2026-04-05",
        "not isolated",
        "tests/core/test_quant.py",
    ),
    _row(
        "GPTQ",
        "solver",
        "nearest",
        "a column's error is made up for by the columns behind it, by the moments of their inputs",
        "Frantar et al. 2022",
        "not isolated; 0.5 bits a weight at equal output error",
        "tests/core/test_gptq.py",
    ),
    _row(
        "steps by column",
        "steps",
        "rows",
        "columns: times the diagonal of GPTQ's factor; fisher: that over the root of a row's worth;"
        " rows of counted tokens times count^-1/4",
        "WaterSIC, arXiv 2603.04956",
        "not measured; docs/compression.md has the bits",
        "tests/core/test_allocation.py",
    ),
    _row(
        "trellis",
        "trellis trellis_lambda",
        0,
        "k stands for k + 1/4 or -(k + 1/4), by a machine of 4 or 8 states that k mod 2 moves; "
        "the path with the least error + lambda bits is chosen",
        "trellis-coded quantization, Ungerboeck's partition",
        "not measured; 0.17 to 0.19 bits a weight at equal output error",
        "tests/core/test_trellis.py",
    ),
    _row(
        "byte target",
        "step_scale",
        1.0,
        "every step times one constant, which golf pack --target-bytes finds",
        "of this project",
        "what bytes are left under the cap, spent",
        "tests/tools/test_pack.py",
    ),
)
