"""Prints the ladder as measured on the device at hand, to paste into docs: make device-check."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version

from tests.parity.cases import CASES
from tests.parity.engines import ENGINES, engine
from tests.parity.rungs import RUNGS, Rung
from tests.parity.test_ladder import LONG

HEAD = "| rung | what | bound | torch | MLX | torch fp32 - fp64 |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="also the slow rungs")
    wanted = parser.parse_args()
    print(f"{machine()}\n\n{HEAD}\n|---|---|--:|--:|--:|--:|", flush=True)
    broken = 0
    for rung in RUNGS:
        if rung.slow and not wanted.long:
            continue
        cells, holds = measured(rung)
        broken += not holds
        print(f"{left(rung)} {' | '.join(cells)} |", flush=True)
    return 1 if broken else 0


def left(rung: Rung) -> str:
    """The cells that do not depend on a device."""
    return f"| {rung.number} | {rung.statement} | {shown(rung.bound, rung)} |"


def measured(rung: Rung) -> tuple[list[str], bool]:
    """The worst over the table for each engine, and of the control; whether the bound holds."""
    cases = LONG if rung.slow else tuple(CASES)
    worst = [max(rung.measure(case, name) for case in cases) for name in ENGINES]
    cells = [shown(value, rung) for value in worst]
    control = max(rung.control(case) for case in cases) if rung.control else None
    cells.append("" if control is None else shown(control, rung))
    return cells, max(worst) <= rung.bound


def shown(value: float, rung: Rung) -> str:
    if value == 0:
        return "equal" if rung.bound == 0 else "none"
    return f"{value:.0e}"


def machine() -> str:
    """What the table was measured on."""
    devices = {name: engine(name).distributed.Solo().device for name in ENGINES}
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "mlx", "numpy"))
    where = ", ".join(f"{name} on {device}" for name, device in devices.items())
    return f"Python {platform.python_version()}, {packages}; {platform.machine()}; {where}."


if __name__ == "__main__":
    sys.exit(main())
