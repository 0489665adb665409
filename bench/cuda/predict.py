#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Predicts the time of a private training step of GPT-2 over that of a plain one on an H100, from flops and bytes.

usage: predict.py                        the tables of docs/benchmarks.md
       predict.py --check COUNTS.csv...  the formulas against counts of the emulated device: EMU_COUNT_FILE of
                                         bench_cuda_kernels --tiny and bench_cuda_step --tiny

Every kernel takes the longest of its roofs, tensor cores, integers, FP64 and memory, and a gap to the next launch. beside.py
sets predictions beside what a GPU measured. The peaks and their sources are those of tests/emulator/roofline/gpus.py.
"""
import argparse
import csv
import math
import sys
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/emulator/roofline"))
from gpus import GPUS  # noqa: E402  pylint: disable=wrong-import-position

L2_BANDWIDTH = 5.5e12  # bytes per second on an H100, assumed
INTEGER_LANES = 64  # of a multiprocessor of compute capability 9.0 (CUDA C++ Programming Guide, "Arithmetic Instructions")


@dataclass(frozen=True)
class Assumptions:
    """Parts of the peaks that are reached, and the gap between launches."""

    library: float = 0.7  # cuBLASLt, of the tensor cores' peak
    mma_sync: float = 0.62  # mma.sync instead of wgmma, of the tensor cores' peak
    own: float = 0.6  # our kernels, of what mma.sync reaches
    # Attention forward and backward together, of the tensor cores' peak: FlashAttention-2, with mma.sync, was measured at 192
    # TFLOP/s on an H100 for heads of 64, causal, 1024 tokens. Exponentials and short rows keep it from the rate of products.
    attention: float = 0.194
    dram: float = 0.8
    fp64: float = 0.5
    integer: float = 0.7
    gap_us: float = 1.5


@dataclass(frozen=True)
class Model:
    """A GPT with tied embeddings, and its batch."""

    name: str
    width: int
    layers: int
    heads: int
    vocabulary: int = 50304
    tokens: int = 1024
    batch: int = 32

    @property
    def rows(self):
        """Tokens of the batch."""
        return self.batch * self.tokens

    @property
    def matrices(self):
        """(p, d) of a layer's matrices: qkv, projection, up, down."""
        w = self.width
        return (3 * w, w), (w, w), (4 * w, w), (w, 4 * w)

    @property
    def parameters(self):
        """Values in all parameters: matrices with biases, norms, the two tables."""
        layer = sum(p * d + p for p, d in self.matrices) + 4 * self.width
        return self.layers * layer + (self.vocabulary + self.tokens + 2) * self.width


@dataclass(frozen=True)
class Kernel:
    """Work of `count` equal launches: operations of each unit, bytes of DRAM and of L2, for each of them."""

    count: float = 1
    library: float = 0
    own: float = 0
    attention: float = 0
    fp64: float = 0
    integer: float = 0
    bytes: float = 0
    l2_bytes: float = 0

    def seconds(self, gpu, a):
        """Without gaps."""
        roofs = (
            self.library / (gpu.tensor_bf16 * a.library),
            self.own / (gpu.tensor_bf16 * a.mma_sync * a.own),
            self.attention / (gpu.tensor_bf16 * a.attention),
            self.fp64 / (gpu.fp64 * a.fp64),
            self.integer / (INTEGER_LANES * gpu.sms * gpu.clock * a.integer),
            self.bytes / (gpu.bandwidth * a.dram),
            self.l2_bytes / L2_BANDWIDTH,
        )
        return self.count * max(roofs)


def tiles(extent, side):
    """Tiles that cover the extent."""
    return -(-extent // side)


def triangle(n):
    """1 + .. + n."""
    return n * (n + 1) // 2


def ghost_side(tokens):
    """Side of the tiles of Grams, as kernels/cuda/norms/ghost_norm.cuh chooses it."""
    return 64 if triangle(tiles(tokens, 64)) <= 3 * triangle(tiles(tokens, 128)) else 128


def ghost_flops(samples, tokens, d, p):
    """Tiles of the upper triangle of two Grams."""
    side = ghost_side(tokens)
    return 2 * samples * triangle(tiles(tokens, side)) * side * side * (d + p)


def bias_flops(samples, tokens, p):
    """Sums of b's rows for a bias, by products with 16 rows of ones."""
    return 2 * 16 * samples * tokens * p


def outer_flops(samples, tokens, d, p):
    """Per-sample gradients formed once: instantiated norms, weighted sums, plain weight gradients."""
    return 2 * samples * tokens * d * p


def attention_flops(samples, tokens, heads, width, products):
    """Causal tiles of 64 x 64; products: 2 forward, 3 for the gradient of queries, 4 for that of keys and values."""
    return 2 * products * samples * heads * triangle(tiles(tokens, 64)) * 64 * 64 * width


def gemm(m, n, k, out_bytes=2, batch=1):
    """A product of cuBLASLt, bf16 operands."""
    return Kernel(library=2 * batch * m * n * k, bytes=batch * (2 * (m * k + k * n) + out_bytes * m * n))


def shared_work(m):
    """What a plain and a private step both do: all but the gradients of matrices and of the biases behind them."""
    u, rows, w = 2 * m.rows * m.width, m.rows, m.width  # u: bytes of one activation
    logits = 2 * rows * m.vocabulary
    layer = [gemm(rows, p, d) for p, d in m.matrices] + [gemm(rows, d, p) for p, d in m.matrices]
    attention = m.batch, m.tokens, m.heads, w // m.heads
    layer += [
        Kernel(attention=attention_flops(*attention, 2), bytes=4 * u),
        Kernel(bytes=2 * u),  # backward: row sums of output times gradient
        Kernel(attention=attention_flops(*attention, 3), bytes=5 * u),
        Kernel(attention=attention_flops(*attention, 4), bytes=6 * u),
        # Two residuals with their layer norms, forward and backward; GELU's input, written and read by epilogues.
        Kernel(bytes=2 * (4 + 4) * u),
        Kernel(bytes=(4 + 4) * u),
    ]
    touched = m.vocabulary * -math.expm1(-rows / m.vocabulary)  # table rows of uniform ids
    ends = [
        Kernel(bytes=(1 + 2) * u),  # embedding and positions
        Kernel(bytes=(2 + 3) * u),  # the last norm
        gemm(rows, m.vocabulary, w),
        Kernel(bytes=3 * logits),  # cross-entropy: read, then read and write
        gemm(rows, w, m.vocabulary),
        Kernel(bytes=u + 16 * touched * w),  # gradient of the looked-up rows
        Kernel(bytes=u),  # gradient of positions
        Kernel(bytes=8 * m.parameters),  # clearing the sums
    ]
    return [replace(k, count=m.layers) for k in layer] + ends


@dataclass(frozen=True)
class Matrix:
    """`count` weights [p, d]. The one that is tied to the table of looked-up rows has no bias."""

    p: int
    d: int
    count: int
    tied: bool = False

    @property
    def numel(self):
        """Elements of one of them."""
        return self.p * self.d


def all_matrices(m):
    """With the tied output layer last."""
    return [Matrix(p, d, m.layers) for p, d in m.matrices] + [Matrix(m.vocabulary, m.width, 1, tied=True)]


def plain_gradients(m):
    """dW = b^T a over all rows in FP32, added to the double sum; the bias' gradient is an epilogue of the product."""
    for x in all_matrices(m):
        yield replace(gemm(x.p, x.d, m.rows, 4), count=x.count)
        yield Kernel(x.count, bytes=20 * x.numel)


def update(m, noise):
    """AdamW on FP32 weights with a bf16 copy. Of a normal number: operations counted on the emulated device."""
    n = m.parameters
    return Kernel(bytes=34 * n, fp64=40 * n * noise, integer=148 * n * noise)


def sites_bytes(m, x):
    """One reading of a and b."""
    return 2 * m.rows * (x.p + x.d)


def norm_ways(m, x):
    """The ways of kernels/: the Gram, or the instantiated gradient. The sums that a bias' gradients are come along, by
    slices of the tokens that another kernel joins."""
    e, read = (m.batch, m.tokens, x.d, x.p), sites_bytes(m, x)
    sums = 0 if x.tied else bias_flops(m.batch, m.tokens, x.p)

    def way(flops, slices):
        parts = 0 if x.tied else 4 * m.batch * slices * x.p
        return [Kernel(x.count, own=flops + sums, bytes=read + parts), Kernel(x.count, bytes=2 * parts)]

    return {
        "gram": way(ghost_flops(*e), tiles(m.tokens, ghost_side(m.tokens))),
        "instantiate": way(outer_flops(*e), 1),
    }


def weighted_sum(m, x):
    """Samples meet in double, in registers: behind each sample's tile an element is converted, at a quarter of the rate of
    multiply-adds, and multiplied and added."""
    return [
        Kernel(x.count, own=outer_flops(m.batch, m.tokens, x.d, x.p), bytes=sites_bytes(m, x) + 16 * x.numel),
        Kernel(x.count, fp64=(2 + 8) * m.batch * x.numel),
    ]


def site_tokens(m, x):
    """Rows of a parameter's sites: the tied output layer has the looked-up rows too."""
    return m.tokens * (2 if x.tied else 1)


def takes_gram(m, x):
    """The norm that per_sample/cost.hpp chooses on a GPU."""
    return (site_tokens(m, x) + 64) / 2 * (x.p + x.d) < x.numel


def keeps_gradients(m, x, element):
    """What per_sample/cost.hpp keeps on a GPU of 16-bit operands, automatic strategy."""
    t, price, sides = site_tokens(m, x), 270, x.p + x.d
    norm = (t * (t + 64) / 2 * sides if takes_gram(m, x) else t * x.numel) + 0.5 * price * t * sides
    sites = norm + t * x.numel + price * x.numel
    gradients = 0.53 * t * x.numel + 2 * element / 4 * price * x.numel
    return gradients < sites and element * x.numel <= 5 * 2 * t * sides


def kept_sites(m, x, *_):
    """Book-keeping."""
    return norm_ways(m, x)["gram" if takes_gram(m, x) else "instantiate"] + weighted_sum(m, x)


def kept_gradients(m, x, *_, element=4):
    """Per-sample gradients by cuBLASLt in FP32, read for the norm and read for the sum. Those of the bias come along."""
    stored = element * m.batch * x.numel
    product = gemm(x.p, x.d, m.tokens, element, m.batch)
    return [
        replace(product, count=x.count),
        Kernel(x.count, bytes=stored),
        Kernel(x.count, bytes=stored + 16 * x.numel),
    ]


def kept_narrow(m, x, *_):
    """The same, rounded to bf16 by the product."""
    return kept_gradients(m, x, element=2)


def automatic(m, x, *_):
    """The automatic strategy."""
    return (kept_gradients if keeps_gradients(m, x, 4) else kept_sites)(m, x)


def automatic_narrow(m, x, *_):
    """The automatic strategy with gradients kept in bf16."""
    return (kept_narrow if keeps_gradients(m, x, 2) else kept_sites)(m, x)


def kept_narrow_fused(m, x, *_):
    """The same, with the norm taken where the gradient is formed."""
    product, _, weighted = kept_narrow(m, x)
    return [product, weighted]


def narrow_in_cache(m, x, gpu, _):
    """Clipping a matrix by itself: gradients of a few samples at a time, which L2 holds from product to sum."""
    if 2 * 2 * x.numel > gpu.l2_bytes:
        return kept_narrow(m, x)
    product = gemm(x.p, x.d, m.tokens, 2, m.batch)
    stored = 2 * m.batch * x.numel
    reading = product.bytes - stored
    return [
        Kernel(x.count, library=product.library, bytes=reading, l2_bytes=stored),
        Kernel(x.count, l2_bytes=2 * stored),
    ]


def private_gradients(m, way, gpu, a):
    """Norms and clipped sums of all matrices and of the tables."""
    for x in all_matrices(m):
        yield from way(m, x, gpu, a)
    u, pairs = 2 * m.rows * m.width, m.batch * m.tokens**2
    yield Kernel(bytes=u)  # norm of positions
    element = 4 if way is automatic else 2
    if way is not kept_sites and keeps_gradients(m, all_matrices(m)[-1], element):
        yield Kernel(bytes=(1 + element) * u)  # the looked-up rows go into the gradients that are kept
        return
    yield Kernel(bytes=u)  # norms of the looked-up rows, and their product with the output layer's gradient
    yield Kernel(bytes=4 * pairs)
    yield Kernel(bytes=2 * u + 2 * pairs)  # squares of both sides and of what is gathered, for the product's bound
    yield Kernel(library=2 * pairs * m.width, bytes=2 * pairs + 3 * u)
    yield Kernel(bytes=3 * u)


def total(kernels, gpu, a):
    """Seconds, without gaps."""
    return sum(k.seconds(gpu, a) for k in kernels)


#: Launches of a step beside those of each layer, fills included, counted on the emulated device with bench_cuda_step at 1
#: and 2 layers.
LAUNCHES = {"plain": (21, 27), "sites": (31, 40), "gradients": (20, 40), "gradients per layer": (25, 57)}


def gaps(m, kind, a):
    """Seconds between launches."""
    beside, each = LAUNCHES[kind]
    return 1e-6 * a.gap_us * (beside + each * m.layers)


#: Name, way, launches, instructions of our kernels.
WAYS = (
    ("book-keeping", kept_sites, "sites", "mma.sync"),
    ("automatic", automatic, "gradients", "mma.sync"),
    ("automatic, gradients kept in bf16", automatic_narrow, "gradients", "mma.sync"),
    ("the same, clipped per layer", automatic_narrow, "gradients per layer", "mma.sync"),
    ("if our kernels used wgmma: book-keeping", kept_sites, "sites", "wgmma"),
    ("... automatic, bf16", automatic_narrow, "gradients", "wgmma"),
    ("if the product took the norm: automatic, bf16", kept_narrow_fused, "gradients", "mma.sync"),
    ("per layer only: if gradients in bf16 stayed in L2", narrow_in_cache, "gradients per layer", "mma.sync"),
)


def predict(m, gpu, assumed):
    """(way, plain ms, private ms) of each way. With wgmma our kernels run as cuBLASLt does, and attention half as fast again
    as with mma.sync, as FlashAttention-3 does."""
    for name, way, launches, instructions in WAYS:
        a = assumed
        if instructions == "wgmma":
            a = replace(a, mma_sync=1, own=a.library, attention=1.5 * a.attention)
        yield name, *step_times(m, way, launches, gpu, a)


def step_times(m, way, launches, gpu, a):
    """Milliseconds of a plain and of a private step."""
    shared = total(shared_work(m), gpu, a)
    plain = shared + total([*plain_gradients(m), update(m, noise=False)], gpu, a) + gaps(m, "plain", a)
    private = shared + total([*private_gradients(m, way, gpu, a), update(m, noise=True)], gpu, a) + gaps(m, launches, a)
    return 1e3 * plain, 1e3 * private


MODELS = (Model("GPT-2 small", 768, 12, 12), Model("GPT-2 medium", 1024, 24, 16))


def report(gpu, assumed):
    """Lines of Markdown."""
    texts = [f"{f.name} {getattr(assumed, f.name)}" for f in fields(assumed)]
    lines = [f"Predicted, {gpu.name}; assumed: {', '.join(texts)}.", ""]
    lines += ["| model | way | plain ms | private ms | private / plain |", "|---|---|---|---|---|"]
    for m in MODELS:
        for name, plain, private in predict(m, gpu, assumed):
            lines.append(f"| {m.name} | {name} | {plain:.1f} | {private:.1f} | {private / plain:.2f} |")
    lines += ["", "| matrix of GPT-2 small | dW, plain | gram | instantiate | weighted sum | gradients kept | in bf16 |"]
    lines.append("|---|---|---|---|---|---|---|")
    m = MODELS[0]
    for name, some in zip(("qkv", "projection", "up", "down", "output (tied)"), all_matrices(m)):
        x = replace(some, count=1)
        ways = norm_ways(m, x)
        cells = [[gemm(x.p, x.d, m.rows, 4), Kernel(bytes=20 * x.numel)], ways["gram"], ways["instantiate"]]
        cells += [weighted_sum(m, x), kept_gradients(m, x), kept_narrow(m, x)]
        text = " | ".join(f"{1e3 * total(c, gpu, assumed):.2f}" for c in cells)
        lines.append(f"| {name} [{x.p}, {x.d}], ms | {text} |")
    return lines


def formula_of(name):
    """Tensor operations of a range of bench_cuda_kernels in bf16, or None."""
    kernel, _, rest = name.rpartition(" bf16")[0].partition(" ")
    if kernel not in ("ghost_norm", "instantiate_norm", "weighted_sum", "attention_forward", "attention_backward"):
        return None
    extents = [int(x) for x in rest.split(" x ")]
    if kernel.startswith("attention"):
        return attention_flops(*extents, 2 if kernel.endswith("forward") else 7)
    return (ghost_flops if kernel == "ghost_norm" else outer_flops)(*extents)


def step_formula(name):
    """(tensor operations, bytes) of a range of bench_cuda_step --tiny, or None."""
    m = Model("tiny", 64, 1, 1, vocabulary=64, tokens=64, batch=2)
    clipping, _, kind = name.partition("/")
    gpu, a = GPUS["H100-SXM5-80GB"], Assumptions()
    if kind == "plain":
        gradients = list(plain_gradients(m))
    elif kind == "private":
        way = {"automatic": automatic, "narrow": automatic_narrow}.get(clipping.split(", ")[-1], kept_sites)
        gradients = list(private_gradients(m, way, gpu, a))
    else:
        return None
    kernels = shared_work(m) + gradients + [update(m, noise=kind == "private")]
    return sum(k.count * (k.library + k.own + k.attention) for k in kernels), sum(k.count * k.bytes for k in kernels)


def check(paths):
    """Lines of Markdown, and whether all operations agree within 1 %."""
    counted = defaultdict(lambda: [0.0, 0.0])
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = "/".join(row["range"].split("/")[:2])  # without the library's own ranges inside a step
                counted[name][0] += float(row["flops_tensor_bf16"])
                counted[name][1] += float(row["unique_read_bytes"]) + float(row["unique_written_bytes"])
    lines, agree = ["| range | counted flops | by formula | counted MB | by formula |", "|---|---|---|---|---|"], True
    for name, (flops, moved) in counted.items():
        step = step_formula(name)
        wanted, wanted_bytes = step if step else (formula_of(name), None)
        if wanted is None:
            continue
        agree &= abs(flops - wanted) <= 0.01 * wanted
        megabytes = "" if wanted_bytes is None else f"{wanted_bytes / 1e6:.3f}"
        lines.append(f"| {name} | {flops:.0f} | {wanted:.0f} | {moved / 1e6:.3f} | {megabytes} |")
    return lines, agree and len(lines) > 2


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", metavar="COUNTS.csv")
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default,
                            help=f"assumption, {field.default} where not given")  # fmt: skip
    options = parser.parse_args()
    if options.check:
        lines, agree = check(options.check)
        print("\n".join(lines))
        sys.exit(0 if agree else "predict.py: expected the formulas within 1 % of the counted operations")
    assumed = Assumptions(**{f.name: getattr(options, f.name) for f in fields(Assumptions)})
    print("\n".join(report(GPUS["H100-SXM5-80GB"], assumed)))


if __name__ == "__main__":
    main()
