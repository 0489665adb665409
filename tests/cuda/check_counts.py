# SPDX-License-Identifier: Apache-2.0
"""What a private training step of a GPT asks of a GPU, counted on the emulated device.

usage: check_counts.py LIBRARIES TABLE BENCH_STEP

Runs bench/cuda/step with one and with two layers and checks for the flat, book-keeping strategy:
- row, column and element kernels: at most 1.1 times the 32-byte sectors that the useful bytes of each request would fill,
  but for the loads of one kernel;
- no bank conflicts in the kernels of norms, weighted sums and attention;
- launches of a step and of a layer, plain and private, as TABLE says (--report prints that table).
"""
import csv
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TEAM = re.compile(r'(rows|columns|elements)_kernel<')
TENSOR = re.compile(r'block_kernel<kernels::(GhostNormTiles|InstantiateNormTiles|WeightedSum|Attention)')
SECTORS_OF_IDEAL = 1.1
# The columns that it picks lie where the ids of the tokens say.
LOADS_APART = 'GatherColumns'
RANGE = 'flat, book-keeping/'
MODEL = ['--width', '256', '--heads', '4', '--context', '64', '--vocabulary', '256', '--batch', '4', '--repetitions', '1']


def counts(libraries, bench, layers):
    """{(range, kernel): row} of one step, kernels named without namespaces; a range starts with plain/ or private/."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'counts.csv'
        env = dict(os.environ, LD_LIBRARY_PATH=libraries, EMU_COUNT='1', EMU_COUNT_FILE=str(path), EMU_THREADS='0')
        done = subprocess.run([bench, *MODEL, '--layers', str(layers)], env=env, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f'{bench} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}')
        with path.open() as file:
            rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        if row['range'].startswith(RANGE) and row['kind'] in ('kernel', 'product'):
            name = re.sub(r'dpmp::v\w+::', '', row['name'])
            found[row['range'].removeprefix(RANGE), name] = row
    return found


def launches(found, part):
    """(kernels of ours, matrix products) of one step."""
    total = {'kernel': 0, 'product': 0}
    for (name, _), row in found.items():
        if name.split('/')[0] == part:
            total[row['kind']] += int(row['launches'])
    return total['kernel'], total['product']


def check_traffic(found, mistakes):
    worst = 0
    for (_, kernel), row in found.items():
        if TEAM.search(kernel):
            for what in ('store',) if LOADS_APART in kernel else ('load', 'store'):
                sectors, ideal = int(row[f'{what}_sectors']), int(row[f'{what}_ideal_sectors'])
                worst = max(worst, sectors / max(ideal, 1))
                if sectors > SECTORS_OF_IDEAL * ideal:
                    mistakes.append(f'{kernel}: {sectors} {what} sectors, {ideal} would do')
        if TENSOR.search(kernel) and int(row['bank_conflicts']) > 0:
            mistakes.append(f"{kernel}: {row['bank_conflicts']} bank conflicts")
    return worst


def main():
    libraries, table, bench = [a for a in sys.argv[1:] if a != '--report']
    one, two = (counts(libraries, bench, layers) for layers in (1, 2))
    mistakes, lines = [], []
    worst = check_traffic(two, mistakes)
    for part in ('plain', 'private'):
        step, deeper = launches(one, part), launches(two, part)
        layer = [b - a for a, b in zip(step, deeper)]
        lines.append(f'{part} | {layer[0]} kernels and {layer[1]} products a layer | '
                     f'{step[0] - layer[0]} kernels and {step[1] - layer[1]} products besides')
    if '--report' in sys.argv:
        print('\n'.join(lines))
        return
    wanted = [line for line in Path(table).read_text().splitlines() if line and not line.startswith('#')]
    if wanted != lines:
        mistakes.append('launches:\n  ' + '\n  '.join(lines) + f'\nthe table {Path(table).name} says:\n  ' + '\n  '.join(wanted))
    print(f'{len(two)} kernels and products counted, at most {worst:.2f} of the ideal sectors, {len(mistakes)} mistakes')
    for mistake in mistakes:
        print('MISTAKE', mistake)
    sys.exit(bool(mistakes))


if __name__ == '__main__':
    main()
