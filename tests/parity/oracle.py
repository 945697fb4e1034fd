"""The model written a third time, in plain numpy float64, from the definitions.

It shares no line with the engines: an error made alike on both sides does not pass it. Names and
layouts are those of param_table; the formulas stand in techniques' papers and in DESIGN's words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import normal, stream_of, uniform
from core.arch.params import Weights
from core.arch.spec import ModelSpec
from tests.parity.engines import Rows

Array = NDArray[np.float64]
Order = list[tuple[int, int]]


def norm(x: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def angles(spec: ModelSpec) -> list[float]:
    """Radians a position for each plane that RoPE turns."""
    dims = spec.head_dim if spec.rope_dims is None else spec.rope_dims
    long = (spec.rope_max_len or spec.seq_len) / (spec.rope_train_len or spec.seq_len)
    base, found = spec.rope_base, []
    if spec.rope_scaling == "ntk":
        base = base * max(long, 1) ** (dims / (dims - 2))
    for i in range(dims // 2):
        angle = base ** (-2.0 * i / dims)
        if spec.rope_scaling == "yarn":
            ramp = min(max((2 * i / dims - 0.25) / 0.75, 0), 1)
            angle /= 1 + ramp * (max(long, 1) - 1)
        found.append(angle)
    return found


def turned(x: Array, spec: ModelSpec) -> Array:
    """x: (B, T, H, D). The halves of the first dims are the two axes of each plane."""
    out, found = x.copy(), angles(spec)
    for i, angle in enumerate(found):
        place = np.arange(x.shape[1]) * angle
        cos, sin = np.cos(place)[:, None], np.sin(place)[:, None]
        a, b = x[..., i], x[..., i + len(found)]
        out[..., i], out[..., i + len(found)] = a * cos + b * sin, b * cos - a * sin
    return out


def looks(tokens: Rows, block: int, spec: ModelSpec) -> NDArray[np.bool_]:
    """(B, 1, T, T): who looks at whom, one pair at a time."""
    rows, time = tokens.shape
    seen = np.zeros((rows, 1, time, time), bool)
    window = spec.windows[block % len(spec.windows)] if spec.windows else 0
    for row in range(rows):
        for t in range(time):
            for s in range(t, -1, -1):
                seen[row, 0, t, s] = not window or t - s < window
                if spec.doc_mask and tokens[row, s] == 1:
                    break
    return seen


def product(w: dict[str, Array], name: str, x: Array, out_dims: int, spec: ModelSpec) -> Array:
    """x times a block's matrix, whatever that is."""
    if spec.linear != "random":
        return x @ used(w[f"{name}.weight"], spec).T
    stream, shape = stream_of(name), (out_dims, x.shape[-1])
    if spec.matrix_init == "uniform":
        drawn = 2 * uniform(spec.linear_seed, stream, shape) - 1
    else:
        drawn = normal(spec.linear_seed, stream, shape)
    y = x @ (drawn / np.sqrt(x.shape[-1])).T
    if spec.adapter_rank:
        y = y + x @ (w[f"{name}.up.weight"] @ w[f"{name}.down.weight"]).T
    return y


def used(weight: Array, spec: ModelSpec) -> Array:
    """A block's matrix of few levels, and every other one."""
    if spec.linear == "dense":
        return weight
    out = np.empty(weight.size)
    for start in range(0, weight.size, spec.linear_group):
        part = weight.ravel()[start : start + spec.linear_group]
        scale = np.abs(part).mean()
        if spec.linear == "ternary":
            levels = np.where(np.abs(part) <= scale / 2, 0, np.sign(part))
        else:
            levels = np.where(part < 0, -1, 1)
        out[start : start + spec.linear_group] = scale * levels
    return out.reshape(weight.shape)


def attention(
    w: dict[str, Array], block: int, x: Array, tokens: Rows, spec: ModelSpec, first: list[Array]
) -> Array:
    at, (rows, time, _) = f"blocks.{block}.attn", x.shape
    heads, shared, dims = spec.num_heads, spec.num_heads // spec.num_kv_heads, spec.head_dim
    kv_heads, whole = spec.num_kv_heads, spec.model_dim
    q = product(w, f"{at}.c_q", x, whole, spec).reshape(rows, time, heads, dims)
    k = product(w, f"{at}.c_k", x, kv_heads * dims, spec).reshape(rows, time, kv_heads, dims)
    v = product(w, f"{at}.c_v", x, kv_heads * dims, spec).reshape(rows, time, kv_heads, dims)
    if spec.value_residual:
        first.append(v)
        v = v + sigmoid(w[f"{at}.value_share"]) * first[0] if len(first) > 1 else v
    if spec.value_embed_dim and block >= spec.num_layers - spec.value_embed_last:
        rows_of_table = w["value_emb.weight"][tokens] @ w["value_proj.weight"].T
        v = v + w[f"{at}.value_mix"] * w["value_scale"] * rows_of_table.reshape(v.shape)
    q = turned(norm(q, spec.norm_eps), spec) * w[f"{at}.q_gain"][:, None]
    k = turned(norm(k, spec.norm_eps), spec)
    k, v = np.repeat(k, shared, axis=2), np.repeat(v, shared, axis=2)
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(dims)
    scores = np.where(looks(tokens, block, spec), scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    y = np.einsum("bhts,bshd->bthd", share, v)
    if block >= spec.num_layers - spec.xsa_last:
        n = v / np.linalg.norm(v, axis=-1, keepdims=True)
        y = y - np.einsum("bthd,bthd->bth", y, n)[..., None] * n
    if spec.attn_gate_dims:
        opens = x[..., : spec.attn_gate_dims] @ w[f"{at}.gate.weight"].T
        y = y * (spec.attn_gate_gain * sigmoid(spec.attn_gate_scale * opens))[..., None]
    y = y.reshape(rows, time, -1)
    y = norm(y, spec.norm_eps) if spec.norm_out_proj else y
    return product(w, f"{at}.proj", y, whole, spec)


def mlp(w: dict[str, Array], block: int, x: Array, spec: ModelSpec) -> Array:
    at = f"blocks.{block}.mlp"
    h = product(w, f"{at}.fc", x, spec.mlp_dim, spec)
    hidden = {
        "relu2": lambda: np.where(h > 0, h, 0) ** 2,
        "leaky_relu2": lambda: np.where(h > 0, h, spec.leaky_slope * h) ** 2,
        "relu": lambda: np.where(h > 0, h, 0),
        "swiglu": lambda: h * sigmoid(h) * product(w, f"{at}.gate", x, spec.mlp_dim, spec),
    }[spec.activation]()
    hidden = norm(hidden, spec.norm_eps) if spec.norm_out_proj else hidden
    return product(w, f"{at}.proj", hidden, spec.model_dim, spec)


def embedded(w: dict[str, Array], tokens: Rows, spec: ModelSpec) -> Array:
    x = w["tok_emb.weight"][tokens]
    if spec.embed_dim is not None:
        x = x @ w["embed_in.weight"].T
    if spec.bigram_buckets:
        rows = np.full(tokens.shape, spec.bigram_buckets - 1)
        for b, t in zip(*np.nonzero(tokens[:, 1:] != 1), strict=True):
            pair = 36313 * int(tokens[b, t + 1]) ^ 27191 * int(tokens[b, t])
            rows[b, t + 1] = pair % (spec.bigram_buckets - 1)
        x = x + w["bigram_scale"] * (w["bigram_emb.weight"][rows] @ w["bigram_proj.weight"].T)
    earlier = np.zeros_like(x)
    earlier[:, 1:] = x[:, :-1] * (tokens[:, 1:, None] != 1)
    if spec.smear == "static":
        x = (1 - sigmoid(w["smear_share"])) * x + sigmoid(w["smear_share"]) * earlier
    if spec.smear == "content":
        share = sigmoid(x[..., : spec.smear_dims] @ w["smear_gate.weight"].T)
        x = x + w["smear_scale"] * share * earlier
    return x


def through(w: dict[str, Array], tokens: Rows, spec: ModelSpec, order: Order) -> Array:
    """The stream after the last visit of this order."""
    stream = first = norm(embedded(w, tokens, spec), spec.norm_eps)
    half, kept, lane, values = len(order) // 2, list[Array](), None, list[Array]()
    for place, (block, other) in enumerate(order):
        mix = w[f"blocks.{block}.resid_mix"]
        share = w["visit_scale"][place] if spec.visit_scale else np.ones(2)

        def attn(x: Array, block: int = block, share: float = share[0]) -> Array:
            inside = norm(x, spec.norm_eps) / np.sqrt(block + 1 if spec.ln_scale else 1)
            made = attention(w, block, inside, tokens, spec, values)
            return share * w[f"blocks.{block}.attn_scale"] * made

        def feed(x: Array, block: int = other, share: float = share[1]) -> Array:
            inside = norm(x, spec.norm_eps) / np.sqrt(block + 1 if spec.ln_scale else 1)
            return share * w[f"blocks.{block}.mlp_scale"] * mlp(w, block, inside, spec)

        route = spec.routing if block >= spec.routing_start else "serial"
        if lane is not None and route not in ("lanes", "lanes_in_turn"):
            stream, lane = (stream + lane) / 2, None
        if spec.skips == "unet" and half <= place < 2 * half:
            skip = w["skip_weights"][place - half] * kept.pop()
            if spec.skip_gates:
                share = sigmoid(w["skip_gates"][place - half])
                stream = share * stream + (1 - share) * skip
            else:
                stream = stream + skip
        if spec.step_embed:
            stream = stream + w["step_emb"][place]
        if route in ("lanes", "lanes_in_turn"):
            lane = stream if lane is None else lane
            (keep_x, keep_lane), post = w["lane_resid"][block], w["lane_post"][block]
        mixed = mix[0] * stream + mix[1] * first
        if route == "serial":
            stream = mixed + attn(mixed)
            stream = stream + feed(stream)
        elif route == "parallel":
            stream = mixed + attn(mixed) + feed(mixed)
        elif route == "lanes":
            a, m = attn(mixed), feed(lane)
            stream = keep_x * stream + post[0, 0] * a + post[1, 0] * m
            lane = keep_lane * lane + post[0, 1] * a + post[1, 1] * m
        else:
            a, second = attn(mixed), mix[0] * lane + mix[1] * first
            stream, second = keep_x * mixed + post[0, 0] * a, keep_lane * second + post[0, 1] * a
            m = feed(second)
            stream, lane = keep_x * stream + post[1, 0] * m, keep_lane * second + post[1, 1] * m
        if spec.skips == "unet" and place < half:
            kept.append(stream)
    return stream if lane is None else (stream + lane) / 2


def capped(logits: Array, spec: ModelSpec) -> Array:
    cap = spec.logit_softcap
    if not cap:
        return logits
    if spec.softcap == "tanh":
        return cap * np.tanh(logits / cap)
    u = np.clip(8 * logits / (15 * cap), -1, 1)
    return cap * (15 * u - 10 * u**3 + 3 * u**5) / 8


def order_of(spec: ModelSpec, phase: int) -> Order:
    """Whose attention and whose MLP, visit by visit."""
    if not spec.phases:
        return [(block, block) for block in range(spec.num_layers)]
    order = spec.phases[phase].order
    return [(v, v) if isinstance(v, int) else (v.attn, v.mlp) for v in order]


def logits_of(weights: Weights, spec: ModelSpec, x: Rows, phase: int = -1) -> Array:
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}
    order = order_of(spec, phase)
    out = norm(through(w, x, spec, order), spec.norm_eps)
    if spec.embed_dim is not None:
        out = out @ w["embed_out.weight"].T
    head = w["tok_emb.weight"] if spec.tie_embeddings else w["lm_head.weight"]
    return capped(out @ head.T + w.get("head_bias", 0.0), spec)


def log_sum(logits: Array) -> Array:
    top = logits.max(-1, keepdims=True)
    return np.log(np.exp(logits - top).sum(-1)) + top[..., 0]


def nats(weights: Weights, spec: ModelSpec, x: Rows, y: Rows, phase: int = -1) -> Array:
    """Nats of each target, (B, T)."""
    logits = logits_of(weights, spec, x, phase)
    chosen = np.take_along_axis(logits, y[..., None].astype(np.int64), -1)[..., 0]
    return log_sum(logits) - chosen
