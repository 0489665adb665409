# SPDX-License-Identifier: Apache-2.0
"""f16, bf16 and packed pairs ("Half Precision Floating-Point Instructions"; min, max, ex2, tanh of these types).

Each operation is computed exactly enough in double and rounded once (device/halves.hpp). Subnormals are kept, except
where .ftz says otherwise for f16.
"""
from ..instruction import handles
from ..ptx_types import CPP, HALVES

_HELPER = {"add": "half_add", "sub": "half_sub", "mul": "half_mul", "fma": "half_fma", "min": "half_min", "max": "half_max"}


def half_class(t):
    """C++ class of the element format of a 16-bit type."""
    return "Bfloat16" if t.startswith("b") else "Half"


def on_halves(helper, t, arguments):
    """Call of a helper for one 16-bit float, or for both of a pair."""
    joined = ", ".join(arguments)
    if t.endswith("x2"):
        return f"both_halves({helper}<{half_class(t)}>, {joined})"
    return f"{helper}<{half_class(t)}>({joined})"


def _flushed(expression, t, ftz):
    return on_halves("half_flush", t, [expression]) if ftz else expression


@handles("add", "sub", "mul", "fma", "min", "max", types=HALVES)
def arithmetic(ins, emit):
    """add, sub, mul, fma, min, max with .sat, .relu, .NaN, .ftz."""
    t, ftz, nan = ins.take_type(), ins.has("ftz"), ins.has("NaN")
    if ins.take_rounding() != "RN":
        raise ins.error("only .rn")
    helper = _HELPER[ins.name] + ("_nan" if nan else "")
    count = 3 if ins.name == "fma" else 2
    if len(ins.operands) != count + 1:
        raise ins.error("this number of inputs is not modelled")
    expression = on_halves(helper, t, [_flushed(emit.read(x, t), t, ftz) for x in ins.operands[1:]])
    expression = _flushed(expression, t, ftz)
    if ins.has("sat"):
        expression = on_halves("half_saturate", t, [expression])
    if ins.has("relu"):
        expression = on_halves("half_relu", t, [expression])
    return emit.write(ins.operand(0), expression)


@handles("neg", "abs", types=HALVES)
def neg_abs(ins, emit):
    """Sign bits only."""
    t, ftz = ins.take_type(), ins.has("ftz")
    sign = "0x80008000u" if t.endswith("x2") else "0x8000u"
    magnitude = "0x7fff7fffu" if t.endswith("x2") else "0x7fffu"
    change = f"^ {sign}" if ins.name == "neg" else f"& {magnitude}"
    return emit.write(ins.operand(0), f"({CPP[t]})({_flushed(emit.read(ins.operand(1), t), t, ftz)} {change})")


@handles("ex2", "tanh", types=HALVES)
def function(ins, emit):
    """ex2.approx and tanh.approx; .ftz is always meant for bf16 ex2 and the ISA flushes there."""
    t = ins.take_type()
    ins.need("approx")
    ftz = ins.has("ftz")
    helper = "half_exp2" if ins.name == "ex2" else "half_tanh"
    expression = on_halves(helper, t, [_flushed(emit.read(ins.operand(1), t), t, ftz)])
    return emit.write(ins.operand(0), _flushed(expression, t, ftz))
