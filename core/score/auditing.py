"""What a scorer's answers show: each rule of scoring, PASS, FAIL or UNDECIDED, with its evidence.

The tests are dynamic: streams of which something was changed, and what moved. They find what a
scorer does on these streams, not what it could do on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from core.data.findings import Finding, Status
from core.score.answers import Answer, apart, distributions_apart, first_moved
from core.score.mixture import SUM_TOLERANCE
from core.score.plays import Kind, Play
from core.score.rules import SCORER_BY_ID

TOLERANCE_NATS = 1e-4  # kernels depend on the shape of what they are given
NOISE = 10.0  # times the difference of two equal plays: what chance may do
KNOWN = 0.5  # probability of a token behind another text: nobody guesses that
SURE_NATS = 0.05
SURE_TOKENS = 64  # of a row that is known for sure


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A scorer's answers; `isolates`: whether it claims that documents are."""

    subject: str
    plays: Sequence[Play]
    answers: Sequence[Answer]
    vocab_size: int
    tolerance_nats: float = TOLERANCE_NATS
    isolates: bool = False
    real: bool = False  # the stream is the validation text

    @property
    def base(self) -> Answer:
        return self.answers[0]

    @property
    def noise_nats(self) -> float:
        """By how much two plays of one stream differ."""
        again = self.of("again")[0][1]
        return 0.0 if again.error else float(apart(self.base.nats, again.nats).max(initial=0.0))

    @property
    def bound_nats(self) -> float:
        """More than this is a difference that means something."""
        noise = self.noise_nats
        return NOISE * noise if noise > self.tolerance_nats else self.tolerance_nats

    def of(self, *kinds: Kind) -> list[tuple[Play, Answer]]:
        pairs = zip(self.plays, self.answers, strict=True)
        return [(play, answer) for play, answer in pairs if play.kind in kinds]

    def say(self, rule: str, status: Status, evidence: str) -> Finding:
        source = SCORER_BY_ID[rule].source
        return Finding(
            rule=rule, status=status, subject=self.subject, evidence=evidence, source=source
        )


def audit(case: Case) -> list[Finding]:
    """One finding a rule, and those that the tape named. ValueError where nothing was answered."""
    named = {answer.rule: answer.error for answer in reversed(case.answers) if answer.rule}
    findings = [case.say(rule, "FAIL", error) for rule, error in named.items()]
    if case.base.error:
        if findings:
            return findings
        raise ValueError(f"{case.subject} did not score the text: {case.base.error}")
    moves = causality(case), blind(case)
    moved = any(one.status == "FAIL" for one in moves)
    findings += [*moves, normalised(case), own_distribution(case), score_first(case, moved)]
    findings += [single_pass(case), once(case), repeatable(case), isolated(case), inside(case)]
    said = "what it optimises before it scores cannot be told from any other scorer by its answers"
    findings.append(case.say("context alone", "UNDECIDED", said))
    return [one for one in findings if one.rule not in named or one.status == "FAIL"]


def causality(case: Case) -> Finding:
    """Nothing up to a token moves when what follows it does."""
    pairs = case.of("future", "target", "cut")
    moves = []
    for play, answer in pairs:
        stop = play.same if play.kind == "target" else play.same + 1
        moves += _nats_moved(case, play, answer, 1, stop)
        if play.kind != "target":
            moves += _distribution_moved(case, play, answer)
    return _compared(case, "causality", pairs, moves)


def blind(case: Case) -> Finding:
    """The distribution of a token is the same whatever that token is."""
    pairs = case.of("target")
    moves = [said for pair in pairs for said in _distribution_moved(case, *pair)]
    return _compared(case, "blind to the token", pairs, moves, asked=True)


def normalised(case: Case) -> Finding:
    """The probabilities of all tokens add up to 1."""
    found = case.base.log_probs
    if not found:
        return case.say("normalised", "UNDECIDED", "it gave no distribution that was asked for")
    worst, where = 0.0, 0
    for target, log_probs in sorted(found.items()):
        if log_probs.shape != (case.vocab_size,):
            said = f"that of target {target} is over {len(log_probs):,} tokens, not the "
            return case.say("normalised", "FAIL", f"{said}{case.vocab_size:,} of the vocabulary")
        with np.errstate(over="ignore"):
            wrong = abs(float(np.exp(log_probs).sum()) - 1.0)
        if not wrong <= worst:
            worst, where = wrong, target
    if not worst <= SUM_TOLERANCE:
        with np.errstate(over="ignore"):
            total = float(np.exp(found[where]).sum())
        said = f"the probabilities of target {where} add up to {total:.6g}, of {len(found)} asked"
        return case.say("normalised", "FAIL", said)
    said = f"{_some(case, found)}: each sum within {worst:.1e} of 1 ({SUM_TOLERANCE:g} allowed)"
    return case.say("normalised", *_whole(case, said))


def own_distribution(case: Case) -> Finding:
    """The nats are those of the distribution that was asked for, and the sum of the bytes'."""
    found, nats = case.base.log_probs, case.base.nats
    if not found:
        said = "it gave no distribution that was asked for"
        return case.say("own distribution", "UNDECIDED", said)
    tokens, said_nats, own = case.plays[0].tokens, 0.0, 0.0
    for target, log_probs in sorted(found.items()):
        token = int(tokens[target])
        mine = -float(log_probs[token]) if token < len(log_probs) else float("inf")
        ways = {"its distribution": mine}
        if target in case.base.byte_nats:
            ways["its bytes together"] = float(case.base.byte_nats[target].sum())
        for name, other in ways.items():
            if not abs(nats[target] - other) <= case.bound_nats:
                told = f"target {target}, token {token}: {nats[target]:.6g} nats were scored, "
                told += f"{other:.6g} by {name} (tolerance {case.bound_nats:.0e})"
                return case.say("own distribution", "FAIL", told)
        said_nats, own = said_nats + nats[target], own + mine
    with_bytes = f", and by bytes at {len(case.base.byte_nats)}" * bool(case.base.byte_nats)
    told = f"{_some(case, found)}: {said_nats:.4f} nats scored, {own:.4f} by the distributions"
    return case.say("own distribution", *_whole(case, told + with_bytes))


def score_first(case: Case, moved: bool) -> Finding:
    """The state that scores a block is the same whatever the block's targets are."""
    unknown = case.base.opaque or ("" if all(case.base.states) else "a state that is not given")
    compared, differs = 0, ""
    for play, answer in case.of("future", "target"):
        changes = play.same + (play.kind == "future")
        for at, state in _states_until(case, answer, changes):
            compared += 1
            if state != answer.states[at] and not differs:
                differs = f"{play.told} the state was another one before block {at} was scored, "
                differs += f"whose first target is {case.base.blocks[at][0]}"
    if differs:
        if moved:
            return case.say("score first", "FAIL", f"{differs}; and scores moved")
        said = f"{differs}; no score that was asked for moved"
        return case.say("score first", "UNDECIDED", said)
    if unknown or not compared:
        said = f"not seen: {unknown or 'its blocks are others when tokens change'}"
        return case.say("score first", "UNDECIDED", said)
    told = f"{len(case.base.blocks)} blocks, {compared} states before them: none knew its targets"
    if len(case.base.blocks) == 1:
        return case.say("score first", "UNDECIDED", f"{told}; one block shows no learning")
    told += "; it adapts" if case.base.adapts else "; it does not adapt"
    return case.say("score first", *_whole(case, told))


def _states_until(case: Case, answer: Answer, changes: int) -> Iterator[tuple[int, str]]:
    """Blocks up to the one that holds the first token that was changed, and their states."""
    base = case.base
    for at, block in enumerate(base.blocks[: len(answer.blocks)]):
        if answer.blocks[at] != block or not base.states[at]:
            return
        yield at, base.states[at]
        if block[0] + block[1] > changes:
            return


def single_pass(case: Case) -> Finding:
    """Blocks come from left to right, if it learns from them."""
    ends, base = 1, case.base
    for first, count in base.blocks:
        if first < ends:
            said = f"target {first} came behind target {ends - 1}"
            if base.adapts:
                return case.say("single pass", "FAIL", f"{said}, and the state had moved")
            if not all(base.states) or base.opaque:
                said += "; whether it adapts was not seen"
                return case.say("single pass", "UNDECIDED", said)
        ends = first + count
    ordered = all(a[0] < b[0] for a, b in zip(base.blocks, base.blocks[1:], strict=False))
    said = "from left to right" if ordered else "not from left to right; it does not adapt"
    return case.say("single pass", *_whole(case, f"{len(base.blocks)} blocks, {said}"))


def once(case: Case) -> Finding:
    """Each target but the first token counts once."""
    for play, answer in case.of("text", "again", "future", "target"):
        if answer.error:
            continue
        wrong = np.flatnonzero(answer.times[1:] != 1) + 1
        if len(wrong) or answer.times[0]:
            at = int(wrong[0]) if len(wrong) else 0
            told = f"{play.told}, target {at} was scored {answer.times[at]} times"
            told += f"; {len(wrong)} of {len(answer.times) - 1} targets not once"
            return case.say("once", "FAIL", told)
        bad = np.flatnonzero(~np.isfinite(answer.nats[1:]) | (answer.nats[1:] < 0)) + 1
        if len(bad):
            value = answer.nats[bad[0]]
            return case.say("once", "FAIL", f"target {bad[0]} has {value} nats: no score")
    return case.say("once", *_whole(case, f"each of {len(case.base.nats) - 1} targets"))


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


def isolated(case: Case) -> Finding:
    """The documents before change, and nothing of the next ones does."""
    pairs, moves = case.of("document"), []
    for play, answer in pairs:
        moves += _nats_moved(case, play, answer, play.same + 1, len(play.tokens))
    if not pairs:
        said = "the text holds no second document: nothing to see"
        return case.say("isolated documents", "UNDECIDED", said)
    if case.isolates:
        return _compared(case, "isolated documents", pairs, moves)
    seen = f"what was seen: {moves[0]}" if moves else "nothing was seen to cross a document"
    said = f"not claimed, and whether it must be is an open question; {seen}"
    return case.say("isolated documents", "UNDECIDED", said)


def inside(case: Case) -> Finding:
    """Behind another text nobody knows the tokens of this one."""
    rule, (play, answer) = "no validation inside", case.of("other text")[0]
    if not case.real:
        return case.say(rule, "UNDECIDED", "not seen: the audit was given no validation text")
    tokens, other = case.plays[0].tokens, play.tokens
    asked = {t: p for t, p in answer.log_probs.items() if other[t] != tokens[t] < len(p)}
    if answer.error or not asked:
        return case.say(rule, "UNDECIDED", f"no distribution {play.told}: {answer.error}")
    known = sorted(float(np.exp(p[tokens[t]])) for t, p in asked.items())
    said = f"{play.told}, {len(known)} tokens of the validation text have a probability of "
    said += f"{known[len(known) // 2]:.3g} in the median"
    if known[len(known) // 2] > KNOWN:
        return case.say(rule, "FAIL", said)
    run, at = _longest_run(case.base.nats[1:] < SURE_NATS)
    if run >= SURE_TOKENS:
        said += f"; but {run} targets from {at + 1} on are scored below {SURE_NATS} nats each"
        return case.say(rule, "UNDECIDED", said)
    return case.say(rule, *_whole(case, said))


def _longest_run(marks: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, int]:
    """How many marks follow each other, at most, and where."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    at = int(np.argmax(stops - starts))
    return int(stops[at] - starts[at]), int(starts[at])


def _nats_moved(case: Case, play: Play, answer: Answer, first: int, stop: int) -> list[str]:
    if answer.error:
        return []
    at = first_moved(case.base.nats, answer.nats, first, stop, case.bound_nats)
    if at is None:
        return []
    before, after = case.base.nats[at], answer.nats[at]
    return [f"{play.told} target {at} went from {before:.6g} to {after:.6g} nats"]


def _distribution_moved(case: Case, play: Play, answer: Answer) -> list[str]:
    mine, other = (one.log_probs.get(play.same) for one in (case.base, answer))
    if answer.error or mine is None or other is None:
        return []
    far = distributions_apart(mine, other)
    if far <= case.bound_nats:
        return []
    return [f"{play.told} the distribution of target {play.same} moved by {far:.3g} nats"]


def _compared(
    case: Case,
    rule: str,
    pairs: list[tuple[Play, Answer]],
    moves: list[str],
    *,
    asked: bool = False,
) -> Finding:
    """FAIL with the first counter-example; PASS where every comparison could be made."""
    tolerance = f"tolerance {case.bound_nats:.0e} nats"
    if moves:
        return case.say(rule, "FAIL", f"{moves[0]}; {len(moves)} such moves ({tolerance})")
    seen = [p for p, a in pairs if not a.error and (not asked or p.same in a.log_probs)]
    if not seen:
        return case.say(rule, "UNDECIDED", "it gave no answers that could be compared")
    said = f"{len(seen)} of {len(pairs)} changed streams compared, nothing moved ({tolerance})"
    if len(seen) < len(pairs):
        ended = next((a.error for _, a in pairs if a.error), "no distribution where asked")
        return case.say(rule, "UNDECIDED", f"{said}; one ended with: {ended}")
    return case.say(rule, *_whole(case, said))


def _whole(case: Case, said: str) -> tuple[Status, str]:
    """PASS, unless chance moves the scores."""
    if case.noise_nats > case.tolerance_nats:
        return "UNDECIDED", f"{said}; but equal plays differ by {case.noise_nats:.3g} nats"
    return "PASS", said


def _some(case: Case, found: object) -> str:
    asked = len(case.plays[0].ask)
    given = len(case.base.log_probs)
    return f"{given} targets" if given == asked else f"{given} of {asked} targets asked for"
