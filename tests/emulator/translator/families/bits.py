# SPDX-License-Identifier: Apache-2.0
"""Bits: logic, shifts, fields, counts, byte permutation ("Logic and Shift Instructions", bit-field instructions of
"Integer Arithmetic Instructions", "Data Movement and Conversion Instructions: prmt")."""
from ..emitter import integer_literal
from ..instruction import handles
from ..ptx_types import BITS, CPP, INTEGERS, UNTYPED, storage

_ANY = INTEGERS + UNTYPED
_LOGIC = {"and": "&", "or": "|", "xor": "^"}


@handles("and", "or", "xor", types=_ANY + ("pred",))
def logic(ins, emit):
    """Bitwise, or of predicates ("and", "or", "xor")."""
    t = ins.take_type()
    symbol = _LOGIC[ins.name]
    if t == "pred":
        x, y = emit.predicate(ins.operand(1)), emit.predicate(ins.operand(2))
        return emit.write(ins.operand(0), f"(bool)({x} {symbol} {y})")
    work = "uint32_t" if BITS[t] < 32 else storage(t)
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    return emit.write(ins.operand(0), f"({storage(t)})(({work}){x} {symbol} ({work}){y})")


@handles("not", "cnot", types=_ANY + ("pred",))
def complement(ins, emit):
    """Bitwise complement, and C's logical ! for cnot ("not", "cnot")."""
    t = ins.take_type()
    if t == "pred":
        return emit.write(ins.operand(0), f"!{emit.predicate(ins.operand(1))}")
    x, u = emit.read(ins.operand(1), t), storage(t)
    return emit.write(ins.operand(0), f"({u})~{x}" if ins.name == "not" else f"({u})({x} == 0)")


@handles("lop3", types=("b32",))
def lop3(ins, emit):
    """Any function of three bits; the table is an immediate ("lop3"). The forms with a predicate result are refused."""
    ins.take_type()
    table = integer_literal(ins.operand(4)) & 255
    inputs = ", ".join(emit.read(ins.operand(i), "b32") for i in (1, 2, 3))
    return emit.write(ins.operand(0), f"logic3<{table}>({inputs})")


@handles("shl", types=_ANY)
def shl(ins, emit):
    """Left shift; amounts of the width and more give 0 ("shl")."""
    t = f"b{BITS[ins.take_type()]}"
    return emit.write(
        ins.operand(0), f"shift_left<{CPP[t]}>({emit.read(ins.operand(1), t)}, {emit.read(ins.operand(2), 'u32')})"
    )


@handles("shr", types=_ANY)
def shr(ins, emit):
    """Right shift, arithmetic for signed types; large amounts give 0 or the sign ("shr")."""
    t = ins.take_type()
    return emit.write(
        ins.operand(0), f"shift_right<{CPP[t]}>({emit.read(ins.operand(1), t)}, {emit.read(ins.operand(2), 'u32')})"
    )


@handles("shf", types=("b32",))
def shf(ins, emit):
    """Funnel shift of the pair b:a; .clamp limits the amount to 32, .wrap takes it modulo 32 ("shf")."""
    ins.take_type()
    left, clamp = ins.need("l", "r") == "l", ins.need("clamp", "wrap") == "clamp"
    a, b = emit.read(ins.operand(1), "b32"), emit.read(ins.operand(2), "b32")
    amount = emit.read(ins.operand(3), "u32")
    return emit.write(ins.operand(0), f"funnel_shift({a}, {b}, {amount}, {int(left)}, {int(clamp)})")


@handles("bfi", types=("b32", "b64"))
def bfi(ins, emit):
    """Inserts the low bits of a into b ("bfi")."""
    t = ins.take_type()
    values = f"{emit.read(ins.operand(1), t)}, {emit.read(ins.operand(2), t)}"
    field = f"{emit.read(ins.operand(3), 'u32')}, {emit.read(ins.operand(4), 'u32')}"
    return emit.write(ins.operand(0), f"bit_insert<{CPP[t]}>({values}, {field})")


@handles("bfe", types=("u32", "s32", "u64", "s64"))
def bfe(ins, emit):
    """Extracts a field, sign-extended for signed types ("bfe")."""
    t = ins.take_type()
    field = f"{emit.read(ins.operand(2), 'u32')}, {emit.read(ins.operand(3), 'u32')}"
    return emit.write(ins.operand(0), f"bit_extract<{CPP[t]}>({emit.read(ins.operand(1), t)}, {field})")


@handles("bmsk", types=("b32",))
def bmsk(ins, emit):
    """Mask of b ones from bit a on ("bmsk")."""
    ins.take_type()
    clamp = ins.need("clamp", "wrap") == "clamp"
    field = f"{emit.read(ins.operand(1), 'u32')}, {emit.read(ins.operand(2), 'u32')}"
    return emit.write(ins.operand(0), f"bit_mask({field}, {int(clamp)})")


@handles("clz", types=("b32", "b64"))
def clz(ins, emit):
    """Leading zeros; the width for 0 ("clz")."""
    t = ins.take_type()
    x = emit.read(ins.operand(1), t)
    builtin = "__builtin_clzll" if BITS[t] == 64 else "__builtin_clz"
    return emit.write(ins.operand(0), f"({x} ? (uint32_t){builtin}({x}) : {BITS[t]}u)")


@handles("popc", types=("b32", "b64"))
def popc(ins, emit):
    """Number of ones ("popc")."""
    return emit.write(ins.operand(0), f"(uint32_t)__builtin_popcountll({emit.read(ins.operand(1), ins.take_type())})")


@handles("brev", types=("b32", "b64"))
def brev(ins, emit):
    """Bits in reverse order ("brev")."""
    t = ins.take_type()
    return emit.write(ins.operand(0), f"reverse_bits{BITS[t]}({emit.read(ins.operand(1), t)})")


@handles("bfind", types=("u32", "s32", "u64", "s64"))
def bfind(ins, emit):
    """Position of the most significant non-sign bit, ~0 if none; .shiftamt counts from the top ("bfind")."""
    t = ins.take_type()
    x, from_top = emit.read(ins.operand(1), t), int(ins.has("shiftamt"))
    return emit.write(ins.operand(0), f"find_leading<{CPP[t]}>({x}, {from_top})")


@handles("fns", types=("b32",))
def fns(ins, emit):
    """Position of the n-th set bit from a base ("fns")."""
    ins.take_type()
    mask, base = emit.read(ins.operand(1), "b32"), emit.read(ins.operand(2), "b32")
    return emit.write(ins.operand(0), f"nth_set_bit({mask}, {base}, {emit.read(ins.operand(3), 's32')})")


@handles("prmt")
def prmt(ins, emit):
    """Picks four bytes out of eight, by selectors or by one of the fixed patterns ("prmt")."""
    mode = ins.take("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
    ins.take_type(("b32",))
    a, b, c = (emit.read(ins.operand(i), "b32") for i in (1, 2, 3))
    if mode:
        return emit.write(ins.operand(0), f"permute_{mode}({a}, {b}, {c})")
    return emit.write(ins.operand(0), f"permute_bytes({a}, {b}, {c})")
