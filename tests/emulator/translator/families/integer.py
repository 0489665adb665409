# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic ("Integer Arithmetic Instructions" and the add/sub/mul/mad forms without carry).

Sums and products are computed unsigned: C++ leaves signed overflow undefined, PTX wraps. 16-bit operands are widened
to 32 bits first, since C++ would promote them to a signed int.
"""
from ..instruction import handles
from ..ptx_types import BITS, CPP, INTEGERS, WIDE, storage
from .carry import add_with_carry, multiply_with_carry

_NARROW_SUM = {8: "uint32_t", 16: "uint32_t", 32: "uint32_t", 64: "uint64_t"}
_SYMBOL = {"add": "+", "sub": "-", "mul": "*"}
_WIDE_TYPE = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def _high_half(type_name, x, y, result):
    return f"({result})((({WIDE[type_name]}){x} * ({WIDE[type_name]}){y}) >> {BITS[type_name]})"


@handles("add", "sub", types=INTEGERS)
def add_sub(ins, emit):
    """add/sub, with .sat for s32 ("add", "sub")."""
    if ins.has("cc"):
        return add_with_carry(ins, emit, carry_in=False, carry_out=True)
    t = ins.take_type(INTEGERS)
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    if ins.has("sat"):
        if t != "s32":
            raise ins.error(".sat is for s32")
        return emit.write(ins.operand(0), f"add_saturated<{CPP[t]}>({x}, {y}, {int(ins.name == 'sub')})")
    work = _NARROW_SUM[BITS[t]]
    return emit.write(ins.operand(0), f"({storage(t)})(({work}){x} {_SYMBOL[ins.name]} ({work}){y})")


@handles("mul", types=INTEGERS)
def mul(ins, emit):
    """mul.lo, .hi, .wide ("mul")."""
    t = ins.take_type(_WIDE_TYPE if "wide" in ins.modifiers else WIDE)
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    part = ins.need("lo", "hi", "wide")
    if part == "wide":
        return emit.write(ins.operand(0), f"(({WIDE[t]}){x} * ({WIDE[t]}){y})")
    if part == "hi":
        return emit.write(ins.operand(0), _high_half(t, x, y, CPP[t]))
    work = _NARROW_SUM[BITS[t]]
    return emit.write(ins.operand(0), f"({storage(t)})(({work}){x} * ({work}){y})")


@handles("mad", types=INTEGERS)
def mad(ins, emit):
    """mad.lo, .hi (.sat), .wide ("mad")."""
    if ins.has("cc"):
        return multiply_with_carry(ins, emit, carry_in=False, carry_out=True)
    t = ins.take_type(_WIDE_TYPE if "wide" in ins.modifiers else WIDE)
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    part = ins.need("lo", "hi", "wide")
    if part == "wide":
        sum_type = _WIDE_TYPE[t]
        u = storage(sum_type)
        product = f"({u})(({WIDE[t]}){x} * ({WIDE[t]}){y})"
        return emit.write(ins.operand(0), f"({u})({product} + ({u}){emit.read(ins.operand(3), sum_type)})")
    z = emit.read(ins.operand(3), t)
    u, work = storage(t), _NARROW_SUM[BITS[t]]
    if part == "hi":
        high = _high_half(t, x, y, u)
        if ins.has("sat"):
            if t != "s32":
                raise ins.error(".sat is for s32")
            return emit.write(ins.operand(0), f"add_saturated<int32_t>((int32_t){high}, {z}, 0)")
        return emit.write(ins.operand(0), f"({u})(({work}){high} + ({work}){z})")
    return emit.write(ins.operand(0), f"({u})(({work}){x} * ({work}){y} + ({work}){z})")


@handles("mul24", "mad24", types=("u32", "s32"))
def mul24(ins, emit):
    """Products of the low 24 bits ("mul24", "mad24"); .hi takes bits 47..16 of the 48-bit product."""
    t = ins.take_type()
    if t == "u32":
        x, y = (f"({emit.read(ins.operand(i), t)} & 0xffffffu)" for i in (1, 2))
    else:
        x, y = (f"((int32_t)((uint32_t){emit.read(ins.operand(i), t)} << 8) >> 8)" for i in (1, 2))
    if ins.need("lo", "hi") == "lo":
        product = f"(uint32_t){x} * (uint32_t){y}"
    else:
        product = f"(uint32_t)((({WIDE[t]}){x} * ({WIDE[t]}){y}) >> 16)"
    added = f" + (uint32_t){emit.read(ins.operand(3), t)}" if ins.name == "mad24" else ""
    return emit.write(ins.operand(0), f"(uint32_t)({product}{added})")


@handles("min", "max", types=INTEGERS)
def min_max(ins, emit):
    """min/max, with .relu for s32 ("min", "max")."""
    t = ins.take_type()
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    chosen = f"({x} {'<' if ins.name == 'min' else '>'} {y} ? {x} : {y})"
    return emit.write(ins.operand(0), f"({chosen} < 0 ? 0 : {chosen})" if ins.has("relu") else chosen)


@handles("div", "rem", types=INTEGERS)
def div_rem(ins, emit):
    """Division; by zero gives all ones, the remainder then is the dividend (what NVIDIA's code does; the ISA leaves it
    open) ("div", "rem")."""
    t = ins.take_type()
    helper = "div_int" if ins.name == "div" else "rem_int"
    return emit.write(
        ins.operand(0), f"{helper}<{CPP[t]}>({emit.read(ins.operand(1), t)}, {emit.read(ins.operand(2), t)})"
    )


@handles("neg", "abs", types=INTEGERS)
def neg_abs(ins, emit):
    """Two's complement; the most negative value is its own negative ("neg", "abs")."""
    t = ins.take_type()
    x, u = emit.read(ins.operand(1), t), storage(t)
    if ins.name == "neg":
        return emit.write(ins.operand(0), f"({u})(0 - ({u}){x})")
    return emit.write(ins.operand(0), f"({u})({x} < 0 ? 0 - ({u}){x} : ({u}){x})")


@handles("sad", types=INTEGERS)
def sad(ins, emit):
    """c + |a - b| ("sad")."""
    t = ins.take_type()
    x, y, u = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t), storage(t)
    distance = f"({x} < {y} ? ({u}){y} - ({u}){x} : ({u}){x} - ({u}){y})"
    return emit.write(ins.operand(0), f"({u})(({u}){emit.read(ins.operand(3), t)} + {distance})")
