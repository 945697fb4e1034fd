"""What a scorer's answers show: each rule of scoring, PASS, FAIL or UNDECIDED, with its evidence.

The tests are dynamic: streams of which something was changed, and what moved. They find what a
scorer does on these streams, not what it could do on others.
"""

from __future__ import annotations

import numpy as np

from core.data.findings import Finding
from core.score.case import Case
from core.score.mixture import SUM_TOLERANCE
from core.score.moved import blind, causality, isolated, repeatable, score_first

KNOWN = 0.5  # probability of a token behind another text: nobody guesses that,
KNOWN_KINDS = 3  # of so many different tokens, ...
KNOWN_FRAC = 0.05  # ... and of such a part of those asked for
CHANCE_FRAC = 0.01  # a model that knows none may be right so often
SURE_NATS = 0.05
SURE_TOKENS = 64  # of a row that is known for sure


def audit(case: Case) -> list[Finding]:
    """One finding a rule, and those that the tape named. ValueError where nothing was answered."""
    named = {answer.rule: answer.error for answer in reversed(case.answers) if answer.rule}
    findings = [case.say(rule, "FAIL", error) for rule, error in named.items()]
    if case.base.error:
        if findings:
            return findings
        raise ValueError(f"{case.subject} did not score the text: {case.base.error}{_partly(case)}")
    moves = causality(case), blind(case)
    moved = any(one.status == "FAIL" for one in moves)
    findings += [*moves, normalised(case), own_distribution(case), score_first(case, moved)]
    findings += [single_pass(case), once(case), repeatable(case), isolated(case), inside(case)]
    said = "what it optimises before it scores cannot be told from any other scorer by its answers"
    findings.append(case.say("context alone", "UNDECIDED", said))
    return [one for one in findings if one.rule not in named or one.status == "FAIL"]


def _partly(case: Case) -> str:
    """How far a scorer came that ended with an error: its score so far is no score."""
    done = np.flatnonzero(case.base.times)
    if not len(done):
        return ""
    nats, of_targets = float(np.mean(case.base.nats[done])), len(case.base.nats) - 1
    return f"; partial, not a score: {len(done):,} of {of_targets:,} targets, {nats:.4f} nats each"


def normalised(case: Case) -> Finding:
    """The probabilities of all tokens add up to 1, and none is more."""
    found, rule = case.base.log_probs, "normalised"
    more = np.flatnonzero(case.base.nats < -SUM_TOLERANCE)
    if len(more):
        nats = case.base.nats[more[0]]
        return case.say(rule, "FAIL", f"target {more[0]} has {nats:.6g} nats: more than certain")
    if not found:
        return case.say(rule, "UNDECIDED", "it gave no distribution that was asked for")
    for target, log_probs in sorted(found.items()):
        if log_probs.shape != (case.vocab_size,):
            said = f"that of target {target} is over {len(log_probs):,} tokens, not the "
            return case.say(rule, "FAIL", f"{said}{case.vocab_size:,} of the vocabulary")
    with np.errstate(over="ignore"):
        sums = {target: float(np.exp(found[target]).sum()) for target in sorted(found)}
    off = {target: abs(total - 1.0) for target, total in sums.items()}
    wrong = [target for target in off if not off[target] <= SUM_TOLERANCE]
    if wrong:
        said = f"the probabilities of target {wrong[0]} add up to {sums[wrong[0]]:.6g}"
        return case.say(rule, "FAIL", f"{said}; {len(wrong)} of {len(sums)} asked are not 1")
    told = f"each sum within {max(off.values()):.1e} of 1 ({SUM_TOLERANCE:g} allowed)"
    return case.say(rule, *case.unless_noisy(f"{_some(case)}: {told}"))


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
    told = f"{_some(case)}: {said_nats:.4f} nats scored, {own:.4f} by the distributions"
    return case.say("own distribution", *case.unless_noisy(told + with_bytes))


def single_pass(case: Case) -> Finding:
    """Blocks come from left to right, of each document or of all, if it learns from them."""
    reached, base = dict[int, int](), case.base
    for first, count in base.blocks:
        document = case.document(first)
        if first < reached.get(document, 1):
            said = f"target {first} came behind target {reached[document] - 1}"
            if base.adapts:
                return case.say("single pass", "FAIL", f"{said}, and the state had moved")
            if not all(base.states) or base.opaque:
                said += "; whether it adapts was not seen"
                return case.say("single pass", "UNDECIDED", said)
        reached[document] = first + count
    ordered = all(a[0] < b[0] for a, b in zip(base.blocks, base.blocks[1:], strict=False))
    said = "from left to right" if ordered else "not from left to right; it does not adapt"
    if case.by_document:
        said = "each document from left to right"
    return case.say("single pass", *case.unless_noisy(f"{len(base.blocks)} blocks, {said}"))


def once(case: Case) -> Finding:
    """Each target but the first token counts once."""
    for play, answer in case.of("text", "again", "future", "target", "cut"):
        if answer.error:
            continue
        wrong = np.flatnonzero(answer.times[1:] != 1) + 1
        if len(wrong) or answer.times[0]:
            at = int(wrong[0]) if len(wrong) else 0
            told = f"{play.told}, target {at} was scored {answer.times[at]} times"
            told += f"; {len(wrong)} of {len(answer.times) - 1} targets not once"
            return case.say("once", "FAIL", told)
        bad = np.flatnonzero(~np.isfinite(answer.nats[1:])) + 1
        if len(bad):
            value = answer.nats[bad[0]]
            return case.say("once", "FAIL", f"target {bad[0]} has {value} nats: no score")
    return case.say("once", *case.unless_noisy(f"each of {len(case.base.nats) - 1} targets"))


def inside(case: Case) -> Finding:
    """Behind another text nobody knows the tokens of this one."""
    rule, (play, answer) = "no validation inside", case.of("other text")[0]
    if not case.real:
        return case.say(rule, "UNDECIDED", "not seen: the audit was given no validation text")
    tokens, other = case.plays[0].tokens, play.tokens
    asked = {t: p for t, p in answer.log_probs.items() if other[t] != tokens[t] < len(p)}
    if answer.error or not asked:
        return case.say(rule, "UNDECIDED", f"no distribution {play.told}: {answer.error}")
    known = [t for t, p in sorted(asked.items()) if np.exp(p[tokens[t]]) > KNOWN]
    kinds = len({int(tokens[t]) for t in known})
    said = f"{play.told}, {len(known)} of {len(asked)} tokens of the validation text have a "
    said += f"probability above {KNOWN}"
    if len(known) > CHANCE_FRAC * len(asked):
        said += f", the first of them {known[0]}; {kinds} different ones"
        many = kinds >= max(KNOWN_KINDS, KNOWN_FRAC * len(asked))
        return case.say(rule, "FAIL" if many else "UNDECIDED", said)
    run, at = _longest_run(case.base.nats[1:] < SURE_NATS)
    if run >= SURE_TOKENS:
        said += f"; but {run} targets from {at + 1} on are scored below {SURE_NATS} nats each"
        return case.say(rule, "UNDECIDED", said)
    return case.say(rule, *case.unless_noisy(said))


def _longest_run(marks: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, int]:
    """How many marks follow each other, at most, and where."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    at = int(np.argmax(stops - starts))
    return int(stops[at] - starts[at]), int(starts[at])


def _some(case: Case) -> str:
    asked = len(case.plays[0].ask)
    given = len(case.base.log_probs)
    return f"{given} targets" if given == asked else f"{given} of {asked} targets asked for"
