# SPDX-License-Identifier: Apache-2.0
"""Multi-word arithmetic: add/sub/mad with carry in and out ("Extended-Precision Integer Arithmetic Instructions").

The condition code register CC.CF is the variable `carry` of the generated function. For a subtraction it holds the
borrow, as in the ISA: sub.cc sets it when b > a, subc takes it off.
"""
from ..instruction import handles
from ..ptx_types import BITS, WIDE, storage

_TYPES = ("u32", "s32", "u64", "s64", "b32", "b64")


def _double_width(t):
    return "uint64_t" if BITS[t] == 32 else "unsigned __int128"


def _finish(ins, emit, t, total, carry_out):
    kept = f"carry = (uint32_t)(v_ >> {BITS[t]}) & 1;" if carry_out else ""
    stored = emit.write(ins.operand(0), f"({storage(t)})v_")
    return f"{{ {_double_width(t)} v_ = {total}; {stored} {kept} }}"


def add_with_carry(ins, emit, carry_in, carry_out):
    """add, sub, addc, subc; the caller took .cc off."""
    t = ins.take_type(_TYPES)
    sign, u, wide = "+" if ins.name.startswith("add") else "-", storage(t), _double_width(t)
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    total = f"({wide})({u}){x} {sign} ({u}){y} {sign} {'carry' if carry_in else '0'}"
    return _finish(ins, emit, t, total, carry_out)


def multiply_with_carry(ins, emit, carry_in, carry_out):
    """mad, madc with .lo or .hi; the caller took .cc off."""
    t = ins.take_type(("u32", "s32", "u64", "s64"))
    wide, u = WIDE[t], storage(t)
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    shift = f" >> {BITS[t]})" if ins.need("lo", "hi") == "hi" else ")"
    product = f"({u})((({wide}){x} * ({wide}){y}){shift}"
    total = f"({_double_width(t)}){product} + ({u}){emit.read(ins.operand(3), t)} + {'carry' if carry_in else '0'}"
    return _finish(ins, emit, t, total, carry_out)


@handles("addc", "subc", types=_TYPES)
def addc(ins, emit):
    """addc, subc, with or without carry out."""
    return add_with_carry(ins, emit, carry_in=True, carry_out=ins.has("cc"))


@handles("madc")
def madc(ins, emit):
    """madc.lo, madc.hi, with or without carry out."""
    return multiply_with_carry(ins, emit, carry_in=True, carry_out=ins.has("cc"))
