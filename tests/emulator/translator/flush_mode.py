# SPDX-License-Identifier: Apache-2.0
"""How a kernel flushes subnormal floats (.ftz in the PTX ISA): by the CPU's flush mode or by explicit code.

The CPU's mode (MXCSR FTZ and DAZ) costs nothing but works on every float instruction of the thread, double included. It
is right only where nothing in reach could see a subnormal that it must keep; explicit flushes are right always.
(One difference stays: a result that only rounding brings up to the smallest normal number is zero in the CPU's mode.)
"""
import re

_FLOAT_OPS = "add sub mul fma mad div sqrt rcp ex2 lg2 rsqrt sin cos tanh min max set setp slct cvt atom red".split()
_FLOAT_OP = re.compile(r"(?<![\w.$%])(?:" + "|".join(_FLOAT_OPS) + r")\.[\w.:]*\b(?:bf16x2|bf16|f32|f64)(?![\w])[\w.]*")
#: Conversions that neither read nor make a subnormal float or double, or that work on bit patterns (device/convert.hpp).
#: f16 is never subnormal as float. mma is not in the list of operations: its model turns the CPU's flush mode off.
_HARMLESS = re.compile(
    r"cvt\.(?:(?:\w+\.)*(?:f32|f64)\.(?:[us](?:8|16|32|64)|f16)|(?:\w+\.)*f32\.bf16|(?:(?:rn|rz|relu)\.)*b?f16(?:x2)?\.f32)"
)


def reachable_text(module, name):
    """Text of the kernel and of every device function whose name occurs in what is reached."""
    text, seen, grown = module.functions[name].body, {name}, True
    while grown:
        grown = False
        for other in module.function_index:
            if other not in seen and re.search(r"(?<![\w$])" + re.escape(other) + r"(?![\w$])", text):
                seen.add(other)
                text += module.functions[other].body
                grown = True
    return text


def flush_mode(module, name):
    """(CPU flushes, code flushes) of a kernel: at most one is true, none where nothing says .ftz."""
    text = reachable_text(module, name)
    if ".ftz" not in text:
        return False, False
    ops = _FLOAT_OP.findall(text)
    keeps_subnormals = any(".ftz" not in op and not _HARMLESS.fullmatch(op) for op in ops)
    return not keeps_subnormals, keeps_subnormals
