"""What each opcode of a pickle does to the machine; none of them calls or looks up anything."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from tools.strangers.pickle_arrays import Named, Object, Table, rebuilt, stated
from tools.strangers.pickle_stack import (
    MARK,
    Machine,
    Value,
    decimal,
    latin,
    long_number,
    quoted,
    real,
    utf8,
)

MAX_COPIED_BYTES = 1 << 26


def _sized(form: str, make: Callable[[bytes], Value]) -> Callable[[Machine], None]:
    return lambda m: m.push(make(m.take(m.number(form))))


def _constant(value: Value) -> Callable[[Machine], None]:
    return lambda m: m.push(value)


def _new(make: Callable[[], Value]) -> Callable[[Machine], None]:
    return lambda m: m.push(make())


def _gather(make: Callable[[list[Value]], Value]) -> Callable[[Machine], None]:
    return lambda m: m.push(make(m.marked()))


def _last(count: int) -> Callable[[Machine], None]:
    return lambda m: m.push(tuple([m.pop() for _ in range(count)][::-1]))


def _put(form: str | None) -> Callable[[Machine], None]:
    def put(machine: Machine) -> None:
        key = _index(machine) if form is None else machine.number(form)
        machine.memo[key] = machine.top()

    return put


def _get(form: str | None) -> Callable[[Machine], None]:
    def get(machine: Machine) -> None:
        key = _index(machine) if form is None else machine.number(form)
        if key not in machine.memo:
            raise ValueError(f"the pickle recalls {key}, which it never stored")
        machine.push(machine.memo[key])

    return get


def _index(machine: Machine) -> int:
    text = machine.line()
    if not text.isdecimal() or len(text) > 10:
        raise ValueError("the pickle has a memo entry that is no number")
    return int(text)


def _memoize(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.top()


def _append(machine: Machine) -> None:
    _extend(machine, [machine.pop()])


def _extend(machine: Machine, items: list[Value]) -> None:
    owner = machine.top()
    if isinstance(owner, list):
        owner.extend(items)
    elif isinstance(owner, Object):
        owner.held.extend(items)
    else:
        raise ValueError("the pickle appends to what is no list")


def _set_items(machine: Machine, items: list[Value]) -> None:
    owner = machine.top()
    if not isinstance(owner, Table | Object) or len(items) % 2:
        raise ValueError("the pickle sets items of what is no dict")
    owner.pairs.extend(zip(items[::2], items[1::2], strict=True))


def _global(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push(_named(module, name))


def _named(module: str, name: str) -> Named:
    return Named(name=f"{module[:100]}.{name[:100]}")


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError("the pickle names something by what is no text")
    machine.push(_named(module, name))


def _instance(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push(rebuilt(_named(module, name), tuple(machine.marked())))


def _object(machine: Machine) -> None:
    made, *args = machine.marked() or [None]
    machine.push(rebuilt(made, tuple(args)))


def _reduce(machine: Machine) -> None:
    args, made = machine.pop(), machine.pop()
    if isinstance(args, tuple) and args and isinstance(args[0], str):
        machine.copied += len(args[0])
        if machine.copied > MAX_COPIED_BYTES:
            raise ValueError(f"the pickle makes more than {MAX_COPIED_BYTES:,} bytes anew")
    machine.push(rebuilt(made, args if isinstance(args, tuple) else (args,)))


def _new_with_words(machine: Machine) -> None:
    words = machine.pop()
    _reduce(machine)
    if isinstance(made := machine.top(), Object):
        made.held.append(words)


def _build(machine: Machine) -> None:
    state = machine.pop()
    stated(machine.top(), state)  # in place: the memo holds it already


def _persistent(machine: Machine) -> None:
    machine.push(Named(name="persistent id", args=(machine.pop(),)))


def _stop(machine: Machine) -> None:
    machine.result, machine.done = machine.pop(), True


def _discard(machine: Machine) -> None:
    if not machine.stack:
        raise ValueError("the pickle takes from an empty stack")
    machine.stack.pop()


def _discard_marked(machine: Machine) -> None:
    machine.marked()


def _skip(count: int) -> Callable[[Machine], None]:
    def skip(machine: Machine) -> None:
        machine.take(count)

    return skip


def _extend_marked(machine: Machine) -> None:
    items = machine.marked()
    _extend(machine, items)


def _set_one(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _set_marked(machine: Machine) -> None:
    items = machine.marked()
    _set_items(machine, items)


_UNESCAPED = codecs.getdecoder("raw-unicode-escape")  # found once: a codec is an import
OPCODES: dict[int, Callable[[Machine], None]] = {
    ord("("): _constant(MARK),
    ord(")"): _constant(()),
    ord("."): _stop,
    ord("0"): _discard,
    ord("1"): _discard_marked,
    ord("2"): lambda m: m.push(m.top()),
    ord("B"): _sized("<I", bytes),
    ord("C"): _sized("<B", bytes),
    ord("F"): real,
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("I"): decimal,
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("L"): decimal,
    ord("M"): lambda m: m.push(m.number("<H")),
    ord("N"): _constant(None),
    ord("P"): lambda m: m.push(Named(name="persistent id", args=(m.line(),))),
    ord("Q"): _persistent,
    ord("R"): _reduce,
    ord("S"): quoted,
    ord("T"): _sized("<i", latin),
    ord("U"): _sized("<B", latin),
    ord("V"): lambda m: m.push(_UNESCAPED(m.raw_line(), "replace")[0]),
    ord("X"): _sized("<I", utf8),
    ord("]"): _new(list),
    ord("a"): _append,
    ord("b"): _build,
    ord("c"): _global,
    ord("d"): _gather(Table.of),
    ord("e"): _extend_marked,
    ord("g"): _get(None),
    ord("h"): _get("<B"),
    ord("i"): _instance,
    ord("j"): _get("<I"),
    ord("l"): _gather(list),
    ord("o"): _object,
    ord("p"): _put(None),
    ord("q"): _put("<B"),
    ord("r"): _put("<I"),
    ord("s"): _set_one,
    ord("t"): _gather(tuple),
    ord("u"): _set_marked,
    ord("}"): _new(Table),
    0x80: _skip(1),
    0x81: _reduce,
    0x82: lambda m: m.push(Named(name=f"extension {m.number('<B')}")),
    0x83: lambda m: m.push(Named(name=f"extension {m.number('<H')}")),
    0x84: lambda m: m.push(Named(name=f"extension {m.number('<i')}")),
    0x85: _last(1),
    0x86: _last(2),
    0x87: _last(3),
    0x88: _constant(True),
    0x89: _constant(False),
    0x8A: _sized("<B", long_number),
    0x8B: _sized("<i", long_number),
    0x8C: _sized("<B", utf8),
    0x8D: _sized("<Q", utf8),
    0x8E: _sized("<Q", bytes),
    0x8F: _new(list),
    0x90: _extend_marked,
    0x91: _gather(list),
    0x92: _new_with_words,
    0x93: _stack_global,
    0x94: _memoize,
    0x95: _skip(8),
    0x96: _sized("<Q", bytes),
    0x97: _constant(Named(name="buffer")),
    0x98: lambda m: None,
}
