# SPDX-License-Identifier: Apache-2.0
"""The driver's operations and layers with PyTorch, in float64. Whatever PyTorch has itself is taken from there; the
difference in layout (channels last, packed projections) is undone before and after."""
import math

import torch
import torch.nn.functional as F

F64 = torch.float64


def ids_of(array):
    return torch.tensor(array["values"], dtype=torch.int64).reshape(array["shape"])


def real_of(array):
    return torch.tensor(array["values"], dtype=F64).reshape(array["shape"])


def channels_first(x):
    return x.movedim(-1, 1)


def channels_last(x):
    return x.movedim(1, -1)


def group_norm(x, gain, bias, groups, epsilon):
    if x.numel() == 0:
        return x * 1
    return channels_last(F.group_norm(channels_first(x), groups, gain, bias, epsilon))


def image_weight(w, kernel, inputs):
    """[outputs, taps * inputs] to PyTorch's [outputs, inputs, height, width]."""
    return w.reshape(w.shape[0], kernel[0], kernel[1], inputs).permute(0, 3, 1, 2)


def conv2d(x, w, b, n):
    groups = n.get("groups", 1)
    weight = image_weight(w, n["kernel"], x.shape[-1] // groups)
    return channels_last(F.conv2d(channels_first(x), weight, b, n["stride"], n["padding"], n.get("dilation", 1), groups))


def conv1d(x, w, b, n):
    groups = n.get("groups", 1)
    weight = w.reshape(w.shape[0], n["kernel"], x.shape[-1] // groups).transpose(1, 2)
    return F.conv1d(x.transpose(1, 2), weight, b, n["stride"], n["padding"], n.get("dilation", 1), groups).transpose(1, 2)


def unfold2d(x, n):
    rows = F.unfold(channels_first(x), n["kernel"], n["dilation"], n["padding"], n["stride"])  # [B, C * taps, T]
    taps = n["kernel"][0] * n["kernel"][1]
    return rows.reshape(x.shape[0], x.shape[-1], taps, -1).permute(0, 3, 2, 1).flatten(2)


def rope(x, heads, width, base):
    half = width // 2
    turned, rest = x[..., : heads * width], x[..., heads * width :]
    angle = torch.arange(x.shape[1], dtype=F64)[:, None] * base ** (-2 * torch.arange(half, dtype=F64) / width)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None, :]
    pairs = turned.reshape(x.shape[0], x.shape[1], heads, 2, half)
    z = torch.complex(pairs[..., 0, :], pairs[..., 1, :]) * turn
    return torch.cat([torch.stack([z.real, z.imag], -2).reshape(turned.shape), rest], -1)


def attention(qkv, heads, key_heads, causal, keep):
    samples, tokens, columns = qkv.shape
    width = columns // (heads + 2 * key_heads)
    q, k, v = (t.reshape(samples, tokens, -1, width).transpose(1, 2)
               for t in qkv.split([heads * width, key_heads * width, key_heads * width], -1))
    k, v = (t.repeat_interleave(heads // key_heads, 1) for t in (k, v))
    seen = torch.ones(samples, 1, tokens, tokens, dtype=torch.bool)
    if causal:
        seen = seen.tril()
    if keep is None:
        return F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).reshape(samples, tokens, -1)
    kept = keep != 0
    # A token of padding sees itself here, so that its row is a number; its output is then 0.
    seen = (seen & kept[:, None, None, :]) | torch.eye(tokens, dtype=torch.bool)
    y = F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).reshape(samples, tokens, -1)
    return torch.where(kept[..., None], y, torch.zeros((), dtype=F64))


def rms_norm(x, gain, epsilon):
    return F.rms_norm(x, [x.shape[-1]], gain, epsilon)


def layer_norm(x, gain, bias, epsilon):
    return F.layer_norm(x, [x.shape[-1]], gain, bias, epsilon)


def cross_entropy(x, targets, divisor):
    losses = F.cross_entropy(x.reshape(-1, x.shape[-1]), targets.reshape(-1), ignore_index=-1, reduction="none")
    return losses.reshape(x.shape[0], -1).sum(1) / divisor


def embedding(table, ids, padding):
    if padding is None:
        return F.embedding(ids, table)
    return torch.where((ids == padding)[..., None], torch.zeros((), dtype=F64), F.embedding(ids, table))


def gather(x, ids):
    return torch.stack([row[k] for row, k in zip(x, ids)]) if x.shape[0] else x[:, :0]


def swiglu(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


def padded(x, axis, before, after):
    moved = x.movedim(axis, -1)
    return F.pad(moved, (before, after)).movedim(-1, axis)


def of_batch(shape, x):
    """The shape of a node with the samples of x in front."""
    return [x.shape[0]] + list(shape[1:])


UNARY = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu, "tanh": torch.tanh,
         "sigmoid": torch.sigmoid, "silu": F.silu, "swiglu": swiglu, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt,
         "square": torch.square, "reciprocal": torch.reciprocal, "softmax": lambda x: F.softmax(x, -1)}
BINARY = {"add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": torch.div}


def aligned(x, y):
    """Trailing axes are aligned, but the sample axis is always first: [B, C] and [B, T, C] are [B, 1, C] and [B, T, C]."""
    rank = max(x.dim(), y.dim())
    return [t.reshape(t.shape[:1] + (1,) * (rank - t.dim()) + t.shape[1:]) for t in (x, y)]


def swish_of(name, p, x):
    return F.linear(swiglu(F.linear(x, p[name + ".gate_up.weight"])), p[name + ".down.weight"])


def linear_of(name, p, x):
    return F.linear(x, p[name + ".weight"], p.get(name + ".bias"))


def recurrent(module, name, p, x):
    hidden = p[name + ".recurrent.weight"].shape[1]
    net = module(x.shape[-1], hidden, batch_first=True, dtype=F64)
    weights = {"weight_ih_l0": p[name + ".input.weight"], "bias_ih_l0": p[name + ".input.bias"],
               "weight_hh_l0": p[name + ".recurrent.weight"], "bias_hh_l0": p[name + ".recurrent.bias"]}
    return torch.func.functional_call(net, weights, x)[0]


def self_attention(name, p, x, layer, keep):
    qkv = linear_of(name + ".qkv", p, x)
    heads = layer["heads"]
    key_heads = layer.get("key_value_heads", 0) or heads
    width = x.shape[-1] // heads
    if layer.get("rotary"):
        qkv = rope(qkv, heads + key_heads, width, 10000.0)
    return linear_of(name + ".projection", p, attention(qkv, heads, key_heads, layer.get("causal", True), keep))


def norm_of(name, p, x, layer):
    if layer.get("rms_norm"):
        return rms_norm(x, p[name + ".gain"], 1e-5)
    return layer_norm(x, p[name + ".gain"], p[name + ".bias"], 1e-5)


def prefixed(name, part):
    return f"{name}.{part}" if name else part


def block(name, p, x, layer, keep):
    if not (layer.get("rms_norm") or layer.get("swiglu") or layer.get("gelu_tanh") or layer.get("rotary")
            or layer.get("key_value_heads") or keep is not None):
        return encoder_layer(name, p, x, layer)
    x = x + self_attention(prefixed(name, "attention"), p, norm_of(prefixed(name, "attention_norm"), p, x, layer), layer, keep)
    y = norm_of(prefixed(name, "mlp_norm"), p, x, layer)
    mlp = prefixed(name, "mlp")
    if layer.get("swiglu"):
        return x + swish_of(mlp, p, y)
    hidden = F.gelu(linear_of(mlp + ".up", p, y), approximate="tanh" if layer.get("gelu_tanh") else "none")
    return x + linear_of(mlp + ".down", p, hidden)


def encoder_layer(name, p, x, layer):
    """PyTorch's own block, which has the same parts."""
    up = p[prefixed(name, "mlp.up.weight")]
    net = torch.nn.TransformerEncoderLayer(x.shape[-1], layer["heads"], up.shape[0], 0.0, "gelu", batch_first=True,
                                           norm_first=True, dtype=F64)
    ours = {"self_attn.in_proj_weight": "attention.qkv.weight", "self_attn.in_proj_bias": "attention.qkv.bias",
            "self_attn.out_proj.weight": "attention.projection.weight", "self_attn.out_proj.bias": "attention.projection.bias",
            "linear1.weight": "mlp.up.weight", "linear1.bias": "mlp.up.bias", "linear2.weight": "mlp.down.weight",
            "linear2.bias": "mlp.down.bias", "norm1.weight": "attention_norm.gain", "norm1.bias": "attention_norm.bias",
            "norm2.weight": "mlp_norm.gain", "norm2.bias": "mlp_norm.bias"}
    weights = {theirs: p[prefixed(name, mine)] for theirs, mine in ours.items()}
    hidden = None
    if layer.get("causal", True):
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return torch.func.functional_call(net, weights, (x,), {"src_mask": hidden})


def blocks(name, p, x, layer, keep):
    for k in range(layer["layers"]):
        x = block(prefixed(name, f"block{k}"), p, x, layer, keep)
    return norm_of(prefixed(name, "norm"), p, x, layer)


def transformer(p, ids, config):
    x = F.embedding(ids, p["tokens.weight"])
    if not config.get("rotary"):
        x = x + p["positions.weight"][: ids.shape[1]]
    x = blocks("", p, x, config, None)
    return F.linear(x, p["tokens.weight"] if config.get("tied") else p["head.weight"])


def run_layer(layer, p, x, keep):
    name, kind = layer["name"], layer["type"]
    if kind == "linear":
        return linear_of(name, p, x)
    if kind == "lora":
        low = F.linear(x, p[name + ".lora_a"])
        return linear_of(name, p, x) + layer["alpha"] / layer["rank"] * F.linear(low, p[name + ".lora_b"])
    if kind == "layer_norm":
        return layer_norm(x, p[name + ".gain"], p[name + ".bias"], 1e-5)
    if kind == "rms_norm":
        return rms_norm(x, p[name + ".gain"], 1e-5)
    if kind == "gelu_feed_forward":
        return linear_of(name + ".down", p, F.gelu(linear_of(name + ".up", p, x)))
    if kind == "swiglu":
        return swish_of(name, p, x)
    if kind == "attention":
        return self_attention(name, p, x, layer, keep)
    if kind == "block":
        return block(name, p, x, layer, keep)
    if kind == "blocks":
        return blocks(name, p, x, layer, keep)
    if kind == "gru":
        return recurrent(torch.nn.GRU, name, p, x)
    if kind == "lstm":
        return recurrent(torch.nn.LSTM, name, p, x)
    if kind == "conv2d":
        return conv2d(x, p[name + ".weight"], p[name + ".bias"], layer)
    if kind == "conv1d":
        return conv1d(x, p[name + ".weight"], p[name + ".bias"], layer)
    if kind in ("group_norm", "instance_norm"):
        groups = layer.get("groups", layer["channels"])
        return group_norm(x, p[name + ".gain"], p[name + ".bias"], groups, 1e-5)
    raise ValueError(kind)


def run_node(n, xs, ps, case, parameters, held):
    """Results of a node. xs: its inputs; ps: its parameters; held(name): its ids, masks and targets, of the batch at hand."""
    op = n["op"]
    x = xs[0] if xs else None
    if op in UNARY:
        return [UNARY[op](x)]
    if op in BINARY:
        return [BINARY[op](*aligned(*xs))]
    if op in ("layer_norm", "add_layer_norm", "rms_norm", "add_rms_norm"):
        norm = (lambda t: layer_norm(t, ps[0], ps[1], n["epsilon"])) if op.endswith("layer_norm") else (
            lambda t: rms_norm(t, ps[0], n["epsilon"]))
        return [xs[0] + xs[1], norm(xs[0] + xs[1])] if op.startswith("add") else [norm(x)]
    if op == "group_norm" or op == "instance_norm":
        return [group_norm(x, ps[0], ps[1], n.get("groups", x.shape[-1]), n["epsilon"])]
    if op == "gelu_feed_forward":
        hidden = F.gelu(F.linear(x, ps[0], ps[1]), approximate="tanh" if n.get("tanh_form") else "none")
        return [F.linear(hidden, ps[2], ps[3])]
    if op == "matmul":
        left, right = (t.transpose(-1, -2) if n.get(flag) else t for t, flag in zip(xs, ("transpose_x", "transpose_y")))
        return [left @ right]
    if op == "attention":
        return [attention(x, n["heads"], n.get("key_value_heads", 0) or n["heads"], n["causal"], held("keep"))]
    simple = {
        "scale": lambda: x * n["factor"], "shift": lambda: x + n["constant"],
        "linear": lambda: F.linear(x, ps[0], ps[1] if len(ps) > 1 else None),
        "embedding": lambda: embedding(ps[0], held("ids"), n.get("padding")),
        "position_embedding": lambda: x + ps[0][: x.shape[1]],
        "parameter": lambda: ps[0].expand(case["batch"], *ps[0].shape),
        "rope": lambda: rope(x, n["heads"], n["width"], n["base"]),
        "conv2d": lambda: conv2d(x, ps[0], ps[1], n), "conv1d": lambda: conv1d(x, ps[0], ps[1], n),
        "unfold2d": lambda: unfold2d(x, n),
        "average_pool2d": lambda: channels_last(F.avg_pool2d(channels_first(x), n["kernel"], n["stride"], n["padding"])),
        "max_pool2d": lambda: channels_last(F.max_pool2d(channels_first(x), n["kernel"], n["stride"], n["padding"])),
        "global_average_pool": lambda: x.flatten(1, -2).mean(1),
        "broadcast_to": lambda: aligned(x, torch.empty(of_batch(n["shape"], x)))[0].expand(of_batch(n["shape"], x)),
        "reshape": lambda: x.reshape(of_batch(n["shape"], x)), "transpose": lambda: x.transpose(n["i"], n["j"]),
        "concat": lambda: torch.cat(xs, n["axis"]),
        "slice": lambda: x.narrow(n["axis"], n["begin"], n["end"] - n["begin"]),
        "pad": lambda: padded(x, n["axis"], n["before"], n["after"]),
        "sum": lambda: x.sum(n["axis"], keepdim=n.get("keep_axis", False)),
        "mean": lambda: x.mean(n["axis"], keepdim=n.get("keep_axis", False)),
        "where": lambda: torch.where(
            held("mask").reshape(held("mask").shape + (1,) * (x.dim() - held("mask").dim())) != 0, xs[0], xs[1]),
        "gather": lambda: gather(x, held("ids")), "cast": lambda: x * 1, "stop_gradient": lambda: x.detach(),
        "dropout": lambda: x * held("dropped"),
        "cross_entropy": lambda: cross_entropy(x, held("ids"), n["divisor"]),
        "mean_squared_error": lambda: (x - held("target")).square().flatten(1).mean(1),
        "layer": lambda: run_layer(case["layer"](n["name"]), parameters, x, held("keep")),
        "transformer": lambda: transformer(parameters, held("ids"), case["transformer"]),
    }
    if op == "split":
        return list(x.split(n["sizes"], n["axis"]))
    return [simple[op]()]
