# SPDX-License-Identifier: Apache-2.0
"""Random graphs: a few dozen operations over values that are used again, with weights that are shared, reused and frozen."""
import random

from cases import Case, numel


class Graph:
    def __init__(self, rng, number):
        self.rng = rng
        self.case = Case(rng, "graph", f"number {number}", rng.choice([1, 2, 3, 4]))
        self.values = []  # (name, shape without the samples)
        self.weights = {}  # shape -> names
        for _ in range(rng.randint(1, 3)):
            shape = [rng.randint(1, 6), rng.choice([2, 4, 8])] if rng.random() < 0.8 else [rng.choice([2, 4, 8])]
            self.values.append((self.case.input(shape), shape))
        if rng.random() < 0.5:
            vocabulary, width, tokens = rng.randint(2, 7), rng.choice([2, 4, 8]), rng.randint(1, 6)
            ids = self.case.ids([self.case.samples, tokens], 0, vocabulary - 1)
            table = self.weight([vocabulary, width])
            self.values.append((self.case.node("embedding", [], [table], ids=ids), [tokens, width]))
        while len(self.case.json["nodes"]) < rng.randint(5, 30):
            self.grow()
        used = {name for node in self.case.json["nodes"] for name in node["in"]}
        ends = [name for name, _ in self.values if name not in used and name.startswith("y")]
        self.case.outputs(*(ends or [self.values[-1][0]]))
        names = [p["name"] for p in self.case.json["parameters"]]
        self.case.json["frozen"] = [n for n in names if rng.random() < 0.2] if rng.random() < 0.5 else []

    def weight(self, shape):
        """A new parameter, or one of this shape that is used already."""
        known = self.weights.setdefault(tuple(shape), [])
        if known and self.rng.random() < 0.4:
            return self.rng.choice(known)
        known.append(self.case.parameter(shape, -0.7, 0.7))
        return known[-1]

    def add(self, op, inputs, made, parameters=(), **attributes):
        self.values.append((self.case.node(op, inputs, parameters, **attributes), made))

    def grow(self):
        rng = self.rng
        x, shape = rng.choice(self.values[-4:] if rng.random() < 0.7 else self.values)
        width = shape[-1]
        kinds = ["unary", "unary", "linear", "linear", "norm", "softmax", "pair", "pair", "row", "reshape", "slice", "concat",
                 "pad", "reduce", "stop", "where", "feed_forward", "parameter"]
        if len(shape) == 2:
            kinds += ["attention", "attention", "gram", "transpose", "gather", "convolution", "positions", "pool", "rope"]
        kind = rng.choice(kinds)
        if kind == "unary":
            self.add(rng.choice(["gelu", "gelu_tanh", "tanh", "sigmoid", "silu", "relu"]), [x], shape)
        elif kind == "linear":
            outputs = rng.choice([2, 4, 8])
            parameters = [self.weight([outputs, width])] + ([self.weight([outputs])] if rng.random() < 0.5 else [])
            self.add("linear", [x], shape[:-1] + [outputs], parameters)
        elif kind == "norm":
            if rng.random() < 0.5:
                self.add("layer_norm", [x], shape, [self.weight([width]), self.weight([width])], epsilon=0.1)
            else:
                self.add("rms_norm", [x], shape, [self.weight([width])], epsilon=0.1)
        elif kind == "softmax":
            self.add("softmax", [x], shape)
        elif kind == "pair":
            same = [name for name, other in self.values if other == shape]
            op = rng.choice(["add", "subtract", "multiply"])
            y = rng.choice(same)
            if op == "multiply":  # bounded, whatever is multiplied again
                y = self.case.node("tanh", [y])
            self.add(op, [x, y], shape)
        elif kind == "row":
            rows = [name for name, other in self.values if other == [width]]
            if rows and len(shape) == 2:
                self.add(rng.choice(["add", "subtract"]), [x, rng.choice(rows)], shape)
        elif kind == "reshape":
            self.add("reshape", [x], [numel(shape)], shape=[self.case.samples, numel(shape)])
        elif kind == "slice":
            axis = rng.randint(1, len(shape))
            begin = rng.randint(0, shape[axis - 1] - 1)
            end = rng.randint(begin + 1, shape[axis - 1])
            self.add("slice", [x], shape[: axis - 1] + [end - begin] + shape[axis:], axis=axis, begin=begin, end=end)
        elif kind == "concat":
            axis = rng.randint(1, len(shape))
            if shape[axis - 1] <= 16:
                self.add("concat", [x, x], shape[: axis - 1] + [2 * shape[axis - 1]] + shape[axis:], axis=axis)
        elif kind == "pad":
            axis, before, after = rng.randint(1, len(shape)), rng.randint(0, 2), rng.randint(0, 2)
            self.add("pad", [x], shape[: axis - 1] + [shape[axis - 1] + before + after] + shape[axis:], axis=axis,
                     before=before, after=after)
        elif kind == "reduce" and len(shape) == 2:
            axis = rng.randint(1, 2)
            self.add(rng.choice(["sum", "mean"]), [x], shape[: axis - 1] + shape[axis:], axis=axis)
        elif kind == "stop" and rng.random() < 0.3:
            self.add("stop_gradient", [x], shape)
        elif kind == "where":
            y = self.case.node("tanh", [x])
            self.add("where", [x, y], shape, mask=self.case.ids([self.case.samples, *shape], 0, 1))
        elif kind == "feed_forward":
            hidden = rng.choice([4, 8])
            parameters = [self.weight([hidden, width]), self.weight([hidden]), self.weight([width, hidden]), None]
            self.add("gelu_feed_forward", [x], shape, parameters)
        elif kind == "parameter":
            row = self.case.node("parameter", [], [self.weight([width])])
            self.add(rng.choice(["add", "multiply"]), [x, row] if len(shape) == 1 else [x, row], shape)
        elif kind == "attention":
            packed = self.case.node("linear", [x], [self.weight([3 * width, width])])
            held = {"keep": self.case.ids([self.case.samples, shape[0]], 0, 1)} if rng.random() < 0.3 else {}
            self.add("attention", [packed], shape, heads=rng.choice([h for h in (1, 2) if width % h == 0]),
                     causal=rng.random() < 0.5, **held)
        elif kind == "gram":
            gram = self.case.node("matmul", [x, x], transpose_y=True)
            scores = self.case.node("softmax", [gram])
            self.add("matmul", [scores, x], shape)
        elif kind == "transpose":
            self.add("transpose", [x], shape[::-1], i=1, j=2)
        elif kind == "gather":
            count = rng.randint(1, 6)
            ids = self.case.ids([self.case.samples, count], 0, shape[0] - 1)
            self.add("gather", [x], [count, width], ids=ids)
        elif kind == "convolution":
            outputs = rng.choice([2, 4])
            self.add("conv1d", [x], [shape[0], outputs], [self.weight([outputs, 3 * width]), self.weight([outputs])], kernel=3,
                     stride=1, padding=1, dilation=1)
        elif kind == "positions":
            self.add("position_embedding", [x], shape, [self.weight([shape[0] + 1, width])])
        elif kind == "pool":
            self.add("global_average_pool", [x], [width])
        elif kind == "rope" and width % 2 == 0:
            self.add("rope", [x], shape, heads=1, width=width, base=100.0)


def graph_cases(seed, count):
    rng = random.Random(seed)
    for number in range(count):
        yield Graph(rng, number).case
