#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shapes of bench_cuda_kernels and bench_cuda_step with PyTorch, interleaved by rounds with those programs: Markdown, and
the same as JSON, which is complete after each part.

Kernels are PyTorch's own (attention: scaled_dot_product_attention; AdamW: fused, without a copy of the weights in bf16), a
per-sample norm is what torch.func gives: vmap of grad. The plain step is GPT-2 compiled by torch.compile under autocast to
bf16, the per-sample one the same model without the compiler, every sample's gradient by torch.func, clipped and added up.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

BF16, F32 = torch.bfloat16, torch.float32


class Timer:
    """Median microseconds as bench/cuda/device_timer.cuh has them: launches queue up behind fills of memory."""

    def __init__(self, device, repetitions):
        self.device, self.repetitions = device, repetitions
        self.on_gpu = device.type == "cuda"
        size = 2 * torch.cuda.get_device_properties(0).L2_cache_size if self.on_gpu else 1 << 20
        self.flush = torch.empty(size, dtype=torch.uint8, device=device)

    def microseconds(self, cold, work):
        """One call; a fourth of four calls where the cache may be warm."""
        work()
        if not self.on_gpu:
            return self.by_clock(work)
        calls = 1 if cold else 4
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(self.repetitions)]
        for _ in range(16):
            self.flush.zero_()
        for begin, end in marks:
            if cold:
                self.flush.zero_()
            begin.record()
            for _ in range(calls):
                work()
            end.record()
        torch.cuda.synchronize()
        return 1e3 * median(begin.elapsed_time(end) for begin, end in marks) / calls

    def by_clock(self, work):
        """Where there is no GPU."""
        times = []
        for _ in range(self.repetitions):
            start = time.perf_counter()
            work()
            times.append(1e6 * (time.perf_counter() - start))
        return median(times)


class Kernels:
    """One function for each kernel: (name, shape, dtype, work)."""

    def __init__(self, device, tiny):
        self.device = device
        samples, tokens, heads, width = (2, 128, 2, 64) if tiny else (32, 1024, 12, 64)
        norm = (2, 16, 64) if tiny else (32, 1024, 768)
        classes = (2, 8, 512) if tiny else (8, 1024, 50304)
        site = (2, 128, 64, 192) if tiny else (32, 1024, 768, 2304)
        self.makers = (
            lambda: self.attention(samples, tokens, heads, width),
            lambda: self.layer_norm(*norm),
            lambda: self.cross_entropy(*classes),
            lambda: self.adamw(4096 if tiny else 24 << 20),
            lambda: self.norms(*site),
        )

    def random(self, *shape, dtype=BF16, grad=False):
        """Normal numbers."""
        return torch.randn(*shape, device=self.device, dtype=dtype).requires_grad_(grad)

    @staticmethod
    def both(name, shape, inputs, gradient, forward):
        """The forward pass without a graph, and the backward pass from one that is kept."""
        text = " x ".join(map(str, shape))

        def without_graph():
            with torch.no_grad():
                forward(*inputs)

        yield f"{name}_forward", text, "bf16", without_graph
        result = forward(*inputs)
        leaves = [x for x in inputs if x.requires_grad]
        yield f"{name}_backward", text, "bf16", lambda: torch.autograd.grad(result, leaves, gradient, retain_graph=True)

    def attention(self, samples, tokens, heads, width):
        """Causal; heads lie behind samples, as PyTorch wants them."""
        q, k, v = (self.random(samples, heads, tokens, width, grad=True) for _ in range(3))
        yield from self.both(
            "attention",
            (samples, tokens, heads, width),
            (q, k, v),
            self.random(samples, heads, tokens, width),
            lambda *x: F.scaled_dot_product_attention(*x, is_causal=True),
        )

    def layer_norm(self, samples, tokens, width):
        """With gain and bias."""
        x, gain, bias = self.random(samples, tokens, width, grad=True), self.random(width, grad=True), self.random(width, grad=True)
        yield from self.both(
            "layer_norm",
            (samples, tokens, width),
            (x, gain, bias),
            self.random(samples, tokens, width),
            lambda x, gain, bias: F.layer_norm(x, (width,), gain, bias),
        )

    def cross_entropy(self, samples, tokens, classes):
        """Of each row."""
        logits = self.random(samples * tokens, classes, grad=True)
        targets = torch.arange(samples * tokens, device=self.device) * 7919 % classes
        yield from self.both(
            "cross_entropy",
            (samples, tokens, classes),
            (logits,),
            torch.ones(samples * tokens, device=self.device, dtype=BF16),
            lambda x: F.cross_entropy(x, targets, reduction="none"),
        )

    def adamw(self, n):
        """FP32 weights."""
        weight = self.random(n, dtype=F32, grad=True)
        weight.grad = self.random(n, dtype=F32)
        optimiser = torch.optim.AdamW([weight], lr=1e-3, fused=self.device.type == "cuda")
        yield "update, adamw", str(n), "f32", optimiser.step

    def norms(self, samples, tokens, d, p):
        """Squared norms of a Linear's gradients."""
        a, b, weight = self.random(samples, tokens, d), self.random(samples, tokens, p), self.random(p, d)

        def loss(w, x, gradient):
            return (F.linear(x, w) * gradient).sum()

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        yield "instantiate_norm", f"{samples} x {tokens} x {d} x {p}", "bf16", lambda: gradients(weight, a, b).float().square().sum((1, 2))

    def measure(self, timer):
        """{(kernel, shape, dtype): (cold us, hot us)}; where memory is short, a kernel is left out."""
        times = {}
        for maker in self.makers:
            try:
                for name, shape, dtype, work in maker():
                    times[name, shape, dtype] = timer.microseconds(True, work), timer.microseconds(False, work)
            except torch.OutOfMemoryError as error:
                print(f"PyTorch: {error}", file=sys.stderr)
            give_back(self.device)
        return times


class Block(nn.Module):
    """A layer of GPT-2."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """Attention, then the feed-forward half."""
        samples, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).view(samples, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(samples, tokens, width)
        x = x + self.projection(y)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """With a tied output layer."""

    def __init__(self, model):
        super().__init__()
        self.table = nn.Embedding(model["vocabulary"], model["width"])
        self.places = nn.Parameter(torch.randn(model["tokens"], model["width"]) * 0.02)
        self.blocks = nn.ModuleList(Block(model["width"], model["heads"]) for _ in range(model["layers"]))
        self.norm = nn.LayerNorm(model["width"])
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, ids):
        """Mean loss of all tokens, which are their own targets as in bench_cuda_step."""
        x = self.table(ids) + self.places
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.table.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())


class Steps:
    """A GPT-2 and AdamW; plain() and per_sample() are steps."""

    def __init__(self, model, batch, device):
        self.device = device
        self.gpt = Gpt(model).to(device)
        self.ids = torch.randint(model["vocabulary"], (batch, model["tokens"]), device=device)
        self.optimiser = torch.optim.AdamW(self.gpt.parameters(), lr=1e-3, fused=device.type == "cuda")
        self.compiled = torch.compile(self.gpt)

    def autocast(self):
        """To bf16."""
        return torch.autocast(self.device.type, dtype=BF16)

    def plain(self):
        """Compiled."""
        with self.autocast():
            loss = self.compiled(self.ids)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def per_sample(self):
        """Every sample's gradient, clipped to 1, added up; no noise."""
        parameters = {name: p.detach() for name, p in self.gpt.named_parameters()}

        def loss(values, ids):
            with self.autocast():
                return torch.func.functional_call(self.gpt, values, (ids[None],))

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, self.ids)
        squares = sum(g.flatten(1).square().sum(1) for g in gradients.values())
        factors = squares.sqrt().clamp(min=1).reciprocal()
        for name, parameter in self.gpt.named_parameters():
            parameter.grad = torch.einsum("b,b...->...", factors, gradients[name])
        self.optimiser.step()
        self.optimiser.zero_grad()

    def milliseconds(self, step, repetitions):
        """Times of steps from an idle device to an idle device."""
        times = []
        for _ in range(repetitions):
            synchronize(self.device)
            start = time.perf_counter()
            step()
            synchronize(self.device)
            times.append(1e3 * (time.perf_counter() - start))
        return times


def synchronize(device):
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def give_back(device):
    """What is free goes back to the system: another program needs it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Peer:
    """Our programs, and what was measured so far."""

    def __init__(self, options):
        self.options, self.end = options, time.monotonic() + options.seconds
        self.device = torch.device("cuda" if torch.cuda.is_available() and not options.tiny else "cpu")
        self.result = {"torch": torch.__version__, "device": str(self.device)}

    def left(self):
        """Seconds."""
        return self.end - time.monotonic()

    def ours(self, program, *arguments):
        """The JSON that one of our programs writes, or None where it fails or takes too long."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.json"
            command = [self.options.programs / program, "--json", path, *arguments, *(["--tiny"] if self.options.tiny else [])]
            environment = {**os.environ, "LD_LIBRARY_PATH": self.options.library_path}
            try:
                subprocess.run(command, env=environment, check=True, capture_output=True, timeout=max(1, self.left()))
                return json.loads(path.read_text(encoding="utf-8"))
            except (subprocess.SubprocessError, OSError) as error:
                print(f"{program}: {error} {getattr(error, 'stderr', b'') or b''}", file=sys.stderr)
                return None

    def save(self):
        """The file is there as a whole or as it was before."""
        if self.options.json:
            part = self.options.json.with_suffix(".part")
            part.write_text(json.dumps(self.result, indent=1), encoding="utf-8")
            part.replace(self.options.json)

    def kernels(self, end):
        """Rounds of kernels until `end`, at most three."""
        timer, kernels = Timer(self.device, 2 if self.options.tiny else 20), Kernels(self.device, self.options.tiny)
        ours, theirs, rounds = {}, {}, 0
        while rounds < 3 and (rounds == 0 or time.monotonic() < end):
            rounds += 1
            for only in ("attention", "layer_norm", "cross_entropy", "update, adamw", "instantiate_norm"):
                report = self.ours("bench_cuda_kernels", "--only", only, "--skip-checks")
                for row in report["rows"] if report else ():
                    key = row["kernel"], row["shape"], row["dtype"]
                    ours.setdefault(key, []).append((row["cold_us"], row["hot_us"]))
            for key, times in kernels.measure(timer).items():
                theirs.setdefault(key, []).append(times)
        rows = []
        for key in theirs:
            if key in ours:
                kind = [[median(t[k] for t in times[key]) for k in (0, 1)] for times in (ours, theirs)]
                rows.append({"kernel": key[0], "shape": key[1], "dtype": key[2], "ours_us": kind[0], "torch_us": kind[1]})
        print(f"Kernels, medians over {rounds} rounds; PyTorch {torch.__version__} on {self.device}.\n")
        print("| kernel | shape | dtype | ours cold us | PyTorch | ours hot us | PyTorch | PyTorch / ours, cold | hot |")
        print("|---" * 9 + "|")
        for row in rows:
            (cold, hot), (torch_cold, torch_hot) = row["ours_us"], row["torch_us"]
            cells = [row["kernel"], row["shape"], row["dtype"], f"{cold:.1f}", f"{torch_cold:.1f}", f"{hot:.1f}", f"{torch_hot:.1f}"]
            print("| " + " | ".join([*cells, f"{torch_cold / cold:.2f}", f"{torch_hot / hot:.2f}"]) + " |")
        print(flush=True)
        self.result["kernels"] = {"rounds": rounds, "rows": rows}
        self.save()

    def steps(self):
        """GPT-2 small, ours and PyTorch's in turns."""
        if self.options.tiny:
            model, batch = {"vocabulary": 64, "width": 64, "layers": 1, "heads": 1, "tokens": 64}, 2
        else:
            model, batch = {"vocabulary": 50304, "width": 768, "layers": 12, "heads": 12, "tokens": 1024}, 16
        size = () if self.options.tiny else ("--batch", str(batch), "--repetitions", "3")
        steps = Steps(model, batch, self.device)
        steps.milliseconds(steps.plain, 2)
        times, rounds = {"ours plain": [], "ours private": [], "PyTorch plain": []}, 0
        while rounds < 3 and (rounds == 0 or self.left() > 0.25 * self.options.seconds):
            rounds += 1
            give_back(self.device)
            report = self.ours("bench_cuda_step", "--only", "flat, automatic, narrow", *size)
            for row in report["rows"] if report else ():
                times["ours plain"].append(row["plain_ms"])
                times["ours private"].append(row["private_ms"])
            times["PyTorch plain"] += steps.milliseconds(steps.plain, 3)
        print(f"Steps of GPT-2, {model}, B = {batch}, {rounds} rounds.\n\n| step | ms | tokens/s |\n|---|---|---|")
        self.result["steps"] = {"model": model, "batch": batch, "rounds": rounds, "ms": {}}
        for name, values in times.items():
            self.add_step(name, values)
        # Last, because it may take more memory or time than there is.
        try:
            steps.milliseconds(steps.per_sample, 1)
            self.add_step("PyTorch per sample", steps.milliseconds(steps.per_sample, 3))
        except (RuntimeError, torch.OutOfMemoryError) as error:
            print(f"\nPer-sample gradients by torch.func: {str(error).splitlines()[0]}", flush=True)

    def add_step(self, name, times):
        """A row of the table of steps."""
        if not times:
            return
        steps, ms = self.result["steps"], median(times)
        print(f"| {name} | {ms:.2f} | {1e3 * steps['batch'] * steps['model']['tokens'] / ms:.0f} |", flush=True)
        steps["ms"][name] = ms
        self.save()


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="the folder of bench_cuda_kernels and bench_cuda_step")
    parser.add_argument("--library-path", default="", help="LD_LIBRARY_PATH of these programs")
    parser.add_argument("--seconds", type=float, default=120, help="no round is begun that would end long behind this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU, where times mean nothing")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    peer = Peer(options)
    peer.kernels(time.monotonic() + 0.3 * options.seconds)
    peer.steps()


if __name__ == "__main__":
    main()
