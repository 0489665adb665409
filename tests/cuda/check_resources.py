# SPDX-License-Identifier: Apache-2.0
"""Registers, spills and static shared memory of every kernel in CUDA programs, from ptxas -v on the PTX that they carry.

usage: check_resources.py PTXAS TABLE ARCHITECTURE... -- PROGRAM...

A kernel that spills is an error. TABLE names the kernels that matter with the registers they may use at most; a kernel of
the table that no program has, or that uses more, is an error too. --report prints the table that the programs would give.
"""
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
SPILLS = re.compile(r'(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads')
USED = re.compile(r'Used (\d+) registers')


def ptx_texts(program):
    """The PTX modules of a program that was built with readable PTX."""
    data = Path(program).read_bytes()
    starts = [m.start() for m in re.finditer(rb'\.version \d+\.\d+\n\.target sm_', data)]
    return [data[at:data.index(b'\0', at)] for at in starts]


def resources(ptxas, ptx, architecture):
    """[(mangled kernel, registers, stack bytes, spilled bytes)]"""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'module.ptx'
        source.write_bytes(ptx)
        done = subprocess.run([ptxas, '-v', f'-arch={architecture}', str(source), '-o', str(Path(folder) / 'out')],
                              capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f'ptxas failed for {architecture}:\n{done.stderr}')
    kernels, name, stack, spilled = [], None, 0, 0
    for line in done.stderr.splitlines():
        if match := ENTRY.search(line):
            name, stack, spilled = match[1], 0, 0
        elif match := SPILLS.search(line):
            stack, spilled = int(match[1]), int(match[2]) + int(match[3])
        elif (match := USED.search(line)) and name:
            kernels.append((name, int(match[1]), stack, spilled))
            name = None
    return kernels


def readable(names):
    text = subprocess.run(['c++filt'], input='\n'.join(names), capture_output=True, text=True).stdout
    short = re.sub(r'dpmp::v\w+::', '', text)
    short = re.sub(r'void detail::block_kernel<(.*)>\(.*', r'\1', short)
    return dict(zip(names, short.splitlines()))


def collect(ptxas, architectures, programs):
    """{architecture: {readable kernel: (registers, stack, spilled)}}"""
    jobs = [(ptx, arch) for program in programs for ptx in ptx_texts(program) for arch in architectures]
    found = {arch: {} for arch in architectures}
    with ThreadPoolExecutor(2) as pool:
        for (_, arch), kernels in zip(jobs, pool.map(lambda job: resources(ptxas, *job), jobs)):
            names = readable([k[0] for k in kernels])
            for name, registers, stack, spilled in kernels:
                found[arch][names[name].strip()] = (registers, stack, spilled)
    return found


def table_rows(path):
    """Lines 'registers | kernel': the most on any architecture."""
    for line in Path(path).read_text().splitlines():
        if line and not line.startswith('#'):
            registers, name = line.split(' | ', 1)
            yield name.strip(), int(registers)


def main():
    arguments = sys.argv[1:]
    report = '--report' in arguments
    arguments = [a for a in arguments if a != '--report']
    ptxas, table, rest = arguments[0], arguments[1], arguments[2:]
    at = rest.index('--')
    found = collect(ptxas, rest[:at], rest[at + 1:])
    if report:
        for name in sorted(set().union(*found.values())):
            uses = [kernels[name] for kernels in found.values() if name in kernels]
            print(max(u[0] for u in uses), '|', name)
        return
    mistakes = []
    for name, most in table_rows(table):
        uses = {arch: kernels[name][0] for arch, kernels in found.items() if name in kernels}
        if not uses:
            mistakes.append(f'no program has the kernel {name} of the table')
        print(f'{name}: ' + ', '.join(f'{arch} {n}' for arch, n in uses.items()) + f' registers, at most {most}')
        mistakes += [f'{arch}: {name} uses {n} registers, at most {most} are allowed' for arch, n in uses.items() if n > most]
    for arch, kernels in found.items():
        for name, (registers, _, spilled) in sorted(kernels.items()):
            if spilled:
                mistakes.append(f'{arch}: {name} spills {spilled} bytes ({registers} registers)')
    print(f'{sum(map(len, found.values()))} kernels read, {len(mistakes)} mistakes')
    for mistake in mistakes:
        print('MISTAKE', mistake)
    sys.exit(bool(mistakes))


if __name__ == '__main__':
    main()
