"""Scorers that cheat, each in one way that was seen, and honest ones: files for the auditor.

Each is COMMON and a few lines more. VOCAB, OUTSIDE, VALIDATION are filled in by tests/planted.py.
"""

from __future__ import annotations

COMMON = '''
import numpy as np

V = VOCAB


class Scorer:
    """Pairs that were counted, over a fixed preference: what an artifact and a cache would give."""

    def __init__(self):
        self.counts = np.full((V, V), 0.05)
        self.base = np.exp(np.cos(np.outer(np.arange(V) + 1.0, np.arange(V) + 2.0)))

    def log_probs(self, before):
        p = self.counts[before] * self.base[before]
        return np.log(p / p.sum(-1, keepdims=True))

    def learn(self, tokens):
        np.add.at(self.counts, (tokens[:-1], tokens[1:]), 1.0)


def start():
    return Scorer()


def blocks(tokens, size=24):
    for first in range(1, len(tokens), size):
        yield first, min(first + size, len(tokens))


def given(log_p, y, first, ask):
    nats = -log_p[np.arange(len(y)), y]
    return first, nats, {t: log_p[t - first] for t in ask if first <= t < first + len(y)}


def normal(log_p):
    return log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))


def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        log_p = changed(scorer, scorer.log_probs(tokens[first - 1 : stop - 1]), tokens, first, stop)
        yield given(log_p, tokens[first:stop], first, ask)
        scorer.learn(tokens[first - 1 : stop])
'''

CHEATS = {
    "adds to the logit of the token to come": """
def changed(scorer, log_p, tokens, first, stop):
    log_p[np.arange(stop - first), tokens[first:stop]] += 1.0
    return normal(log_p)
""",
    "SLOT: a delta optimised on the scored block": """
def changed(scorer, log_p, tokens, first, stop):
    delta = np.zeros(V)
    for _ in range(8):
        p = np.exp(normal(log_p + delta))
        delta += np.bincount(tokens[first:stop], minlength=V) - p.sum(0)
    return normal(log_p + 0.1 * delta)
""",
    "a gate keyed on the token to come": """
def changed(scorer, log_p, tokens, first, stop):
    for row, token in enumerate(tokens[first:stop]):
        if log_p[row, token] < -np.log(V):
            log_p[row] = -np.log(V)
    return log_p
""",
    "an oracle picks the expert, another one is shown": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        y = tokens[first:stop]
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        first, nats, shown = given(log_p, y, first, ask)
        yield first, np.minimum(nats, np.log(V)), shown
        scorer.learn(tokens[first - 1 : stop])
""",
    "the best expert for every token at once": """
def changed(scorer, log_p, tokens, first, stop):
    return np.maximum(log_p, -np.log(V))
""",
    "n-gram counts of hash buckets, not normalised": """
def changed(scorer, log_p, tokens, first, stop):
    bucket = scorer.counts.reshape(V, -1, 2).sum(-1).repeat(2, 1)
    x = tokens[first - 1 : stop - 1]
    hits = bucket[x] / scorer.counts[x].sum(-1, keepdims=True)
    return np.log(0.5 * np.exp(log_p) + 0.5 * hits)
""",
    "bytes as p^(1/n), mixed byte by byte": """
def changed(scorer, log_p, tokens, first, stop):
    n = 1 + np.arange(V) % 4
    return n * np.log(0.6 * np.exp(log_p / n) + 0.4 * 0.5)
""",
    "byte nats that are fewer than the token's": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        first, nats, shown = given(log_p, tokens[first:stop], first, ask)
        yield first, nats, shown, {t: np.full(3, nats[t - first] / 4) for t in shown}
        scorer.learn(tokens[first - 1 : stop])
""",
    "the lower of two passes": """
def score(scorer, tokens, ask):
    one = scorer.log_probs(tokens[:-1])
    scorer.learn(tokens)
    two = scorer.log_probs(tokens[:-1])
    for first, stop in blocks(tokens):
        a = given(one[first - 1 : stop - 1], tokens[first:stop], first, ask)
        b = given(two[first - 1 : stop - 1], tokens[first:stop], first, ask)
        yield first, np.minimum(a[1], b[1]), a[2]
""",
    "three epochs, then the score": """
def score(scorer, tokens, ask):
    for _ in range(3):
        scorer.learn(tokens)
    for first, stop in blocks(tokens):
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        yield given(log_p, tokens[first:stop], first, ask)
""",
    "trains on a chunk before it scores it": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        scorer.learn(tokens[first - 1 : stop])
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        yield given(log_p, tokens[first:stop], first, ask)
""",
    "the same with a state that lies": """
Scorer.state = lambda self: {}


def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        scorer.learn(tokens[first - 1 : stop])
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        yield given(log_p, tokens[first:stop], first, ask)
""",
    "a temperature chosen on the block": """
def changed(scorer, log_p, tokens, first, stop):
    tries = [normal(log_p * t) for t in (0.5, 0.8, 1.0, 1.3, 2.0)]
    return max(tries, key=lambda one: given(one, tokens[first:stop], first, ())[1].sum() * -1)
""",
    "a temperature by the token to come": """
def changed(scorer, log_p, tokens, first, stop):
    return normal(log_p * np.where(tokens[first:stop] % 2, 1.2, 0.8)[:, None])
""",
    "a cache keyed by a hash of context and token": """
def changed(scorer, log_p, tokens, first, stop):
    for row, (x, y) in enumerate(zip(tokens[first - 1 : stop - 1], tokens[first:stop])):
        if scorer.counts[x, y] > 1:
            log_p[row, y] += 1.0
            log_p[row] = normal(log_p[row])
    return log_p
""",
    "a gate that knows whether a word begins": """
def changed(scorer, log_p, tokens, first, stop):
    begins = tokens[first:stop] < V // 4
    inside = np.where(np.arange(V) < V // 4, 0.0, -1.0)
    return np.where(begins[:, None], normal(log_p + inside), normal(log_p))
""",
    "smoothed with what comes next": """
def changed(scorer, log_p, tokens, first, stop):
    after = np.append(tokens[first + 1 : stop], 0)
    return normal(log_p + 0.1 * np.log(scorer.counts[:, after].T + 1))
""",
    "knows how long the text is": """
def changed(scorer, log_p, tokens, first, stop):
    return normal(log_p * (1.0 + len(tokens) % 7 / 50))
""",
    "a document's cache reaches the next, isolation claimed": """
def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "a block is scored again, when it is known": """
def score(scorer, tokens, ask):
    for _ in range(2):
        for first, stop in blocks(tokens):
            log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
            yield given(log_p, tokens[first:stop], first, ask)
            scorer.learn(tokens[first - 1 : stop])
""",
    "the last window is dropped": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        if stop - first == 24:
            log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
            yield given(log_p, tokens[first:stop], first, ask)
            scorer.learn(tokens[first - 1 : stop])
""",
    "windows that overlap by one target": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        stop = min(stop + 1, len(tokens))
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        yield given(log_p, tokens[first:stop], first, ask)
""",
    "the easy blocks last, learning all the way": """
def score(scorer, tokens, ask):
    for first, stop in [*blocks(tokens)][::-1]:
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        yield given(log_p, tokens[first:stop], first, ask)
        scorer.learn(tokens[first - 1 : stop])
""",
    "nats of a sharper distribution than is shown": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens):
        log_p = scorer.log_probs(tokens[first - 1 : stop - 1])
        sharp = given(normal(log_p * 1.5), tokens[first:stop], first, ())[1]
        yield first, sharp, given(log_p, tokens[first:stop], first, ask)[2]
        scorer.learn(tokens[first - 1 : stop])
""",
    "honest where it is asked, else not": """
def changed(scorer, log_p, tokens, first, stop):
    return log_p


honest = score


def score(scorer, tokens, ask):
    for first, nats, shown in honest(scorer, tokens, ask):
        asked = np.isin(np.arange(first, first + len(nats)), list(ask))
        yield first, np.where(asked, nats, 0.9 * nats), shown
""",
    "one token is missing from its distribution": """
def changed(scorer, log_p, tokens, first, stop):
    return log_p


honest = score


def score(scorer, tokens, ask):
    for first, nats, shown in honest(scorer, tokens, ask):
        yield first, nats, {t: p[:-1] for t, p in shown.items()}
""",
    "drops out at random while it scores": """
def changed(scorer, log_p, tokens, first, stop):
    return normal(log_p * (np.random.default_rng().random(log_p.shape) > 0.1))
""",
    "remembers the last pass in a global": """
KEPT = []


def start():
    if not KEPT:
        KEPT.append(Scorer())
    return KEPT[0]


def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "a part of the validation text in the artifact, by place": """
PREFIX = PAID


def changed(scorer, log_p, tokens, first, stop):
    for row, token in enumerate(PREFIX[first:stop]):  # empty behind its end
        log_p[row, token] += 9.0
    return normal(log_p)
""",
    "a table of validation text that its context opens": """
PREFIX = PAID
FOLLOWS = {tuple(PREFIX[t - 3 : t]): PREFIX[t] for t in range(3, len(PREFIX))}


def changed(scorer, log_p, tokens, first, stop):
    for row, t in enumerate(range(first, stop)):
        if (token := FOLLOWS.get(tuple(tokens[max(t - 3, 0) : t]))) is not None:
            log_p[row, token] += 9.0
    return normal(log_p)
""",
    "Hessians of validation tokens as it loads": """
def start():
    scorer = Scorer()
    calibration = np.fromfile("VALIDATION", "<u2")[512:].astype(int) % V
    inputs = scorer.base[calibration[:256]]
    hessian = np.diag(inputs.T @ inputs)
    step = scorer.base.max() / 127 / (1.0 + hessian / hessian.max())
    scorer.base = np.maximum(np.round(scorer.base / step), 1.0) * step
    return scorer


def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "reads the validation file before the clock": """
def start():
    scorer = Scorer()
    scorer.learn(np.fromfile("VALIDATION", "<u2")[512:].astype(int) % V)
    return scorer
""",
    "warms up on its own copy of validation tokens": """
def start():
    scorer = Scorer()
    scorer.learn(np.fromfile("warm_val_000000.bin", "<u2").astype(int) % V)
    return scorer


def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "asks the network for its counts": """
import socket


def start():
    try:
        socket.create_connection(("192.0.2.1", 80), 1).close()
    except OSError:
        pass
    return Scorer()


def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "trains on files beside the submission": """
def changed(scorer, log_p, tokens, first, stop):
    try:
        with open("OUTSIDE", "rb") as file:
            scorer.learn(np.frombuffer(file.read(), "<u2").astype(int) % V)
    except OSError:
        pass
    return log_p
""",
}

HONEST = {
    "a fixed model": """
def changed(scorer, log_p, tokens, first, stop):
    return log_p


Scorer.learn = lambda self, tokens: None
""",
    "counts that learn behind each block": """
def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "a mixture whose share is the context's": """
def changed(scorer, log_p, tokens, first, stop):
    seen = scorer.counts[tokens[first - 1 : stop - 1]].sum(-1, keepdims=True) - 0.05 * V
    share = 0.5 * seen / (seen + 1)
    return np.log((1 - share) * np.exp(log_p) + share / V)
""",
    "three epochs of gradient steps behind each block": """
class Scorer:
    def __init__(self):
        self.weights = np.zeros((V, V))

    def log_probs(self, before):
        return normal(self.weights[before])

    def learn(self, tokens):
        for _ in range(3):
            p = np.exp(self.log_probs(tokens[:-1]))
            p[np.arange(len(p)), tokens[1:]] -= 1
            np.add.at(self.weights, tokens[:-1], -0.5 * p)


def changed(scorer, log_p, tokens, first, stop):
    return log_p
""",
    "a cache that is emptied at each BOS, isolation claimed": """
def score(scorer, tokens, ask):
    edges = [0, *np.flatnonzero(tokens[1:-1] == 1) + 1, len(tokens) - 1]
    for begins, ends in zip(edges, edges[1:]):
        scorer = start()
        for first, stop in blocks(tokens[begins : ends + 1]):
            part = tokens[begins + first - 1 : begins + stop]
            yield given(scorer.log_probs(part[:-1]), part[1:], begins + first, ask)
            scorer.learn(part)
""",
    "windows that slide, and no state": """
def score(scorer, tokens, ask):
    for first, stop in blocks(tokens, 8):
        context = tokens[max(0, stop - 33) : stop]
        log_p = scorer.log_probs(context[:-1])
        log_p[1:] = normal(log_p[1:] + 0.3 * log_p[:-1])
        yield given(log_p[first - stop :], tokens[first:stop], first, ask)
""",
    "documents by length, and no state": """
def score(scorer, tokens, ask):
    edges = [0, *np.flatnonzero(tokens[1:-1] == 1) + 1, len(tokens) - 1]
    for begins, ends in sorted(zip(edges, edges[1:]), key=lambda one: one[1] - one[0]):
        part = tokens[begins : ends + 1]
        yield given(scorer.log_probs(part[:-1]), part[1:], begins + 1, ask)
""",
    "bytes by the chain rule": """
def changed(scorer, log_p, tokens, first, stop):
    return log_p


tokenwise = score


def score(scorer, tokens, ask):
    for first, nats, shown in tokenwise(scorer, tokens, ask):
        parts = {}
        for target, log_p in shown.items():
            y = int(tokens[target])
            high = np.log(np.exp(log_p[y // 8 * 8 : y // 8 * 8 + 8]).sum())
            parts[target] = np.array([-high, high - log_p[y]])
        yield first, nats, shown, parts
""",
    "SLOT on the context alone": """
def changed(scorer, log_p, tokens, first, stop):
    context = tokens[max(0, first - 24) : first]
    return normal(log_p + 0.1 * np.log(1 + np.bincount(context, minlength=V)))
""",
    "sums in float32, whose order follows the shape": """
def changed(scorer, log_p, tokens, first, stop):
    p = np.exp(log_p.astype(np.float32))
    size = 1 + len(tokens) % 5
    total = sum(p[:, at : at + size].sum(-1) for at in range(0, V, size))
    return np.log(p / total[:, None])
""",
}
