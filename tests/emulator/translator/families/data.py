# SPDX-License-Identifier: Apache-2.0
"""Moves between registers and address spaces ("Data Movement and Conversion Instructions: mov, cvta, isspacep").

Shared, local and parameter memory have windows in the generic address space (EMU_SWIN, EMU_LWIN, EMU_PWIN in emu_abi.h).
"""
from ..instruction import handles
from ..lexer import split_list
from ..ptx_types import BITS, CPP, STORAGE

_WINDOW = {"shared": "EMU_SWIN", "local": "EMU_LWIN", "param": "EMU_PWIN"}


@handles("mov")
def mov(ins, emit):
    """Copy, or pack and unpack of a vector of parts, lowest part first ("mov")."""
    t = ins.take_type()
    target, source = ins.operand(0), ins.operand(1)
    if target.startswith("{"):
        parts = split_list(target[1:-1])
        width = BITS[t] // len(parts)
        whole = emit.read(source, f"b{BITS[t]}")
        stores = (emit.write(x, f"({STORAGE[width]})(v_ >> {width * i})") for i, x in enumerate(parts) if x != "_")
        return "{ auto v_ = " + whole + "; " + " ".join(stores) + " }"
    if source.startswith("{"):
        parts = split_list(source[1:-1])
        width, whole = BITS[t] // len(parts), STORAGE[BITS[t]]
        terms = (f"(({whole}){emit.read(x, f'b{width}')} << {width * i})" for i, x in enumerate(parts))
        return emit.write(target, f"({whole})(" + " | ".join(terms) + ")")
    return emit.write(target, emit.predicate(source) if t == "pred" else emit.read(source, t))


@handles("cvta")
def cvta(ins, emit):
    """Generic address from one in a state space, or back with .to ("cvta")."""
    t = ins.take_type(("u32", "u64"))
    sign = "-" if ins.has("to") else "+"
    space = ins.take_space("shared", "local", "param", "global", "const")
    window = _WINDOW.get(space, "0")  # global and constant memory lie at their generic addresses
    return emit.write(ins.operand(0), f"({CPP[t]})((uint64_t){emit.read(ins.operand(1), t)} {sign} {window})")


@handles("isspacep")
def isspacep(ins, emit):
    """Whether a generic address lies in a state space ("isspacep")."""
    space = ins.take_space("shared", "local", "param", "global", "const")
    address = emit.read(ins.operand(1), "u64")
    if space in _WINDOW:
        return emit.write(ins.operand(0), f"({address} >> 40) == ({_WINDOW[space]} >> 40)")
    return emit.write(ins.operand(0), f"(({address} >> 40) < 0x60 || ({address} >> 40) > 0x62)")
