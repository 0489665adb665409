# SPDX-License-Identifier: Apache-2.0
"""Counts of counted.cu against figures worked by hand, on one and two OS threads; and the products of test_products.

usage: check_counts.py LIBRARIES COUNTED PRODUCTS
"""
import csv
import os
import re
import subprocess
import sys
import tempfile

N = 10000
AXPY = {
    "blocks": 40, "threads": 10240, "n_fma_f32": N, "flops_fp32": 2 * N, "n_ld_global": 2 * N, "n_st_global": N,
    "load_sectors": 2 * N // 8, "load_bytes": 8 * N, "load_useful_bytes": 8 * N, "store_sectors": N // 8,
    "load_requests": 2 * 313, "unique_read_bytes": 8 * N, "unique_written_bytes": 4 * N,
}  # fmt: skip
#: (range, kind, name): columns of one launch; times entered, launches, launches of graphs
EXPECTED = {
    ("step", "kernel", "axpy"): (AXPY, 3, 3, 3),
    ("step/inner", "kernel", "axpy"): (AXPY, 3, 3, 0),
    ("", "copy", "cudaMemset"): ({"store_bytes": 4 * N, "store_sectors": N // 8, "load_bytes": 0}, 0, 2, 0),
    ("", "copy", "cudaMemcpy"): ({"load_bytes": 4, "store_bytes": 0}, 0, 1, 0),
    # Two blocks of one warp: a sector for each lane's load; two words of stride two meet in a bank, written and read.
    ("", "kernel", "strided"): (
        {"load_sectors": 2 * 32, "load_useful_bytes": 2 * 128, "unique_read_bytes": 32 * 32, "store_sectors": 2 * 4,
         "unique_written_bytes": 128, "shared_requests": 4, "shared_wavefronts": 8, "bank_conflicts": 4, "n_barrier": 64},
        0, 1, 0,
    ),
    # Six warps, five times.
    ("", "kernel", "matrices"): (
        {"n_mma_bf16_k16": 6 * 5 * 32, "flops_tensor_bf16": 6 * 5 * 2 * 16 * 8 * 16, "n_mma_tf32_k8": 6 * 5 * 32,
         "flops_tensor_tf32": 6 * 5 * 2 * 16 * 8 * 8, "flops_tensor_f16": 0},
        0, 1, 0,
    ),
    ("", "kernel", "others"): (
        {"n_fma_f64": 64, "flops_fp64": 128, "n_fma_f16x2": 64, "flops_fp16": 256, "n_atomic": 64, "n_special_f32": 64,
         "flops_special": 64, "atomic_requests": 2, "atomic_sectors": 2, "atomic_bytes": 256, "atomic_useful_bytes": 8},
        0, 1, 0,
    ),
}  # fmt: skip
PRODUCT = re.compile(r"\S+ m(\d+) n(\d+) k(\d+) batch(\d+) (\w+)>(\w+) ")


def counts(libraries, program, threads):
    """Rows that the program leaves in EMU_COUNT_FILE."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("EMU_") or k in ("EMU_CACHE", "EMU_JOBS", "EMU_CXX")}
    env.pop("NVTX_INJECTION64_PATH", None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "counts.csv")
        env.update(EMU_COUNT="1", EMU_COUNT_FILE=path, EMU_THREADS=str(threads), LD_LIBRARY_PATH=libraries)
        done = subprocess.run([program], env=env, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            sys.exit(f"{program} failed: {done.stdout}{done.stderr}")
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def check_rows(rows):
    """Differences from EXPECTED, as texts."""
    wrong = []
    found = {(row["range"], row["kind"], row["name"]): row for row in rows}
    for key, (columns, entered, launches, graph_launches) in EXPECTED.items():
        if key not in found:
            wrong.append(f"no row {key}")
            continue
        exact = {"entered": entered, "launches": launches, "graph_launches": graph_launches}
        exact.update({name: launches * value for name, value in columns.items()})
        wrong += [f"{key} {n}: {found[key][n]}, expected {v}" for n, v in exact.items() if int(found[key][n]) != v]
    wrong += [f"row {key} is not expected" for key in found.keys() - EXPECTED.keys()]
    return wrong


def check_products(rows):
    """Operations and least traffic of each product, by its name."""
    wrong = []
    products = [row for row in rows if row["kind"] == "product"]
    for row in products:
        match = PRODUCT.match(row["name"])
        m, n, k, batch = (int(match[i]) for i in range(1, 5))
        operations = sum(int(v) for c, v in row.items() if c.startswith("flops_"))
        if operations != 2 * m * n * k * batch * int(row["launches"]):
            wrong.append(f"{row['name']}: {operations} operations")
        tensor = int(row["flops_tensor_bf16" if match[5] == "bf16" else "flops_tensor_f16"])
        if (match[5] in ("bf16", "f16")) != (tensor == operations > 0):
            wrong.append(f"{row['name']}: {tensor} operations of tensor cores")
        written = m * n * (4 if match[6] == "f32" else 2) * int(row["launches"])
        if int(row["store_bytes"]) < written:
            wrong.append(f"{row['name']}: {row['store_bytes']} bytes written, expected {written} at least")
    return wrong if len(products) > 10 else wrong + [f"{len(products)} products only"]


def main():
    """Status 0 when all is as expected."""
    libraries, counted, products = sys.argv[1:]
    wrong = []
    for threads in (1, 2):
        wrong += [f"threads {threads}: {text}" for text in check_rows(counts(libraries, counted, threads))]
    wrong += check_products(counts(libraries, products, 1))
    print("\n".join(wrong) or "ALL OK")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
