#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows of two or more files of kernel times side by side, as a Markdown table. usage: side_by_side.py FILE.json...

The first file is the one that others are compared with: a ratio above 1 means that the other takes longer.
"""
import json
import sys


def key(row):
    """What makes rows comparable."""
    return row["kernel"], row["shape"], row["dtype"]


def main(paths):
    """Prints the rows that all files have."""
    reports = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            reports.append(json.load(file))
    names = [r["implementation"] for r in reports]
    tables = [{key(row): row for row in r["rows"]} for r in reports]
    columns = [f"{name} {kind} us" for kind in ("cold", "hot") for name in names]
    columns += [f"{name} / {names[0]}, hot" for name in names[1:]]
    print("| kernel | shape | dtype | " + " | ".join(columns) + " |")
    print("|---" * (3 + len(columns)) + "|")
    for k in tables[0]:
        if not all(k in table for table in tables):
            continue
        cells = [f"{table[k][kind]:.1f}" for kind in ("cold_us", "hot_us") for table in tables]
        cells += [f"{table[k]['hot_us'] / tables[0][k]['hot_us']:.2f}" for table in tables[1:]]
        print("| " + " | ".join([*k, *cells]) + " |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
