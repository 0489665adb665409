# SPDX-License-Identifier: Apache-2.0
"""Runs single PTX instructions through the translator, a compiler and the little runtime of lanes.cpp.

A test file describes its cases with `Case`; `compile_cases` builds all of them in one compiler call (the start of the
compiler is what costs) and `run` gives the outputs of one as Python integers (bit patterns).
"""
import ctypes
import os
import random
import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass

from translator.kernel import translate_kernel
from translator.module import Module
from translator.ptx_types import BITS

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
#: as the runtime compiles kernels, but -O1: the code is run once
FLAGS = ["-std=c++17", "-O1", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno", "-w"]
FLAGS += ["-fno-trapping-math", "-shared", "-fPIC"]
SEED = int(os.environ.get("DPMP_TEST_SEED", "20240607"), 0)

_HEADER = ".version 8.0\n.target sm_90\n.address_size 64\n"
_REGISTER = {1: "pred", 8: "b16", 16: "b16", 32: "b32", 64: "b64"}


def generator(name):
    """Random numbers for one test, from the seed (environment DPMP_TEST_SEED)."""
    return random.Random(f"{SEED} {name}")


@dataclass
class Case:
    """One instruction (or a few) applied to many values.

    body: PTX with operands %a, %b, %c, ... (inputs) and %d, %e (outputs); inputs, outputs: their PTX types, pred not
    among the memory types: predicates travel as u32. before: module-level text.
    """

    name: str
    body: str
    inputs: tuple
    outputs: tuple
    before: str = ""
    declarations: str = ""


def _kernel(case):
    """PTX text of the kernel that reads inputs at the thread's number, runs the body and stores the outputs."""
    lines = [f".visible .entry {case.name}("]
    count = len(case.inputs) + len(case.outputs)
    lines.append(",\n".join(f"  .param .u64 p{i}" for i in range(count)))
    lines += [")", "{", ".reg .b64 %address, %base, %wide;", ".reg .b32 %index, %tid, %cta, %word;", ".reg .pred %test;"]
    lines.append(case.declarations)
    for letter, t in [*zip("abcfgh", case.inputs), *zip("de", case.outputs)]:
        lines.append(f".reg .{_REGISTER[BITS[t]] if t not in ('f32', 'f64') else t} %{letter};")
    lines += ["mov.u32 %tid, %tid.x;", "mov.u32 %cta, %ctaid.x;", "mad.lo.u32 %index, %cta, 32, %tid;"]

    def locate(number, t):
        size = 4 if t == "pred" else BITS[t] // 8
        lines.append(f"ld.param.u64 %base, [p{number}];")
        lines.append(f"mul.wide.u32 %wide, %index, {size};")
        lines.append("add.u64 %address, %base, %wide;")

    for number, (letter, t) in enumerate(zip("abcfgh", case.inputs)):
        locate(number, t)
        if t == "pred":
            lines += ["ld.global.u32 %word, [%address];", f"setp.ne.u32 %{letter}, %word, 0;"]
        else:
            lines.append(f"ld.global.{_memory_type(t)} %{letter}, [%address];")
    lines.append(case.body)
    for number, (letter, t) in enumerate(zip("de", case.outputs)):
        locate(len(case.inputs) + number, t)
        if t == "pred":
            lines += [f"selp.u32 %word, 1, 0, %{letter};", "st.global.u32 [%address], %word;"]
        else:
            lines.append(f"st.global.{_memory_type(t)} [%address], %{letter};")
    lines += ["ret;", "}"]
    return "\n".join(lines)


def _memory_type(t):
    return t if t in ("f32", "f64") else f"b{BITS[t]}"


def translated(ptx, name):
    """C++ of one kernel of PTX text that has no header yet."""
    return translate_kernel(Module(_HEADER + ptx), name)


def compile_sources(sources, extra_flags=()):
    """Shared library of several translated kernels: name -> C++. Each gets a namespace and names of its own."""
    parts = ['#include "emu_dev.hpp"']
    for name, text in sources.items():
        text = text.replace('extern "C" { __attribute__((visibility("hidden"))) uint64_t', "static uint64_t", 1)
        text = text.replace("]; }\n", "];\n", 1)
        text = re.sub(r"\bemu_kernel\b", f"kernel_{name}", text)
        text = re.sub(r"^#define EMU_DYN", "#undef EMU_DYN\n#define EMU_DYN", text, flags=re.M)
        parts.append(f"namespace n_{name} {{\n{text}}}\n")
    # the library stays mapped when its file is gone
    with tempfile.TemporaryDirectory(prefix="emu_translator_") as folder:
        source, library = os.path.join(folder, "kernels.cpp"), os.path.join(folder, "kernels.so")
        with open(source, "w", encoding="utf-8") as file:
            file.write("\n".join(parts))
        command = [os.environ.get("CXX", "g++"), *FLAGS, *extra_flags, f"-I{ROOT}/device", f"-I{ROOT}/runtime"]
        command += [source, f"{HERE}/lanes.cpp", f"{ROOT}/device/mma_model.cpp", "-o", library]
        subprocess.run(command, check=True)
        return ctypes.CDLL(library)


class Kernels:
    """Compiled cases of one test file."""

    def __init__(self, cases, extra_flags=()):
        self.cases = {case.name: case for case in cases}
        assert len(self.cases) == len(cases), "two cases have one name"
        sources = {case.name: translated(case.before + _kernel(case), case.name) for case in cases}
        self._library = compile_sources(sources, extra_flags)

    def run(self, name, *columns):
        """Outputs for input columns of bit patterns: one list, or a tuple of lists where the case has several outputs.

        The number of values is rounded up to whole warps with repetitions of the last one.
        """
        case = self.cases[name]
        count = len(columns[0])
        padded = (count + 31) // 32 * 32
        buffers = [_buffer(list(c) + [c[-1]] * (padded - count), t) for c, t in zip(columns, case.inputs)]
        outputs = [_buffer([0] * padded, t) for t in case.outputs]
        params = struct.pack(f"<{len(buffers) + len(outputs)}Q", *(ctypes.addressof(b) for b in buffers + outputs))
        description = ctypes.addressof(ctypes.c_char.in_dll(self._library, f"kernel_{name}"))
        status = self._library.run_kernel(ctypes.c_void_p(description), params, padded)
        assert status == 0, f"{name}: lanes wait for each other"
        results = [list(b)[:count] for b in outputs]
        return results[0] if len(results) == 1 else tuple(results)


_C_TYPE = {8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_uint64}


def _buffer(values, t):
    element = _C_TYPE[32 if t == "pred" else BITS[t]]
    return (element * len(values))(*values)


def signed(value, bits):
    """Two's complement value of a bit pattern."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def integers(rng, bits, count=224):
    """Bit patterns: edges and random values of random length."""
    mask = (1 << bits) - 1
    edges = [0, 1, 2, 3, mask, mask - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1, (1 << (bits - 1)) + 1, 0x80, 0xFF, 0x7F]
    values = [e & mask for e in edges]
    while len(values) < count:
        values.append(rng.getrandbits(bits) >> rng.randrange(bits) if rng.random() < 0.5 else rng.getrandbits(bits))
    rng.shuffle(values)
    return values
