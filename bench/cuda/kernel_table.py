#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rounds of bench_cuda_kernels as one Markdown table: medians over the rounds, and parts of what the same GPU was measured to
reach in copies and products.

usage: kernel_table.py [--ceilings FILE.json] FILE.json...  written by --json of bench_cuda_kernels
"""
import argparse
import json
from pathlib import Path
from statistics import median


def rows_of(path):
    """{(kernel, shape, dtype): row}"""
    rows = json.loads(Path(path).read_text(encoding="utf-8"))["rows"]
    return {(r["kernel"], r["shape"], r["dtype"]): r for r in rows}


def ceilings_of(path):
    """Bytes per second of a copy, operations per second of a bf16 product; nothing where they were not measured."""
    found = {}
    if path and Path(path).exists():
        for (kernel, _, _), row in rows_of(path).items():
            seconds = 1e-6 * row["hot_us"]
            if kernel == "ceiling, copy":
                found["memory"] = row["bytes"] / seconds
            elif kernel == "ceiling, product":
                found["product"] = row["tensor_flops"] / seconds
    return found


def share_text(row, seconds, ceilings):
    """The ceiling that takes longest for this work, and the part of it that was reached."""
    needed = {"memory": row["bytes"], "product": row["tensor_flops"]}
    times = {name: needed[name] / rate for name, rate in ceilings.items()}
    if not times:
        return "-"
    name = max(times, key=times.get)
    return f"{100 * times[name] / seconds:.0f} % {name}"


def table(rounds, ceilings):
    """Lines of Markdown. Spread: slowest over fastest round, cold."""
    lines = [f"Medians over {len(rounds)} rounds."]
    if ceilings:
        lines[0] += " Ceilings, measured: " + ", ".join(
            f"{name} {rate / 1e12:.4g} {unit}"
            for name, rate, unit in (
                ("copy", ceilings.get("memory", 0), "TB/s"),
                ("bf16 product", ceilings.get("product", 0), "TFLOP/s"),
            )
        )
    lines += ["", "| kernel | shape | dtype | cold us | hot us | spread | TFLOP/s | GB/s, cold | of ceiling, cold | hot | error % |"]
    lines.append("|---" * 11 + "|")
    for key, row in rounds[0].items():
        same = [r[key] for r in rounds if key in r]
        cold, hot = (median(r[kind] for r in same) for kind in ("cold_us", "hot_us"))
        times = [r["cold_us"] for r in same]
        cells = [*key, f"{cold:.1f}", f"{hot:.1f}", f"{max(times) / min(times):.2f}"]
        cells += [f"{row['tensor_flops'] / cold / 1e6:.4g}", f"{row['bytes'] / cold / 1e3:.4g}"]
        cells += [share_text(row, 1e-6 * us, ceilings) for us in (cold, hot)]
        errors = [r["error_percent"] for r in same if "error_percent" in r]
        cells.append(", ".join("NaN" if error is None else f"{error:.2g}" for error in errors) or "-")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ceilings", metavar="FILE.json")
    parser.add_argument("rounds", nargs="+", metavar="FILE.json")
    options = parser.parse_args()
    rounds = [rows_of(path) for path in options.rounds]
    print("\n".join(table(rounds, ceilings_of(options.ceilings))) + "\n")


if __name__ == "__main__":
    main()
