"""The text of an adapter: the two functions through which a stranger's scorer is audited."""

MARK = "# SEEN\n"  # where the script's own lines go
TEMPLATE = '''\
"""A scorer as `golf audit scorer THIS.py --run` asks for it: fill in start() and score().

The file lies in the submission's folder, of which the audit works on a copy: open files by their
names. Nothing else can be read, but for what `--allow PATH` names; there is no network.
"""

# SEEN

import numpy as np  # noqa: F401


def start():
    """A fresh scorer, as the artifact gives it: load the weights, build tables, warm up.

    Called before the scoring clock, once for every stream: no validation file may be opened here,
    and nothing of an earlier stream may be left (bytes that scoring never changes may stay in a
    global: an audit plays dozens of streams). Keep in the object that you return all that later
    scores depend on and that changes while scoring; the audit hashes what it holds (its fields,
    arrays and tensors; or what its method state() returns, where it has one).
    """
    raise NotImplementedError("start() of the adapter is not filled in")


def score(scorer, tokens, ask):
    """Score a stream, block by block, in the order in which your scorer fixes its scores.

    tokens: int32 (N,), the whole stream; targets are 1 .. N-1, each scored once.
    ask: a set of targets whose whole distribution is wanted.

    Yield for each block (first, nats, log_probs):
        first      the block's first target
        nats       of targets first, first + 1, ...: what your score adds up
        log_probs  {target: log-probabilities of all tokens, (V,)} for the block's targets in `ask`,
                   from the state and by the computation that the nats are from
    and as a fourth, if you score bytes: {target: nats of each of its bytes}.

    Yield a block when its scores stand; learn from its tokens behind the yield, not before.
    """
    # logits = scorer.model(tokens[...])                        # what your script does to score
    # for first in range(1, len(tokens), CHUNK):
    #     stop = min(first + CHUNK, len(tokens))
    #     log_p = log_softmax(scorer, tokens[:stop])[first - 1 : stop - 1]     # (stop - first, V)
    #     nats = -log_p[np.arange(stop - first), tokens[first:stop]]
    #     yield first, nats, {t: log_p[t - first] for t in ask if first <= t < stop}
    #     scorer.learn(tokens[first:stop])
    raise NotImplementedError("score() of the adapter is not filled in")
'''
