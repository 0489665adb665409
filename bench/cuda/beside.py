#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a GPU measured beside what predict.py predicts for it, row by row, as Markdown.

usage: beside.py FILE.json...  written by --json of bench_cuda_kernels and bench_cuda_step
"""
import json
import sys

from predict import (
    GPUS,
    Assumptions,
    Kernel,
    Model,
    automatic,
    automatic_narrow,
    formula_of,
    kept_sites,
    step_times,
)

#: (way, launches) of a row of bench_cuda_step; f16 moves the bytes of bf16.
STEP_WAYS = {
    "flat, book-keeping": (kept_sites, "sites"),
    "flat, automatic": (automatic, "gradients"),
    "flat, automatic, narrow": (automatic_narrow, "gradients"),
    "per layer, automatic": (automatic, "gradients per layer"),
    "per layer, automatic, narrow": (automatic_narrow, "gradients per layer"),
}


def gpu_of(device):
    """The figures of the GPU of a file, and a remark where these are another one's."""
    parts = {"A100": "A100-SXM4-80GB", "H100": "H100-SXM5-80GB", "H200": "H200-SXM-141GB", "B200": "B200"}
    for part, name in parts.items():
        if part in device["name"]:
            return GPUS[name], f"{device['name']}, by the figures of {name}"
    return GPUS["H100-SXM5-80GB"], f"{device['name']}, which is not known: by the figures of H100-SXM5-80GB"


def kernel_ms(row, gpu, a):
    """Milliseconds of a row of bench_cuda_kernels. In f32 nothing runs on tensor cores."""
    kernel, tensor = row["kernel"], row["tensor_flops"]
    tensor = formula_of(f"{kernel} {row['shape']} {row['dtype']}") or tensor
    unit = "own"
    if kernel.startswith(("gemm", "ceiling")):
        unit = "library"
    elif kernel.startswith("attention"):
        unit = "attention"
    plain = row["flops"] - row["tensor_flops"]
    seconds = Kernel(**{unit: tensor}, bytes=row["bytes"]).seconds(gpu, a)
    if row["dtype"] == "f32" and not kernel.startswith(("update", "noise")):
        seconds = max(seconds, plain / (gpu.fp32 * a.own))
    if kernel.startswith("noise"):
        n = int(row["shape"])
        seconds = Kernel(bytes=34 * n, fp64=40 * n, integer=148 * n).seconds(gpu, a)
    return 1e3 * seconds


def beside(paths, a):
    """Lines of Markdown."""
    lines = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            measured = json.load(file)
        gpu, remark = gpu_of(measured["device"])
        if measured["program"] == "kernels":
            lines += [f"Kernels, cold cache. {remark}.", ""]
            lines += ["| kernel | shape | dtype | predicted us | measured us | measured / predicted |", "|---|---|---|---|---|---|"]
            for row in measured["rows"]:
                us = 1e3 * kernel_ms(row, gpu, a)
                cells = [row["kernel"], row["shape"], row["dtype"], f"{us:.1f}", f"{row['cold_us']:.1f}", f"{row['cold_us'] / us:.2f}"]
                lines.append("| " + " | ".join(cells) + " |")
        else:
            lines += step_lines(measured, gpu, remark, a)
        lines.append("")
    return lines


def step_lines(measured, gpu, remark, a):
    """Rows of one file of bench_cuda_step."""
    shape = measured["model"]
    lines = [f"Steps, width {shape['width']}, {shape['layers']} layers, {measured['dtype']}. {remark}.", ""]
    lines += ["| way | B | " + " | ".join(f"{kind} ms, predicted | measured | ratio" for kind in ("plain", "private"))
              + " | private / plain, predicted | measured |"]  # fmt: skip
    lines.append("|---" * 10 + "|")
    for row in measured["rows"]:
        name = f"{row['clipping']}, {row['strategy']}"
        if name not in STEP_WAYS or measured["dtype"] == "f32":
            continue
        m = Model(name, shape["width"], shape["layers"], shape["heads"], shape["vocabulary"], shape["tokens"], row["batch"])
        plain, private = step_times(m, *STEP_WAYS[name], gpu, a)
        cells = [name, str(row["batch"])]
        for predicted, ms in ((plain, row["plain_ms"]), (private, row["private_ms"])):
            cells += [f"{predicted:.1f}", f"{ms:.1f}", f"{ms / predicted:.2f}"]
        cells += [f"{private / plain:.2f}", f"{row['ratio']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("\n".join(beside(sys.argv[1:], Assumptions())))
