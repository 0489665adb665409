#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shapes of bench_cuda_kernels with PyTorch: a Markdown table, and with --json the same rows.

Per-sample norms are what one writes without a kernel of one's own: the Gram matrices or the per-sample gradients stand in
memory. Where these do not fit, samples are taken a few at a time. usage: torch_cuda.py [--device cpu] [--tiny] [--json FILE]
"""
import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

LIMIT = 8 << 30  # bytes that a per-sample intermediate may take


class Timer:
    """Median microseconds of a call, with a cold and with a warm L2 cache."""

    def __init__(self, device, repetitions):
        self.device = device
        self.repetitions = repetitions
        l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size if device == "cuda" else 0
        self.flush = torch.empty(max(2 * l2_bytes, 1), dtype=torch.uint8, device=device)

    def microseconds(self, work, cold):
        """Of one call, after one that warms up."""
        times = []
        for k in range(self.repetitions + 1):
            if cold:
                self.flush.fill_(k % 256)
            if self.device == "cuda":
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                work()
                end.record()
                end.synchronize()
                times.append(1e3 * begin.elapsed_time(end))
            else:
                start = time.perf_counter()
                work()
                times.append(1e6 * (time.perf_counter() - start))
        return statistics.median(times[1:])


class Suite:
    """Rows so far, and what makes them."""

    def __init__(self, device, repetitions, only):
        self.device = device
        self.timer = Timer(device, repetitions)
        self.only = only
        self.rows = []

    def random(self, *shape, dtype=torch.bfloat16, **options):
        """Uniform numbers in (-1, 1)."""
        return (torch.rand(shape, device=self.device) * 2 - 1).to(dtype).requires_grad_(options.get("grad", False))

    def add(self, kernel, shape, dtype, work):
        """A row, unless it is not asked for."""
        if self.only not in kernel:
            return
        try:
            times = {f"{name}_us": self.timer.microseconds(work, name == "cold") for name in ("cold", "hot")}
        except torch.cuda.OutOfMemoryError:
            print(f"torch_cuda.py: {kernel} {shape}: out of memory", file=sys.stderr)
            torch.cuda.empty_cache()
            return
        text = " x ".join(map(str, shape))
        self.rows.append({"kernel": kernel, "shape": text, "dtype": dtype, **times})


def ghost_squares(a, b):
    """|sum_t b_t a_t^T|^2 of each sample as <A A^T, B B^T>; the Grams in FP32 sums, stored in the dtype of a."""
    tokens = a.shape[1]
    each = max(1, LIMIT // (2 * tokens * tokens * a.element_size()))
    parts = zip(a.split(each), b.split(each))
    return torch.cat([torch.einsum("bts,bts->b", x @ x.mT, y @ y.mT) for x, y in parts])


def instantiated_squares(a, b):
    """The same by forming every sample's gradient."""
    each = max(1, LIMIT // (a.shape[2] * b.shape[2] * a.element_size()))
    parts = zip(a.split(each), b.split(each))
    return torch.cat([torch.bmm(y.mT, x).square().sum(dim=(1, 2), dtype=torch.float32) for x, y in parts])


def weighted_sum(a, b, factors):
    """sum_i c_i G_i as one product: what book-keeping libraries do. The scaled b is rounded to its dtype."""
    scaled = b * factors[:, None, None]
    return scaled.flatten(0, 1).mT @ a.flatten(0, 1)


def norms_and_sums(suite, samples, tokens, d, p, dtype):
    """The private work of one matrix [p, d]."""
    a, b = suite.random(samples, tokens, d, dtype=dtype), suite.random(samples, tokens, p, dtype=dtype)
    factors = (torch.arange(samples, device=suite.device) % 3 / 2).to(dtype)
    shape, name = (samples, tokens, d, p), {torch.bfloat16: "bf16", torch.float32: "f32"}[dtype]
    suite.add("ghost_norm", shape, name, lambda: ghost_squares(a, b))
    suite.add("instantiate_norm", shape, name, lambda: instantiated_squares(a, b))
    suite.add("weighted_sum", shape, name, lambda: weighted_sum(a, b, factors))


def attention(suite, samples, tokens, heads, width):
    """Causal attention; the backward pass from a kept graph."""
    q, k, v = (suite.random(samples, heads, tokens, width, grad=True) for _ in range(3))
    gradient = suite.random(samples, heads, tokens, width)
    shape = (samples, tokens, heads, width)
    with torch.no_grad():
        suite.add("attention_forward", shape, "bf16", lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    suite.add("attention_backward", shape, "bf16", lambda: torch.autograd.grad(y, (q, k, v), gradient, retain_graph=True))


def layer_norm(suite, samples, tokens, width):
    """All of the backward pass in one row: the sums over samples are not per-sample ones."""
    x, gain, bias = (suite.random(*shape, grad=True) for shape in ((samples, tokens, width), (width,), (width,)))
    gradient, shape = suite.random(samples, tokens, width), (samples, tokens, width)
    with torch.no_grad():
        suite.add("layer_norm_forward", shape, "bf16", lambda: F.layer_norm(x, (width,), gain, bias))
    y = F.layer_norm(x, (width,), gain, bias)
    suite.add("layer_norm_backward", shape, "bf16",
              lambda: torch.autograd.grad(y, (x, gain, bias), gradient, retain_graph=True))  # fmt: skip


def cross_entropy(suite, samples, tokens, classes):
    """Losses of tokens and their gradient."""
    logits = suite.random(samples * tokens, classes, grad=True)
    targets = torch.arange(samples * tokens, device=suite.device) * 7919 % classes
    ones, shape = torch.ones(samples * tokens, device=suite.device, dtype=logits.dtype), (samples, tokens, classes)
    with torch.no_grad():
        suite.add("cross_entropy_forward", shape, "bf16", lambda: F.cross_entropy(logits, targets, reduction="none"))
    loss = F.cross_entropy(logits, targets, reduction="none")
    suite.add("cross_entropy_backward", shape, "bf16", lambda: torch.autograd.grad(loss, logits, ones, retain_graph=True))


def update(suite, n):
    """AdamW on FP32 weights, and with noise of a normal generator before it."""
    weight = suite.random(n, dtype=torch.float32, grad=True)
    weight.grad = suite.random(n, dtype=torch.float32)
    adamw = torch.optim.AdamW([weight], lr=1e-3, fused=True)

    def noisy():
        weight.grad.add_(torch.randn_like(weight), alpha=2.0)
        adamw.step()

    suite.add("update, adamw", (n,), "f32", adamw.step)
    suite.add("noise and update, adamw", (n,), "f32", noisy)


def products(suite, samples, tokens, d, p):
    """y = x W^T, its gradients, and the per-sample gradients of W."""
    rows = samples * tokens
    x, w, g = suite.random(rows, d), suite.random(p, d), suite.random(rows, p)
    xs, gs = x.view(samples, tokens, d), g.view(samples, tokens, p)
    suite.add("gemm, forward", (1, rows, p, d), "bf16", lambda: x @ w.mT)
    suite.add("gemm, input gradient", (1, rows, d, p), "bf16", lambda: g @ w)
    suite.add("gemm, weight gradient", (1, p, d, rows), "bf16", lambda: g.mT @ x)
    suite.add("gemm, per-sample gradients", (samples, p, d, tokens), "bf16", lambda: torch.bmm(gs.mT, xs))


def run_tiny(suite):
    """The shapes of bench_cuda_kernels --tiny."""
    norms_and_sums(suite, 2, 128, 64, 192, torch.bfloat16)
    norms_and_sums(suite, 2, 64, 64, 64, torch.float32)
    attention(suite, 2, 128, 2, 64)
    layer_norm(suite, 2, 16, 64)
    cross_entropy(suite, 2, 8, 512)
    update(suite, 4096)
    products(suite, 2, 64, 32, 48)


def run_all(suite):
    """The shapes of bench_cuda_kernels."""
    for e in ((32, 1024, 768, 768), (32, 1024, 768, 2304), (32, 1024, 768, 3072), (32, 1024, 3072, 768),
              (128, 256, 768, 2304), (4, 1024, 768, 50304)):  # fmt: skip
        norms_and_sums(suite, *e, torch.bfloat16)
    norms_and_sums(suite, 4, 1024, 768, 2304, torch.float32)
    attention(suite, 32, 1024, 12, 64)
    layer_norm(suite, 32, 1024, 768)
    cross_entropy(suite, 8, 1024, 50304)
    update(suite, 24 << 20)
    products(suite, 32, 1024, 768, 2304)


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the shapes of bench_cuda_kernels --tiny, one repetition")
    parser.add_argument("--repetitions", type=int, default=20, help="a time is the median of so many")
    parser.add_argument("--only", default="", help="kernels whose name contains this text")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_cuda.py: PyTorch sees no CUDA device (--device cpu runs without one)")
    # FP32 products as dpmp makes them: no TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    suite = Suite(options.device, 1 if options.tiny else options.repetitions, options.only)
    (run_tiny if options.tiny else run_all)(suite)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"PyTorch {torch.__version__}, {device}; median of {suite.timer.repetitions}\n")
    print("| kernel | shape | dtype | cold us | hot us |\n|---|---|---|---|---|")
    for row in suite.rows:
        print("| {kernel} | {shape} | {dtype} | {cold_us:.1f} | {hot_us:.1f} |".format(**row))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            report = {"program": "kernels", "implementation": f"PyTorch {torch.__version__}", "device": {"name": device}}
            json.dump({**report, "rows": suite.rows}, file, indent=1)


if __name__ == "__main__":
    main()
