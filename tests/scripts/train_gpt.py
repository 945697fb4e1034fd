"""A training script in the reference scripts' structure that shares no line with this project.

What `golf bench --against` is tried on, and the reference form is held to: a model of its own,
compiled; Muon one matrix at a time, torch's fused Adam, eight micro-batches a step, one read of the
host a step. It takes the reference's variables and writes its log lines; it neither scores nor
packs.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


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
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MICRO_BATCHES = 8


class Matrix(nn.Linear):
    """fp32 weights, the product in x's dtype."""

    def __init__(self, in_dims, out_dims, zero=False):
        super().__init__(in_dims, out_dims, bias=False)
        if zero:
            nn.init.zeros_(self.weight)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


def normed(x):
    return F.rms_norm(x, (x.shape[-1],))


def turned(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = Matrix(DIM, DIM), Matrix(DIM, KV_HEADS * HEAD_DIM)
        self.v, self.out = Matrix(DIM, KV_HEADS * HEAD_DIM), Matrix(DIM, DIM, zero=True)
        self.up, self.down = Matrix(DIM, MLP_DIM), Matrix(MLP_DIM, DIM, zero=True)
        self.gain = nn.Parameter(torch.full((HEADS,), variable("QK_GAIN_INIT", 1.5)))
        self.attn_scale, self.mlp_scale = (nn.Parameter(torch.ones(DIM)) for _ in range(2))
        self.mix = nn.Parameter(torch.stack([torch.ones(DIM), torch.zeros(DIM)]))

    def forward(self, x, x0, cos, sin):
        mix = self.mix.to(x.dtype)
        x = mix[0] * x + mix[1] * x0
        x = x + self.attn_scale.to(x.dtype) * self.attention(normed(x), cos, sin)
        hidden = torch.relu(self.up(normed(x))).square()
        return x + self.mlp_scale.to(x.dtype) * self.down(hidden)

    def attention(self, x, cos, sin):
        rows, length, _ = x.shape
        q, k, v = (
            part(x).view(rows, length, -1, HEAD_DIM).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        q, k = (turned(normed(part), cos.to(x.dtype), sin.to(x.dtype)) for part in (q, k))
        q = q * self.gain.to(q.dtype)[:, None, None]
        v = v.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k.to(q.dtype), v, is_causal=True, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(rows, length, DIM))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, DIM)
        nn.init.normal_(self.table.weight, std=EMBED_STD)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.skips = nn.Parameter(torch.ones(LAYERS // 2, DIM))
        angles = torch.outer(
            torch.arange(SEQ_LEN).float(), ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        )
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x, y):
        x = x0 = normed(self.table(x))
        kept, half = [], LAYERS // 2
        for i, block in enumerate(self.blocks):
            if i >= half and kept:
                x = x + self.skips[half - len(kept)].to(x.dtype) * kept.pop()
            x = block(x, x0, self.cos, self.sin)
            if i < half:
                kept.append(x)
        logits = F.linear(normed(x), self.table.weight.to(x.dtype)).float()
        logits = CAP * torch.tanh(logits / CAP)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


@torch.compile
def orthogonal(grad):
    x = grad.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(NS_STEPS):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """One matrix after the other."""

    def __init__(self, matrices):
        super().__init__(matrices, {"lr": MATRIX_LR})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].mul_(MOMENTUM).add_(weight.grad)
                move = orthogonal(weight.grad + MOMENTUM * state["momentum"])
                size = max(1, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.add_(move.to(weight.dtype), alpha=-size * group["lr"])


def batches():
    """Micro-batches of tokens and what follows them, over and over."""
    paths = sorted(Path(os.environ["DATA_PATH"]).glob("fineweb_train_*.bin"))
    tokens = np.concatenate([np.fromfile(path, "<u2", offset=1024) for path in paths])
    at, span = 0, TOKENS // MICRO_BATCHES
    while True:
        at = 0 if at + span + 1 > len(tokens) else at
        held = torch.from_numpy(tokens[at : at + span + 1].astype(np.int64)).to(DEVICE)
        yield held[:-1].view(-1, SEQ_LEN), held[1:].view(-1, SEQ_LEN)
        at += span


def main():
    torch.manual_seed(variable("SEED", 1337))
    model = Model().to(DEVICE)
    compiled = torch.compile(model, dynamic=False, fullgraph=True)
    inner = [p for block in model.blocks for p in block.parameters()]
    table = {"params": [model.table.weight], "lr": EMBED_LR}
    small = {"params": [p for p in inner if p.ndim < 2 or len(p) == 2], "lr": SCALAR_LR}
    small["params"].append(model.skips)
    adam = torch.optim.Adam([table, small], betas=(0.9, 0.95), eps=1e-8, fused=True)
    optimizers = [Muon([p for p in inner if p.ndim == 2 and len(p) > 2]), adam]
    feed, started = batches(), time.perf_counter()
    for step in range(1, STEPS + 1):
        model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=DEVICE)
        for _ in range(MICRO_BATCHES):
            x, y = next(feed)
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = compiled(x, y) / MICRO_BATCHES
            loss.backward()
            total += loss.detach()
        for optimizer in optimizers:
            optimizer.step()
        said, spent_ms = total.item(), 1000 * (time.perf_counter() - started)
        if step <= 10 or step % EVERY == 0:
            line = f"step:{step}/{STEPS} train_loss:{said:.4f} train_time:{spent_ms:.0f}ms"
            print(f"{line} step_avg:{spent_ms / step:.2f}ms", flush=True)


main()
