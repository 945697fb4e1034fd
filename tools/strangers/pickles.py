"""A pickle as data: arrays and plain containers; what else it names is never looked up."""

from __future__ import annotations

import struct

from tools.strangers.pickle_stack import Machine, Value
from tools.strangers.pickle_steps import OPCODES

MAX_STEPS = 2_000_000  # opcodes
MAX_HELD = 500_000  # on the stack, and in the memo


def read_pickle(data: bytes, start: int = 0) -> tuple[Value, int]:
    """What the pickle at `start` describes, and where it ends; ValueError if it is none."""
    machine = Machine(data=data, at=start)
    try:
        for _ in range(MAX_STEPS):
            step = OPCODES.get(machine.take(1)[0])
            if step is None:
                raise ValueError(f"no pickle: its byte {machine.at - 1:,} is no opcode")
            step(machine)
            if machine.done:
                return machine.result, machine.at
            if len(machine.stack) > MAX_HELD or len(machine.memo) > MAX_HELD:
                raise ValueError(f"the pickle holds more than {MAX_HELD:,} values at once")
    except (TypeError, OverflowError, struct.error, UnicodeError) as error:
        raise ValueError(f"a corrupt pickle: {error}") from None
    raise ValueError(f"the pickle has more than {MAX_STEPS:,} opcodes")
