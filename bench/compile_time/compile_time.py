#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a small program costs a compiler: dpmp.cpp header-only and with dpmp::compiled, and libtorch.cpp, in turns.

usage: compile_time.py [--torch FOLDER] [--nvcc NVCC] [--rounds N] [--compiler CXX]

FOLDER: an unpacked LibTorch, or the folder of the Python package torch. NVCC: compiles dpmp.cpp as CUDA too, for sm_90.
Processor time of the compiler and its peak memory, medians over the rounds; ratios are medians of the rounds' ratios. Objects
only: nothing is linked.
"""
import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"


def compile_once(command):
    """(processor seconds, peak megabytes) of one run."""
    child = os.fork()
    if child == 0:
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"expected to compile, got status {status}: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def commands(options, output):
    """{way: command}, LibTorch last."""
    flags = [options.compiler, "-std=c++20", "-O2", "-Wno-psabi", "-c", "-o", str(output)]
    own = [*flags, f"-I{INCLUDE}", str(HERE / "dpmp.cpp")]
    single = [*own, "-DSINGLE_HEADERS"]
    ways = {
        "dpmp.hpp": own,
        "dpmp.hpp, -march=native": [*own, "-march=native"],
        "single headers": single,
        "single headers, -march=native": [*single, "-march=native"],
        "single headers, -march=native, DPMP_F16=0": [*single, "-march=native", "-DDPMP_F16=0"],
        "dpmp::compiled": [*own, "-DDPMP_COMPILED=1"],
    }
    if options.nvcc:
        cuda = [options.nvcc, "-ccbin", options.compiler, "-std=c++20", "-O2", "-arch=sm_90", "-Xcompiler=-Wno-psabi,-march=native",
                "-DDPMP_WITH_CUDA=1", f"-I{INCLUDE}", "-x", "cu", "-c", "-o", str(output), str(HERE / "dpmp.cpp")]
        ways["nvcc, dpmp.cuh"] = cuda
        ways["nvcc, single headers"] = [*cuda, "-DSINGLE_HEADERS"]
        ways["nvcc, single headers, DPMP_F16=0"] = [*cuda, "-DSINGLE_HEADERS", "-DDPMP_F16=0"]
    if options.torch:
        include = options.torch / "include"
        ways["LibTorch"] = [*flags, "-isystem", str(include), "-isystem", str(include / "torch/csrc/api/include"), str(HERE / "libtorch.cpp")]
    return ways


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=Path)
    parser.add_argument("--nvcc")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compiler", default="g++")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for way, command in commands(options, Path(folder) / "object.o").items():
                found.setdefault(way, []).append(compile_once(command))
    version = subprocess.run([options.compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(f"{version}, -O2; medians of {options.rounds}\n")
    print("| way | processor s | peak MB | time / LibTorch's |\n|---|---|---|---|")
    for way, runs in found.items():
        ratio = "-"
        if "LibTorch" in found:
            ratio = f"{median(x[0] / y[0] for x, y in zip(runs, found['LibTorch'])):.2f}"
        print(f"| {way} | {median(x[0] for x in runs):.1f} | {median(x[1] for x in runs):.0f} | {ratio} |")


if __name__ == "__main__":
    main()
