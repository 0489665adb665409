# SPDX-License-Identifier: Apache-2.0
"""Compares dpmp with PyTorch in float64: compare.py DRIVER [--seed N] [--repeats N] [--graphs N] [--table FILE].

The driver (oracle_driver) computes with dpmp what the cases ask for; here PyTorch computes the same, per-sample gradients by
one backward pass a sample. A deviation is the largest difference of an array over the largest number in it."""
import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import torch

import cases
import graphs
import reference

F64 = torch.float64
# What float64 gives on arrays this small, with room for a product's order of summation; a wrong formula is off by far more.
LIMIT = 1e-11
# Operands are of the order of 1. What is smaller than this is a rest of cancellation, such as the gradient of a layer norm of
# width 1, which is 0 here and 1e-16 there.
FLOOR = 1e-3


def deviation(found, expected):
    """Largest |difference| over the largest |expected|, or over FLOOR; infinite where one has numbers the other has not."""
    found = torch.as_tensor(found, dtype=F64).flatten()
    expected = expected.detach().flatten()
    if found.shape != expected.shape:
        return math.inf
    if found.numel() == 0:
        return 0.0
    if not bool(torch.isfinite(found).all()) or not bool(torch.isfinite(expected).all()):
        return 0.0 if torch.equal(found.isfinite(), expected.isfinite()) else math.inf
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), FLOOR)


class Reference:
    """One case with PyTorch. parameters: their values, by name, where they are known already."""

    def __init__(self, case, parameters, dropped=None):
        self.case, self.parameters, self.dropped = case, parameters, dropped or {}
        self.layers = {layer["name"]: layer for layer in case["layers"]}

    def run(self, inputs, begin, end):
        """Values by name for the samples [begin, end)."""
        values = dict(inputs)
        facts = {"batch": end - begin, "layer": self.layers.__getitem__, "transformer": self.case.get("transformer")}
        for node in self.case["nodes"]:
            def held(name):
                if name == "dropped":
                    return self.dropped[node["dropped_by"]][begin:end]
                if name not in node:
                    return None
                make = reference.real_of if name == "target" else reference.ids_of
                return make(node[name])[begin:end]

            if node.get("given"):
                results = [self.dropped[node["out"][0]][begin:end] * values[node["in"][0]]]
            else:
                results = reference.run_node(node, [values[n] for n in node["in"]],
                                             [None if n is None else self.parameters[n] for n in node["parameters"]], facts,
                                             self.parameters, held)
            values.update(zip(node["out"], results))
        return values

    def losses(self, values, begin, end):
        """The sum of the outputs times the weights that the driver takes: the cosine of 1 + element + 7 output."""
        total = torch.zeros((), dtype=F64)
        for j, output in enumerate(self.case["outputs"]):
            y = values[output["name"]]
            each = y[0].numel()
            weights = torch.cos(1.0 + torch.arange(begin * each, end * each, dtype=F64) + 7.0 * j).reshape(end - begin, each)
            total = total + (y.reshape(end - begin, -1) * weights).sum()
        return total


def gradients(loss, tensors):
    if not loss.requires_grad or not tensors:
        return [torch.zeros_like(t) for t in tensors]
    found = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors)]


def inputs_of(case, begin, end, needs_gradient):
    return {x["name"]: reference.real_of(x)[begin:end].clone().requires_grad_(needs_gradient) for x in case["inputs"]}


class Rows:
    """The table: the worst deviation of each kind in each row."""

    def __init__(self):
        self.rows, self.beyond, self.errors = {}, {}, []

    def note(self, row, column, value):
        worst = self.rows.setdefault(row, {})
        worst[column] = max(worst.get(column, 0.0), value, 0.0)
        if not value <= LIMIT:
            self.beyond[row, column] = max(self.beyond.get((row, column), 0.0), value)

    def count(self, row):
        self.rows.setdefault(row, {})["cases"] = self.rows.get(row, {}).get("cases", 0) + 1


def compare_case(case, answer, table, row):
    if "error" in answer:
        table.errors.append(answer["error"])
        return
    table.count(row)
    samples = case["samples"]
    trained = set(answer["trained"])
    parameters = {name: reference.real_of(p).requires_grad_(name in trained) for name, p in answer["parameters"].items()}
    dropped = {name: reference.real_of(y) for name, y in answer["outputs"].items()}
    one = Reference(case, parameters, dropped)
    inputs = inputs_of(case, 0, samples, True)
    values = one.run(inputs, 0, samples)
    for name, y in answer["outputs"].items():
        table.note(row, "output", deviation(y["values"], values[name]))
    names = list(inputs)
    for name, gradient in zip(names, gradients(one.losses(values, 0, samples), list(inputs.values()))):
        table.note(row, "input gradient", deviation(answer["input_gradients"][name]["values"], gradient))
    if not trained:
        return
    order = sorted(trained)
    per_sample = {name: [] for name in order}
    for i in range(samples):
        loss = one.losses(one.run(inputs_of(case, i, i + 1, False), i, i + 1), i, i + 1)
        for name, gradient in zip(order, gradients(loss, [parameters[n] for n in order])):
            per_sample[name].append(gradient.detach())
    per_sample = {name: torch.stack(list_) for name, list_ in per_sample.items()}
    for name in order:
        table.note(row, "parameter gradient", deviation(answer["parameter_gradients"][name], per_sample[name].sum(0)))
    compare_strategies(case, answer, table, per_sample)


def compare_strategies(case, answer, table, per_sample):
    threshold = case["clip_threshold"]
    for strategy, said in answer["strategies"].items():
        row = f"strategy: {strategy}"
        table.count(row)
        for group in said["groups"]:
            if not group["parameters"]:
                continue
            rows = torch.cat([per_sample[n].flatten(1) for n in group["parameters"]], 1)
            exact = rows.norm(dim=1)
            table.note(row, "norm", deviation(group["norms"], exact))
            upper, factors = torch.tensor(group["upper"], dtype=F64), torch.tensor(group["factors"], dtype=F64)
            # Certified: a bound is never below the norm, and a factor times the norm never above the threshold.
            table.note(row, "bound too low", float((1 - upper / exact.clamp(min=FLOOR)).masked_fill(exact < FLOOR, 0).max()))
            table.note(row, "above C", float((factors * exact / threshold - 1).clamp(min=0).max()))
            best = (threshold / exact.clamp(min=FLOOR)).clamp(max=1.0)
            table.rows[row]["lost"] = max(table.rows[row].get("lost", 0.0), float((1 - factors / best).max()))
            for name in group["parameters"]:
                clipped = (factors.reshape(-1, *[1] * (per_sample[name].dim() - 1)) * per_sample[name]).sum(0)
                table.note(row, "clipped sum", deviation(said["sums"][name], clipped))


def compare_optimiser(case, answer, table):
    row = case["name"]
    if "error" in answer:
        table.errors.append(answer["error"])
        return
    table.count(row)
    ours = case["optimiser"]
    weights = {name: torch.nn.Parameter(reference.real_of(p)) for name, p in case["parameters"].items()}
    if ours["type"] == "sgd":
        theirs = torch.optim.SGD(weights.values(), momentum=ours["momentum"], weight_decay=ours["weight_decay"])
    else:
        theirs = torch.optim.AdamW(weights.values(), betas=(ours["beta1"], ours["beta2"]), eps=ours["epsilon"],
                                   weight_decay=ours["weight_decay"])
    for step, values in zip(case["steps"], answer["values"]):
        for group in theirs.param_groups:
            group["lr"] = step["rate"]
        for name, w in weights.items():
            # PyTorch skips what has no gradient, as dpmp skips what is frozen: no step is counted, no moment decays.
            frozen = name in step["frozen"]
            w.grad = None if frozen else step["factor"] * torch.tensor(step["gradients"][name], dtype=F64).reshape(w.shape)
        theirs.step()
        for name, w in weights.items():
            table.note(row, "parameter", deviation(values[name], w))


def ask(driver, asked, folder):
    question, answer = folder / "asked.json", folder / "answered.json"
    question.write_text(json.dumps({"cases": asked}))
    subprocess.run([driver, str(question), str(answer)], check=True)
    return json.loads(answer.read_text())


COLUMNS = ["output", "input gradient", "parameter gradient"]


def cell(value):
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def table_text(table):
    lines = []

    def section(title, first, columns, prefix):
        rows = [(name, facts) for name, facts in table.rows.items() if name.startswith(prefix)]
        lines.extend(["", f"## {title}", "", f"| {first} | cases | " + " | ".join(columns) + " |",
                      "|---|---|" + "---|" * len(columns)])
        for name, facts in rows:
            keys = ["lost" if c == "signal lost" else c for c in columns]
            lines.append(f"| {name[len(prefix):]} | {facts['cases']} | " + " | ".join(cell(facts.get(k)) for k in keys) + " |")

    section("Operations", "operation", COLUMNS, "operation: ")
    section("Layers and models", "layer", COLUMNS, "layer: ")
    section("Random graphs", "graphs", COLUMNS, "graph: ")
    section("Per-sample norms and clipped sums", "strategy", ["norm", "clipped sum", "above C", "signal lost"], "strategy: ")
    section("Optimisers, twenty steps", "optimiser, what is frozen", ["parameter"], "optimiser: ")
    lines.extend(["", f"## Beyond {LIMIT}", ""])
    lines.extend([f"- {row}: {column} {value:.1e}" for (row, column), value in sorted(table.beyond.items())] or ["Nothing."])
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("driver", help="the program oracle_driver")
    parser.add_argument("--seed", type=int, default=None, help="of all cases; drawn and printed by default")
    parser.add_argument("--repeats", type=int, default=20, help="cases of each operation")
    parser.add_argument("--graphs", type=int, default=1000, help="random graphs")
    parser.add_argument("--table", type=pathlib.Path, help="write docs/oracle.md's tables there")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    torch.set_num_threads(1)
    found = [*cases.all_operation_cases(seed, options.repeats), *cases.all_layer_cases(seed + 1, max(1, options.repeats // 4)),
             *graphs.graph_cases(seed + 2, options.graphs)]
    asked = [c.json for c in found]
    optimisers = list(cases.optimiser_cases(seed + 3, max(1, options.repeats // 10)))
    with tempfile.TemporaryDirectory() as folder:
        said = ask(options.driver, asked + optimisers, pathlib.Path(folder))
    table = Rows()
    for c, case, answer in zip(found, asked, said["answers"]):
        compare_case(case, answer, table, "graph: random" if c.group == "graph" else case["name"])
    for case, answer in zip(optimisers, said["answers"][len(asked):]):
        compare_optimiser(case, answer, table)
    text = table_text(table)
    print(text)
    for error in table.errors:
        print(error)
    if options.table:
        options.table.write_text(heading(seed, options, said) + text)
    sys.exit(1 if table.errors or table.beyond else 0)


def heading(seed, options, said):
    command = f"tests/oracle/run --seed {seed} --repeats {options.repeats} --graphs {options.graphs} --table docs/oracle.md"
    return f"""# dpmp next to PyTorch

Every operation, layer, strategy and optimiser in float64, with random shapes and values, next to
PyTorch: what a model computes, its gradients, per-sample norms and clipped sums (PyTorch: a
backward pass for each sample), and weights after updates. Written by

```sh
{command}
```

on {datetime.date.today()} with PyTorch {torch.__version__} and Python {platform.python_version()}. Products of dpmp:
{said["gemm"]}.

A number is the largest difference in an array over the largest number of PyTorch's array (or over
{FLOOR}, where that is smaller), the worst of all cases of a row; "-": there is no such array. What
is beyond {LIMIT} is named at the end. *Signal lost*: the share by which a clip factor is below the
largest one allowed, min(1, C / norm): certificates, and factors that are rounded down to FP32.
*Above C*: by how much more than C a clipped gradient is, at most.
"""


if __name__ == "__main__":
    main()
