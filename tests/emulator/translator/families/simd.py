# SPDX-License-Identifier: Apache-2.0
"""Small integers packed in a register: dot products and the video SIMD instructions on unsigned bytes and halfwords
("Integer Arithmetic Instructions: dp4a, dp2a", "SIMD Video Instructions")."""
from ..instruction import handles

_VIDEO = ("vabsdiff", "vadd", "vsub", "vavrg", "vmin", "vmax")


def _three(ins, emit):
    return ", ".join(emit.read(ins.operand(i), "b32") for i in (1, 2, 3))


def _take_signs(ins):
    """C++ prefix of the element types of a and b."""
    b, a = ins.take_type(("u32", "s32")), ins.take_type(("u32", "s32"))
    return ("uint" if a == "u32" else "int"), ("uint" if b == "u32" else "int")


@handles("dp4a")
def dp4a(ins, emit):
    """c + the dot product of four bytes ("dp4a")."""
    a, b = _take_signs(ins)
    return emit.write(ins.operand(0), f"dot4<{a}8_t, {b}8_t>({_three(ins, emit)})")


@handles("dp2a")
def dp2a(ins, emit):
    """c + the dot product of two halfwords of a and two bytes of b, the lower or higher ones ("dp2a")."""
    a, b = _take_signs(ins)
    high = int(ins.need("lo", "hi") == "hi")
    return emit.write(ins.operand(0), f"dot2<{a}16_t, {b}8_t>({_three(ins, emit)}, {high})")


def _video(ins, emit):
    accumulate = int(ins.has("add"))
    for _ in range(3):
        ins.take_type(("u32",))
    operation = _VIDEO.index(ins.name[:-1])
    return emit.write(ins.operand(0), f"video_simd<{ins.name[-1]}, {operation}>({_three(ins, emit)}, {accumulate})")


handles(*(name + lanes for name in _VIDEO for lanes in "24"))(_video)
