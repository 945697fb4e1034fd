"""train_gpt.py's model and rules in the structure of the reference's MLX script.

One compiled function for loss and gradients, called for each of eight micro-batches, the host
waiting for each; the rest of a step is not compiled, one matrix at a time.
"""

import os
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten


def variable(name, default):
    return type(default)(os.environ.get(name, default))


VOCAB, LAYERS = variable("VOCAB_SIZE", 1024), variable("NUM_LAYERS", 9)
DIM, HEADS, KV_HEADS = (
    variable(name, value)
    for name, value in (("MODEL_DIM", 512), ("NUM_HEADS", 8), ("NUM_KV_HEADS", 4))
)
HEAD_DIM, MLP_DIM = DIM // HEADS, DIM * variable("MLP_MULT", 2)
SEQ_LEN, TOKENS = variable("TRAIN_SEQ_LEN", 1024), variable("TRAIN_BATCH_TOKENS", 524288)
STEPS, EVERY = variable("ITERATIONS", 100), variable("TRAIN_LOG_EVERY", 10)
MATRIX_LR, SCALAR_LR = variable("MATRIX_LR", 0.04), variable("SCALAR_LR", 0.04)
EMBED_LR, EMBED_STD = variable("TIED_EMBED_LR", 0.05), variable("TIED_EMBED_INIT_STD", 0.005)
CAP, ROPE_BASE = variable("LOGIT_SOFTCAP", 30.0), variable("ROPE_BASE", 10000.0)
MOMENTUM, NS_STEPS = variable("MUON_MOMENTUM", 0.95), variable("MUON_BACKEND_STEPS", 5)
BETA1, BETA2, EPS = 0.9, 0.95, 1e-8
KIND = mx.float32 if mx.default_device() == mx.cpu else mx.bfloat16  # no BLAS is for bf16
MICRO_BATCHES = 8


class Matrix(nn.Module):
    """fp32 weights, the product in x's dtype."""

    def __init__(self, in_dims, out_dims, zero=False):
        super().__init__()
        reach = 0.0 if zero else in_dims**-0.5
        self.weight = mx.random.uniform(-reach, reach, (out_dims, in_dims))

    def __call__(self, x):
        return x @ self.weight.astype(x.dtype).T


def normed(x):
    return mx.fast.rms_norm(x, None, 1e-6)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = Matrix(DIM, DIM), Matrix(DIM, KV_HEADS * HEAD_DIM)
        self.v, self.out = Matrix(DIM, KV_HEADS * HEAD_DIM), Matrix(DIM, DIM, zero=True)
        self.up, self.down = Matrix(DIM, MLP_DIM), Matrix(MLP_DIM, DIM, zero=True)
        self.gain = mx.full((HEADS,), variable("QK_GAIN_INIT", 1.5))
        self.attn_scale, self.mlp_scale = mx.ones((DIM,)), mx.ones((DIM,))
        self.mix = mx.stack([mx.ones((DIM,)), mx.zeros((DIM,))])

    def __call__(self, x, x0):
        mix = self.mix.astype(x.dtype)
        x = mix[0] * x + mix[1] * x0
        x = x + self.attn_scale.astype(x.dtype) * self.attention(normed(x))
        hidden = mx.square(nn.relu(self.up(normed(x))))
        return x + self.mlp_scale.astype(x.dtype) * self.down(hidden)

    def attention(self, x):
        rows, length, _ = x.shape
        q, k, v = (
            part(x).reshape(rows, length, -1, HEAD_DIM).transpose(0, 2, 1, 3)
            for part in (self.q, self.k, self.v)
        )
        turns = {"traditional": False, "base": ROPE_BASE, "scale": 1.0, "offset": 0}
        q, k = (mx.fast.rope(normed(part), HEAD_DIM, **turns) for part in (q, k))
        q = q * self.gain.astype(q.dtype)[:, None, None]
        scale = HEAD_DIM**-0.5
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal")
        return self.out(y.transpose(0, 2, 1, 3).reshape(rows, length, DIM))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = EMBED_STD * mx.random.normal((VOCAB, DIM))
        self.blocks = [Block() for _ in range(LAYERS)]
        self.skips = mx.ones((LAYERS // 2, DIM))

    def __call__(self, x, y):
        x = x0 = normed(self.table[x].astype(KIND))
        kept, half = [], LAYERS // 2
        for i, block in enumerate(self.blocks):
            if i >= half and kept:
                x = x + self.skips[half - len(kept)].astype(x.dtype) * kept.pop()
            x = block(x, x0)
            if i < half:
                kept.append(x)
        logits = (normed(x) @ self.table.astype(KIND).T).astype(mx.float32)
        return nn.losses.cross_entropy(CAP * mx.tanh(logits / CAP), y, reduction="mean")


def orthogonal(grad):
    x = (grad / (mx.linalg.norm(grad) + 1e-7)).astype(mx.bfloat16)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(NS_STEPS):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Rules:
    """Muon for matrices, Adam for the rest, one after the other."""

    def __init__(self):
        self.held, self.done = {}, 0

    def moved(self, name, weight, grad):
        if weight.ndim == 2 and len(weight) > 2 and name not in ("table", "skips"):
            momentum = MOMENTUM * self.held.get(name, mx.zeros_like(weight)) + grad
            self.held[name] = momentum
            size = max(1, weight.shape[0] / weight.shape[1]) ** 0.5
            return weight - MATRIX_LR * size * orthogonal(grad + MOMENTUM * momentum)
        mean, square = self.held.get(name, (mx.zeros_like(weight), mx.zeros_like(weight)))
        mean = BETA1 * mean + (1 - BETA1) * grad
        square = BETA2 * square + (1 - BETA2) * mx.square(grad)
        self.held[name] = mean, square
        root = mx.sqrt(square / (1 - BETA2**self.done)) + EPS
        rate = EMBED_LR if name == "table" else SCALAR_LR
        return weight - rate * mean / (1 - BETA1**self.done) / root


def batches():
    """Micro-batches of tokens and what follows them, over and over."""
    paths = sorted(Path(os.environ["DATA_PATH"]).glob("fineweb_train_*.bin"))
    tokens = np.concatenate([np.fromfile(path, "<u2", offset=1024) for path in paths])
    at, span = 0, TOKENS // MICRO_BATCHES
    while True:
        at = 0 if at + span + 1 > len(tokens) else at
        held = tokens[at : at + span + 1].astype(np.int32)
        yield mx.array(held[:-1].reshape(-1, SEQ_LEN)), mx.array(held[1:].reshape(-1, SEQ_LEN))
        at += span


def main():
    mx.random.seed(variable("SEED", 1337))
    model, rules = Model(), Rules()
    mx.eval(model.parameters())
    both = nn.value_and_grad(model, lambda x, y: model(x, y))
    compiled = mx.compile(both, inputs=model.state, outputs=model.state)
    feed, started = batches(), time.perf_counter()
    for step in range(1, STEPS + 1):
        total, grads = mx.zeros(()), {}
        for _ in range(MICRO_BATCHES):
            loss, more = compiled(*next(feed))
            total = total + loss / MICRO_BATCHES
            for name, grad in tree_flatten(more):
                grads[name] = grads.get(name, 0.0) + grad / MICRO_BATCHES
            mx.eval(total, grads)
        rules.done += 1
        held = dict(tree_flatten(model.parameters()))
        moved = {name: rules.moved(name, held[name], grad) for name, grad in grads.items()}
        model.update(tree_unflatten(list(moved.items())))
        mx.eval(model.parameters(), rules.held)
        said, spent_ms = total.item(), 1000 * (time.perf_counter() - started)
        if step <= 10 or step % EVERY == 0:
            line = f"step:{step}/{STEPS} train_loss:{said:.4f} train_time:{spent_ms:.0f}ms"
            print(f"{line} step_avg:{spent_ms / step:.2f}ms", flush=True)


main()
