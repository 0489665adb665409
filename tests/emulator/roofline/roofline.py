#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Predicts times on GPUs from the counts of the emulated device (EMU_COUNT=1 EMU_COUNT_FILE=counts.csv).

usage: roofline.py counts.csv [--gpu NAME]... [--range TEXT] [--top N] [--memory unique|sectors] [--dram 0.8] ...

Roofline model (Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 2009) with one roof
for each unit: time of a launch = the longest of work / (peak * efficiency), plus an overhead for the launch. Nothing here
has been measured: every line says "predicted", and the assumptions are printed above the figures.
"""
import argparse
import csv
import sys
from dataclasses import dataclass, fields

from gpus import GPUS, SOURCES

TENSOR = ("tensor_f16", "tensor_bf16", "tensor_tf32", "tensor_i8")
SIMD = ("fp16", "fp32", "fp64")
#: Results per cycle and SM of reciprocals, roots, ex2, ... (CUDA C++ Programming Guide, "Arithmetic Instructions": 16 for
#: compute capabilities 8.0, 9.0 and 10.0).
SPECIAL_PER_CYCLE = 16
SECTOR = 32


@dataclass
class Assumptions:
    """What the model takes for granted. Efficiencies are parts of the peak."""

    dram: float = 0.8  # of the memory bandwidth
    tensor: float = 0.7  # of the tensor cores' peak
    simd: float = 0.7  # of the peak of FP16, FP32, FP64 and special functions
    shared: float = 0.8  # of one wavefront per cycle and SM
    path: float = 64.0  # bytes per cycle between one SM and L2
    launch_us: float = 3.0  # added per launch
    graph_launch_us: float = 1.5  # added per launch of a graph's node
    memory: str = "unique"  # DRAM moves each sector once per launch (L2 keeps it), or "sectors": once per request

    def text(self):
        """The values, as they are printed."""
        return ", ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))


@dataclass
class Prediction:
    """Of one row of the counts. times: seconds by roof, of all launches together, without overheads."""

    row: dict
    times: dict
    overhead: float

    @property
    def bound(self):
        """The roof that takes longest."""
        roof = max(self.times, key=self.times.get)
        if self.times[roof] < self.overhead:
            return "launch"
        return roof

    @property
    def seconds(self):
        """Predicted time of all launches."""
        return max(self.times.values()) + self.overhead


def predict(row, gpu, assumptions):
    """Prediction of one row (texts by column, as csv.DictReader gives them)."""
    a = assumptions
    value = {k: float(v) for k, v in row.items() if k not in ("range", "kind", "name")}
    launches, graph = value["launches"], value["graph_launches"]
    # A grid of fewer blocks than SMs leaves some idle. Libraries choose their own grids: all SMs.
    blocks = value["blocks"] / launches if value["blocks"] else gpu.sms
    busy = min(gpu.sms, blocks)
    part = busy / gpu.sms
    times = {}
    for unit in TENSOR:
        times[unit] = value[f"flops_{unit}"] / (getattr(gpu, unit) * a.tensor * part)
    for unit in SIMD:
        times[unit] = value[f"flops_{unit}"] / (getattr(gpu, unit) * a.simd * part)
    times["special"] = value["flops_special"] / (SPECIAL_PER_CYCLE * gpu.clock * busy * a.simd)
    times["shared"] = value["shared_wavefronts"] / (gpu.clock * busy * a.shared)
    sectors = SECTOR * (value["load_sectors"] + value["store_sectors"] + value["atomic_sectors"])
    unique = value["unique_read_bytes"] + value["unique_written_bytes"]
    times["dram"] = (unique if a.memory == "unique" else sectors) / (gpu.bandwidth * a.dram)
    times["sm_path"] = sectors / (a.path * gpu.clock * busy)
    overhead = 1e-6 * ((launches - graph) * a.launch_us + graph * a.graph_launch_us)
    return Prediction(row, times, overhead)


def read_counts(path):
    """Rows of the file; an error that names a missing column."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        needed = {"range", "entered", "kind", "name", "launches", "flops_tensor_bf16", "unique_read_bytes"}
        missing = needed - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: expected the columns of EMU_COUNT_FILE, missing: {', '.join(sorted(missing))}")
        return list(reader)


def report(rows, gpu, assumptions, top=None):
    """Lines of text for one GPU: rows by range, the longest first, and sums."""
    lines = [f"predicted {gpu.name} (assumed: {assumptions.text()})"]
    lines += [f"predicted {gpu.name} (source: {title}, {year}: {what})" for title, year, what in SOURCES[gpu.name]]
    every = sorted((predict(row, gpu, assumptions) for row in rows), key=lambda p: -p.seconds)
    for name in dict.fromkeys(row["range"] for row in rows):
        predictions = [p for p in every if p.row["range"] == name]
        shown = predictions[:top]
        for p in shown:
            launches = int(p.row["launches"])
            lines.append(
                f"predicted {gpu.name} {_microseconds(p.seconds)} us  {launches:7d} launches "
                f"{_microseconds(p.seconds / launches)} us each  bound {p.bound:<11} {p.row['name']}"
            )
        inside = [p for p in every if _is_inside(p.row["range"], name)]
        total, entered = sum(p.seconds for p in inside), int(predictions[0].row["entered"])
        hidden = f" ({len(predictions) - len(shown)} rows not shown)" if len(shown) < len(predictions) else ""
        each = f", {_microseconds(total / entered).strip()} us for each of {entered}" if entered else ""
        lines.append(
            f"predicted {gpu.name} {_microseconds(total)} us  in all of {_range_text(name)}{each}; "
            f"{_microseconds(sum(p.overhead for p in inside)).strip()} us of it launches{hidden}"
        )
    return lines


def _is_inside(name, outer):
    """Whether the range is the outer one or nested in it; outside all ranges nothing is nested."""
    return name == outer or (outer != "" and name.startswith(outer + "/"))


def _range_text(name):
    return f"range '{name}'" if name else "the work outside ranges"


def _microseconds(seconds):
    return f"{seconds * 1e6:12.2f}"


def main(arguments=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", help="file that EMU_COUNT_FILE named")
    parser.add_argument("--gpu", action="append", choices=list(GPUS), help="may be repeated; all are the default")
    parser.add_argument("--range", help="only ranges whose name contains this text")
    parser.add_argument("--top", type=int, help="rows shown per range")
    for field in fields(Assumptions):
        choices = ("unique", "sectors") if field.name == "memory" else None
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default,
                            choices=choices, help=f"assumption, {field.default} where not given")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        rows = read_counts(options.counts)
    except (OSError, ValueError) as error:
        sys.exit(f"roofline.py: {error}")
    rows = [row for row in rows if options.range is None or options.range in row["range"]]
    assumptions = Assumptions(**{f.name: getattr(options, f.name) for f in fields(Assumptions)})
    for name in options.gpu or GPUS:
        print("\n".join(report(rows, GPUS[name], assumptions, options.top)))


if __name__ == "__main__":
    main()
