"""What may not move when something of a stream is changed: the rules that two answers show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.data.findings import Finding
from core.score.answers import Answer, distributions_apart, first_moved
from core.score.case import Case
from core.score.plays import Play

SHOWN = 6  # places of counter-examples
HALF_PRECISION_NATS = 0.05  # what bfloat16 kernels of other shapes may move


def causality(case: Case) -> Finding:
    """Nothing up to a token moves when what follows it does."""
    pairs = case.of("future", "target", "cut")
    moves: list[Move] = []
    for play, answer in pairs:
        stop = play.same if play.kind == "target" else play.same + 1
        moves += _nats_moved(case, play, answer, 1, stop)
        if play.kind != "target":
            moves += _distribution_moved(case, play, answer)
    if moves and (open_ := _open(case, pairs, moves)):
        return case.say("causality", "UNDECIDED", open_)
    return _compared(case, "causality", pairs, moves)


def _open(case: Case, pairs: list[tuple[Play, Answer]], moves: list[Move]) -> str:
    """Why moves are not looking ahead, where they all have another cause; else nothing."""
    cuts = {play.told for play, _ in pairs if play.kind == "cut"}
    if case.told_length and all(any(move.told.startswith(told) for told in cuts) for move in moves):
        said = "only the length of the text moves it, as a rate that falls over all of it does"
        return f"{said}: {_listed(moves)}"
    if case.by_document and all(
        case.document(move.target) != case.document(move.same) for move in moves
    ):
        said = "documents are scored in an order of their own, and only others than the one that "
        return f"{said}changed move: {_listed(moves)}"
    return ""


def blind(case: Case) -> Finding:
    """The distribution of a token is the same whatever that token is."""
    pairs = case.of("target")
    moves = [move for pair in pairs for move in _distribution_moved(case, *pair)]
    return _compared(case, "blind to the token", pairs, moves, asked=True)


def score_first(case: Case, moved: bool) -> Finding:
    """The state that scores a block is the same whatever the block's targets are."""
    differs, compared = _states_moved(case)
    blocks, unknown = len(case.base.blocks), case.base.opaque
    if not unknown and not all(case.base.states):
        unknown = "a state that is not given"
    told = f"{blocks} blocks, {compared} states before them: none knew its targets"
    if differs and moved:
        return case.say("score first", "FAIL", f"{differs}; and scores moved")
    if differs:
        said = f"{differs}; no score that was asked for moved"
    elif moved:
        said = f"scores moved, and none of {compared} states that it showed before them"
    elif unknown or not compared:
        said = f"not seen: {unknown or 'its blocks are others when tokens change'}"
    elif blocks == 1:
        said = f"{told}; one block shows no learning: more --tokens"
    else:
        told += "; it adapts" if case.base.adapts else "; it does not adapt"
        return case.say("score first", *case.unless_noisy(told))
    return case.say("score first", "UNDECIDED", said)


def _states_moved(case: Case) -> tuple[str, int]:
    """The first state that knew the targets of its block, in words, and how many were compared."""
    compared, differs = 0, ""
    for play, answer in case.of("future", "target"):
        changes = play.same + (play.kind == "future")
        for at, state in _states_until(case, answer, changes):
            compared += 1
            if state != answer.states[at] and not differs:
                differs = f"{play.told} the state was another one before block {at} was scored, "
                differs += f"whose first target is {case.base.blocks[at][0]}"
    return differs, compared


def isolated(case: Case) -> Finding:
    """The documents before change, and nothing of the next ones does."""
    pairs, moves = case.of("document"), list[Move]()
    for play, answer in pairs:
        moves += _nats_moved(case, play, answer, play.same + 1, len(play.tokens))
    if not pairs:
        said = "the text holds no second document: nothing to see"
        return case.say("isolated documents", "UNDECIDED", said)
    if case.isolates:
        return _compared(case, "isolated documents", pairs, moves)
    seen = f"what was seen: {moves[0].told}" if moves else "nothing was seen to cross a document"
    said = f"not claimed, and whether it must be is an open question; {seen}"
    return case.say("isolated documents", "UNDECIDED", said)


def repeatable(case: Case) -> Finding:
    """A second fresh start, asked for nothing, gives the same nats."""
    again = case.of("again")[0][1]
    if again.error:
        said = f"a second fresh start ended with: {again.error}"
        return case.say("repeatable", "UNDECIDED", said)
    at = first_moved(case.base.nats, again.nats, 0, len(again.nats), case.tolerance_nats)
    if at is None:
        said = f"two fresh starts differ by {case.noise_nats:.1e} nats at most"
        return case.say("repeatable", "PASS", f"{said} (tolerance {case.tolerance_nats:.0e})")
    said = f"target {at}: {case.base.nats[at]:.6g} nats, and {again.nats[at]:.6g} from a second "
    return case.say("repeatable", "FAIL", f"{said}fresh start that was asked for nothing")


def _states_until(case: Case, answer: Answer, changes: int) -> Iterator[tuple[int, str]]:
    """Blocks up to the one that holds the first token that was changed, and their states."""
    base = case.base
    for at, block in enumerate(base.blocks[: len(answer.blocks)]):
        if answer.blocks[at] != block or not base.states[at]:
            return
        yield at, base.states[at]
        if block[0] + block[1] > changes:
            return


@dataclass(frozen=True, kw_only=True)
class Move:
    """A counter-example: the first target that moved in a play, and by how much."""

    target: int
    nats: float
    told: str
    same: int  # the last token before what was changed


def _nats_moved(case: Case, play: Play, answer: Answer, first: int, stop: int) -> list[Move]:
    if answer.error:
        return []
    nats = answer.nats
    if play.kind == "cut":  # a tail that is left out is no other score
        nats = np.where(answer.times > 0, nats, case.base.nats[: len(nats)])
    at = first_moved(case.base.nats, nats, first, stop, case.bound_nats)
    if at is None:
        return []
    before, after = float(case.base.nats[at]), float(answer.nats[at])
    told = f"{play.told} target {at} went from {before:.6g} to {after:.6g} nats"
    return [Move(target=at, nats=abs(after - before), told=told, same=play.same)]


def _distribution_moved(case: Case, play: Play, answer: Answer) -> list[Move]:
    mine, other = (one.log_probs.get(play.same) for one in (case.base, answer))
    if answer.error or mine is None or other is None:
        return []
    far = distributions_apart(mine, other)
    if far <= case.bound_nats:
        return []
    told = f"{play.told} the distribution of target {play.same} moved by {far:.3g} nats"
    return [Move(target=play.same, nats=far, told=told, same=play.same)]


def _compared(
    case: Case,
    rule: str,
    pairs: list[tuple[Play, Answer]],
    moves: list[Move],
    *,
    asked: bool = False,
) -> Finding:
    """FAIL with the counter-examples; PASS where every comparison could be made."""
    tolerance = f"tolerance {case.bound_nats:.0e} nats"
    if moves:
        return case.say(rule, "FAIL", f"{_listed(moves)} ({tolerance})")
    seen = [p for p, a in pairs if not a.error and (not asked or p.same in a.log_probs)]
    if not seen:
        return case.say(rule, "UNDECIDED", "it gave no answers that could be compared")
    said = f"{len(seen)} of {len(pairs)} changed streams compared, nothing moved ({tolerance})"
    if len(seen) < len(pairs):
        ended = next((a.error for _, a in pairs if a.error), "no distribution where asked")
        return case.say(rule, "UNDECIDED", f"{said}; one ended with: {ended}")
    return case.say(rule, *case.unless_noisy(said))


def _listed(moves: list[Move]) -> str:
    """The first move in words, and the places of the others."""
    places = sorted({move.target for move in moves})
    shown = ", ".join(map(str, places[:SHOWN])) + ", ..." * (len(places) > SHOWN)
    largest = max(move.nats for move in moves)
    said = f"{moves[0].told}; {len(moves)} such moves, at targets {shown}, by {largest:.3g} at most"
    if largest < HALF_PRECISION_NATS:
        said += "; so little may be the rounding of half precision: try float32 or --tolerance"
    return said
