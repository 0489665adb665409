# SPDX-License-Identifier: Apache-2.0
"""Random cases: every operation, layer and optimiser, and random graphs. A case is what the driver reads (driver.cpp)."""
import random


def numel(shape):
    n = 1
    for extent in shape:
        n *= extent
    return n


class Case:
    """Collects inputs, parameters and nodes under names; shapes are those of the whole batch, samples first."""

    def __init__(self, rng, group, name, samples):
        self.rng, self.group, self.samples, self.counter = rng, group, samples, 0
        self.json = {"name": f"{group}: {name}", "samples": samples, "seed": rng.randrange(1 << 30), "inputs": [],
                     "parameters": [], "layers": [], "nodes": [], "outputs": [], "clip_threshold": 0.75}

    def fresh(self, prefix):
        self.counter += 1
        return f"{prefix}{self.counter}"

    def reals(self, shape, low=-2.0, high=2.0):
        return {"shape": list(shape), "values": [self.rng.uniform(low, high) for _ in range(numel(shape))]}

    def ids(self, shape, low, high):
        return {"shape": list(shape), "values": [self.rng.randint(low, high) for _ in range(numel(shape))]}

    def input(self, shape, low=-2.0, high=2.0):
        name = self.fresh("x")
        self.json["inputs"].append({"name": name, **self.reals([self.samples, *shape], low, high)})
        return name

    def parameter(self, shape, low=-1.0, high=1.0):
        name = self.fresh("p")
        self.json["parameters"].append({"name": name, **self.reals(shape, low, high)})
        return name

    def layer(self, kind, **options):
        name = self.fresh("layer")
        self.json["layers"].append({"name": name, "type": kind, **options})
        return name

    def node(self, op, inputs=(), parameters=(), results=1, **attributes):
        names = [self.fresh("y") for _ in range(results)]
        self.json["nodes"].append({"op": op, "in": list(inputs), "parameters": list(parameters), "out": names, **attributes})
        return names if results > 1 else names[0]

    def outputs(self, *names):
        self.json["outputs"] = [{"name": name} for name in names]
        return self


def draw_shape(rng, rank=None):
    return [rng.choice([1, 2, 3, 5, 8]) for _ in range((rank or rng.randint(1, 3)) - 1)] + [rng.choice([1, 2, 3, 7, 8, 17, 33])]


def windows(rng, with_dilation=True):
    kernel = [rng.randint(1, 3), rng.randint(1, 3)]
    o = {"kernel": kernel, "stride": [rng.randint(1, 3), rng.randint(1, 3)], "padding": [rng.randint(0, 2), rng.randint(0, 2)]}
    if with_dilation:
        o["dilation"] = [rng.randint(1, 2), rng.randint(1, 2)]
    else:
        o["padding"] = [min(p, k // 2) for p, k in zip(o["padding"], kernel)]  # PyTorch allows half a kernel
    return o


def image(rng, o, channels):
    span = [d * (k - 1) + 1 for k, d in zip(o["kernel"], o.get("dilation", [1, 1]))]
    return [max(1, s - 2 * p) + rng.randint(0, 4) for s, p in zip(span, o["padding"])] + [channels]


# Each function adds one use of an operation to a case and returns the results to compare.
def unary(op, low=-2.0, high=2.0):
    return lambda c: [c.node(op, [c.input(draw_shape(c.rng), low, high)])]


def binary(op, low=-2.0, high=2.0):
    def add(c):
        shape = draw_shape(c.rng)
        other = shape if c.rng.random() < 0.4 else [n if c.rng.random() < 0.5 else 1 for n in shape]
        if c.rng.random() < 0.3 and len(other) > 1:
            other = other[1:]
        pair = [c.input(shape, low, high), c.input(other, low, high)]
        if op != "divide":
            c.rng.shuffle(pair)
        return [c.node(op, pair)]
    return add


def normalisation(op, parameters, inputs=1):
    def add(c):
        shape = draw_shape(c.rng)
        # One number has no deviation, and the gradients of two nearly cancel: nothing is left to compare.
        shape[-1] = max(3, shape[-1])
        xs = [c.input(shape) for _ in range(inputs)]
        ps = [c.parameter([shape[-1]]) for _ in range(parameters)]
        y = c.node(op, xs, ps, inputs, epsilon=c.rng.choice([1e-5, 1e-3, 0.25]))
        return y if inputs > 1 else [y]
    return add


def group_norm(c):
    groups, shape = c.rng.randint(1, 4), draw_shape(c.rng)
    shape[-1] = groups * c.rng.randint(1, 5)
    if numel(shape) == groups:
        shape = [3] + shape  # one number has no deviation
    ps = [c.parameter([shape[-1]]) for _ in range(2)]
    return [c.node("group_norm", [c.input(shape)], ps, groups=groups, epsilon=1e-5)]


def instance_norm(c):
    shape = [c.rng.randint(2, 9), c.rng.randint(1, 9)]
    return [c.node("instance_norm", [c.input(shape)], [c.parameter([shape[-1]]) for _ in range(2)], epsilon=1e-5)]


def linear(c):
    shape, outputs = draw_shape(c.rng), c.rng.choice([1, 3, 8, 33])
    ps = [c.parameter([outputs, shape[-1]])] + ([c.parameter([outputs])] if c.rng.random() < 0.5 else [])
    return [c.node("linear", [c.input(shape)], ps)]


def tied(c):
    tokens, vocabulary, width = c.rng.randint(1, 6), c.rng.randint(1, 9), c.rng.randint(1, 12)
    table = c.parameter([vocabulary, width])
    ids = c.ids([c.samples, tokens], 0, vocabulary - 1)
    return [c.node("embedding", [], [table], ids=ids), c.node("linear", [c.input([tokens, width])], [table]),
            c.node("linear", [c.input([tokens + 1, width])], [table])]


def feed_forward(c):
    shape, hidden, outputs = draw_shape(c.rng), c.rng.choice([3, 8, 20]), c.rng.choice([1, 5, 8])
    biases = c.rng.random() < 0.5
    ps = [c.parameter([hidden, shape[-1]]), c.parameter([hidden]) if biases else None,
          c.parameter([outputs, hidden]), c.parameter([outputs]) if biases else None]
    return [c.node("gelu_feed_forward", [c.input(shape)], ps, tanh_form=c.rng.random() < 0.5)]


def matmul(c):
    m, n, k, tx, ty = (*[c.rng.randint(1, 9) for _ in range(3)], c.rng.random() < 0.5, c.rng.random() < 0.5)
    more = [c.rng.randint(1, 3)] if c.rng.random() < 0.5 else []
    return [c.node("matmul", [c.input(more + ([k, m] if tx else [m, k])), c.input(more + ([n, k] if ty else [k, n]))],
                   transpose_x=tx, transpose_y=ty)]


def embedding(c):
    tokens, vocabulary = c.rng.randint(1, 7), c.rng.randint(1, 9)
    options = {"padding": 0} if c.rng.random() < 0.5 else {}
    ids = c.ids([c.samples, tokens], 0, vocabulary - 1)
    return [c.node("embedding", [], [c.parameter([vocabulary, c.rng.randint(1, 9)])], ids=ids, **options)]


def position_embedding(c):
    tokens, width = c.rng.randint(1, 7), c.rng.randint(1, 9)
    return [c.node("position_embedding", [c.input([tokens, width])], [c.parameter([tokens + c.rng.randint(0, 3), width])])]


def parameter(c):
    shape = draw_shape(c.rng, c.rng.randint(1, 2))
    return [c.node("parameter", [], [c.parameter(shape)])]


def rope(c):
    heads, half, rest = c.rng.randint(1, 3), c.rng.randint(1, 8), c.rng.randint(0, 5)
    x = c.input([c.rng.randint(1, 9), heads * 2 * half + rest])
    return [c.node("rope", [x], heads=heads, width=2 * half, base=c.rng.choice([10.0, 10000.0, 500000.0]))]


def attention(causal, padding):
    def add(c):
        tokens, key_heads, group, width = c.rng.randint(1, 9), c.rng.randint(1, 3), c.rng.randint(1, 3), c.rng.randint(1, 8)
        x = c.input([tokens, (key_heads * group + 2 * key_heads) * width])
        held = {"keep": c.ids([c.samples, tokens], 0, 1)} if padding else {}
        return [c.node("attention", [x], heads=key_heads * group, key_value_heads=key_heads, causal=causal, **held)]
    return add


def convolution2d(c):
    o, groups = windows(c.rng), c.rng.choice([1, 1, 2, 3])
    inputs, outputs = c.rng.randint(1, 3), c.rng.randint(1, 3)
    ps = [c.parameter([groups * outputs, numel(o["kernel"]) * inputs]),
          c.parameter([groups * outputs]) if c.rng.random() < 0.5 else None]
    return [c.node("conv2d", [c.input(image(c.rng, o, groups * inputs))], ps, groups=groups, **o)]


def convolution1d(c):
    o, groups = windows(c.rng), c.rng.choice([1, 1, 2])
    inputs, outputs = c.rng.randint(1, 3), c.rng.randint(1, 3)
    x = c.input(image(c.rng, o, groups * inputs)[1:])
    ps = [c.parameter([groups * outputs, o["kernel"][1] * inputs]), c.parameter([groups * outputs])]
    return [c.node("conv1d", [x], ps, groups=groups, **{name: pair[1] for name, pair in o.items()})]


def unfold2d(c):
    o = windows(c.rng)
    return [c.node("unfold2d", [c.input(image(c.rng, o, c.rng.randint(1, 3)))], **o)]


def pool(op):
    def add(c):
        o = windows(c.rng, False)
        return [c.node(op, [c.input(image(c.rng, o, c.rng.randint(1, 3)))], **o)]
    return add


def shape_operation(op):
    def add(c):
        rng, shape = c.rng, draw_shape(c.rng)
        axis = rng.randint(1, len(shape))
        extent = shape[axis - 1]
        x = c.input(shape)
        if op == "broadcast_to":
            full = [n if n > 1 else rng.randint(1, 4) for n in shape]
            return [c.node(op, [x], shape=[c.samples] + [rng.randint(1, 3)] * rng.randint(0, 1) + full)]
        if op == "reshape":
            return [c.node(op, [x], shape=[c.samples, numel(shape)])]
        if op == "transpose":
            return [c.node(op, [x], i=axis, j=rng.randint(1, len(shape)))]
        if op == "slice":
            begin = rng.randint(0, extent - 1)
            return [c.node(op, [x], axis=axis, begin=begin, end=rng.randint(begin + 1, extent))]
        if op == "pad":
            return [c.node(op, [x], axis=axis, before=rng.randint(0, 3), after=rng.randint(0, 3))]
        if op in ("sum", "mean"):
            return [c.node(op, [x], axis=axis, keep_axis=rng.random() < 0.5)]
        if op == "split":
            sizes = [rng.randint(1, 3) for _ in range(3)]
            shape[axis - 1] = sum(sizes)
            return c.node(op, [c.input(shape)], results=3, sizes=sizes, axis=axis)
        other = list(shape)
        other[axis - 1] = rng.randint(1, 4)
        return [c.node("concat", [x, c.input(other), x], axis=axis)]
    return add


def where(c):
    shape = draw_shape(c.rng)
    mask = c.ids([c.samples, *shape[: c.rng.randint(0, len(shape))]], -1, 1)
    return [c.node("where", [c.input(shape), c.input(shape)], mask=mask)]


def gather(c):
    tokens, width = c.rng.randint(1, 6), c.rng.randint(1, 5)
    ids = c.ids([c.samples, c.rng.randint(1, 8)], 0, tokens - 1)
    return [c.node("gather", [c.input([tokens, width])], ids=ids)]


def dropout(c):
    shape, rate = draw_shape(c.rng), c.rng.choice([0.0, 0.25, 0.5])
    ones = c.input(shape, 1.0, 1.0)
    dropped = c.node("dropout", [ones], rate=rate, given=True)
    return [dropped, c.node("dropout", [c.input(shape)], rate=rate, dropped_by=dropped)]


def cross_entropy(c):
    shape = draw_shape(c.rng)
    size = c.rng.choice([2.0, 30.0])
    ids = c.ids([c.samples, *shape[:-1]], -1, shape[-1] - 1)
    return [c.node("cross_entropy", [c.input(shape, -size, size)], ids=ids, divisor=float(c.rng.randint(1, 4)))]


def mean_squared_error(c):
    shape = draw_shape(c.rng)
    return [c.node("mean_squared_error", [c.input(shape)], target=c.reals([c.samples, *shape]))]


OPERATIONS = {
    **{op: unary(op) for op in ("gelu", "gelu_tanh", "relu", "tanh", "sigmoid", "silu", "exp", "square", "softmax", "cast")},
    **{op: unary(op, 0.1, 3.0) for op in ("log", "sqrt", "reciprocal")},
    "scale": lambda c: [c.node("scale", [c.input(draw_shape(c.rng))], factor=-1.7)],
    "shift": lambda c: [c.node("shift", [c.input(draw_shape(c.rng))], constant=0.3)],
    "swiglu": lambda c: [c.node("swiglu", [c.input(draw_shape(c.rng, 2)[:1] + [2 * c.rng.randint(1, 9)])])],
    **{op: binary(op) for op in ("add", "subtract", "multiply")}, "divide": binary("divide", 0.5, 2.0),
    "layer_norm": normalisation("layer_norm", 2), "rms_norm": normalisation("rms_norm", 1),
    "add_layer_norm": normalisation("add_layer_norm", 2, 2), "add_rms_norm": normalisation("add_rms_norm", 1, 2),
    "group_norm": group_norm, "instance_norm": instance_norm, "linear": linear, "embedding and linear, tied": tied,
    "gelu_feed_forward": feed_forward, "matmul": matmul, "embedding": embedding, "position_embedding": position_embedding,
    "parameter": parameter, "rope": rope, "attention (causal)": attention(True, False),
    "attention (bidirectional)": attention(False, False), "attention (causal, padding)": attention(True, True),
    "attention (bidirectional, padding)": attention(False, True), "conv2d": convolution2d, "conv1d": convolution1d,
    "unfold2d": unfold2d, "average_pool2d": pool("average_pool2d"), "max_pool2d": pool("max_pool2d"),
    "global_average_pool": lambda c: [c.node("global_average_pool", [c.input(draw_shape(c.rng, c.rng.randint(2, 3)))])],
    **{op: shape_operation(op) for op in
       ("broadcast_to", "reshape", "transpose", "slice", "pad", "sum", "mean", "split", "concat")},
    "where": where, "gather": gather, "dropout": dropout, "cross_entropy": cross_entropy,
    "mean_squared_error": mean_squared_error,
}


def layer_cases(rng):
    """(name, kind, options, shape of an input, parameters that are trained: None for all)."""
    w = 8
    attention_options = {"width": w, "heads": 2}
    yield "Linear", "linear", {"inputs": 7, "outputs": 5}, [3, 7], None
    yield "LoraLinear", "lora", {"inputs": 7, "outputs": 5, "rank": 2, "alpha": 3.0}, [3, 7], None
    yield "LayerNorm", "layer_norm", {"width": 9}, [4, 9], None
    yield "RmsNorm", "rms_norm", {"width": 9}, [4, 9], None
    yield "GeluFeedForward", "gelu_feed_forward", {"width": 6, "hidden": 11}, [3, 6], None
    yield "SwiGlu", "swiglu", {"width": 6, "hidden": 11}, [3, 6], None
    yield "Gru", "gru", {"inputs": 5, "hidden": 4}, [6, 5], None
    yield "Lstm", "lstm", {"inputs": 5, "hidden": 4}, [6, 5], None
    yield "Conv2d", "conv2d", {"inputs": 3, "outputs": 4, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]}, [7, 6, 3], None
    yield ("Conv2d (groups)", "conv2d",
           {"inputs": 4, "outputs": 6, "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "groups": 2}, [5, 5, 4], None)
    yield "Conv1d", "conv1d", {"inputs": 3, "outputs": 4, "kernel": 3, "stride": 2, "padding": 1}, [9, 3], None
    yield "GroupNorm", "group_norm", {"channels": 6, "groups": 2}, [4, 6], None
    yield "InstanceNorm", "instance_norm", {"channels": 6}, [4, 6], None
    for causal in (True, False):
        kind = "causal" if causal else "bidirectional"
        yield f"Attention ({kind})", "attention", {**attention_options, "causal": causal}, [6, w], None
    yield "Attention (padding)", "attention", {**attention_options, "causal": False, "padding": True}, [6, w], None
    yield ("Attention (shared key heads, RoPE)", "attention",
           {"width": 16, "heads": 4, "key_value_heads": 2, "rotary": True}, [6, 16], None)
    block = {**attention_options, "layers": 2}
    yield "Block (GPT-2)", "block", {**block, "gelu_tanh": True}, [6, w], None
    yield "Block (PyTorch's encoder layer)", "block", {**block, "causal": False}, [6, w], None
    yield "Block (PyTorch's encoder layer, causal)", "block", block, [6, w], None
    llama = {"width": 16, "heads": 4, "key_value_heads": 2, "layers": 2, "rotary": True, "rms_norm": True, "swiglu": True}
    yield "Block (LLaMA)", "block", llama, [6, 16], None
    yield "Blocks", "blocks", block, [6, w], None
    yield "Blocks (LLaMA)", "blocks", llama, [6, 16], None
    yield "Blocks, biases only", "blocks", block, [6, w], "bias"


TRANSFORMERS = {
    "Transformer (GPT-2, tied)": {"width": 8, "heads": 2, "layers": 2, "vocabulary": 11, "context": 9, "tied": True,
                                  "gelu_tanh": True},
    "Transformer (untied, erf)": {"width": 8, "heads": 2, "layers": 1, "vocabulary": 11, "context": 9},
    "Transformer (LLaMA)": {"width": 16, "heads": 4, "key_value_heads": 2, "layers": 2, "vocabulary": 11, "context": 9,
                            "rotary": True, "rms_norm": True, "swiglu": True},
}


def all_layer_cases(seed, repeats):
    rng = random.Random(seed)
    for _ in range(repeats):
        for name, kind, options, shape, trained in layer_cases(rng):
            c = Case(rng, "layer", name, rng.choice([1, 2, 4]))
            padding = options.pop("padding", False) if kind == "attention" else False
            layer = c.layer(kind, **options)
            x = c.input(shape)
            held = {"keep": c.ids([c.samples, shape[0]], 0, 1)} if padding else {}
            c.outputs(c.node("layer", [x], name=layer, **held))
            if trained:
                c.json["trained"] = trained
            yield c
        for name, config in TRANSFORMERS.items():
            c = Case(rng, "layer", name, rng.choice([1, 2, 4]))
            c.json["transformer"] = config
            tokens = rng.randint(1, config["context"])
            logits = c.node("transformer", ids=c.ids([c.samples, tokens], 0, config["vocabulary"] - 1))
            ids = c.ids([c.samples, tokens], -1, config["vocabulary"] - 1)
            c.outputs(logits, c.node("cross_entropy", [logits], ids=ids, divisor=2.0))
            yield c


def all_operation_cases(seed, repeats):
    rng = random.Random(seed)
    for name, add in OPERATIONS.items():
        for _ in range(repeats):
            c = Case(rng, "operation", name, rng.choice([1, 2, 3, 5]))
            yield c.outputs(*add(c))


def optimiser_cases(seed, repeats):
    """Updates from given gradients; which parameters are frozen changes from step to step."""
    rng = random.Random(seed)
    kinds = {
        "SGD": {"type": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        "SGD, momentum": {"type": "sgd", "momentum": 0.9, "weight_decay": 0.0},
        "SGD, momentum, decay": {"type": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        "AdamW": {"type": "adamw", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0},
        "AdamW, decay": {"type": "adamw", "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6, "weight_decay": 0.1},
    }
    patterns = {
        "all trained": lambda step, name: False,
        "one frozen": lambda step, name: name == "a",
        "thawed after 5 steps": lambda step, name: name == "a" and step < 5,
        "frozen between": lambda step, name: name == "a" and 3 <= step < 9,
        "frozen in turn": lambda step, name: step % 3 == "abc".index(name),
    }
    for kind, optimiser in kinds.items():
        for pattern, frozen in patterns.items():
            for _ in range(repeats):
                shapes = {"a": [3, 4], "b": [5], "c": [2, 2, 2]}
                reals = lambda shape: [rng.uniform(-1, 1) for _ in range(numel(shape))]
                yield {
                    "name": f"optimiser: {kind}, {pattern}", "optimiser": optimiser,
                    "parameters": {n: {"shape": s, "values": reals(s)} for n, s in shapes.items()},
                    "steps": [{"rate": rng.uniform(1e-3, 1e-1), "factor": rng.choice([1.0, 0.125]),
                               "frozen": [n for n in shapes if frozen(k, n)],
                               "gradients": {n: reals(s) for n, s in shapes.items()}} for k in range(20)],
                }
