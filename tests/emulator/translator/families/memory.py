# SPDX-License-Identifier: Apache-2.0
"""Loads, stores and cache hints ("Data Movement and Conversion Instructions: ld, st, prefetch, ...").

Every access goes through a checked pointer (device/memory.hpp). Accesses that other threads may wait on (volatile,
relaxed, acquire, release) are atomic for the race detector and let other threads run after many repeats.
"""
from ..instruction import CACHE_HINTS, SCOPES, handles
from ..lexer import cpp_register, split_list
from ..ptx_types import BITS, CPP, storage

_SPACES = ("param", "shared", "global", "local", "const")
_ORDERED = ("volatile", "relaxed", "acquire", "release", "mmio")


def _take_access(ins, emit):
    """(type, vector length, state space, whether it is an ordered access)."""
    t = ins.take_type()
    ordered = bool([name for name in _ORDERED if ins.has(name)])
    ins.take("weak")
    ins.take(*SCOPES)
    ins.take_matching(CACHE_HINTS)
    space = ins.take_space(*_SPACES)
    vector = int((ins.take("v2", "v4", "v8") or "v1")[1:])
    if ordered:
        emit.unit.uses_fibers = True
    return t, vector, space, ordered


def _registers(ins, operand, vector):
    registers = split_list(operand[1:-1]) if operand.startswith("{") else [operand]
    if len(registers) != vector:
        raise ins.error(f"expected {vector} registers, got {len(registers)}")
    return registers


@handles("ld", "ldu")
def load(ins, emit):
    """Load of one element or a vector; the address must be a multiple of the size of all ("ld", "ldu")."""
    t, vector, space, ordered = _take_access(ins, emit)
    size, cpp = vector * BITS[t] // 8, storage(t)
    source = emit.pointer(ins.operand(1), space, size, "EMU_LD" + ("|EMU_AT" if ordered else ""))
    registers = _registers(ins, ins.operand(0), vector)
    spin = "spin_hint(C, T); " if ordered else ""
    stores = " ".join(
        f"set_reg_as<{CPP[t]}>({cpp_register(x)}, v_[{i}]);" for i, x in enumerate(registers) if x != "_"
    )
    return f"{{ {cpp} v_[{vector}]; {spin}memcpy(v_, {source}, {size}); {stores} }}"


@handles("st")
def store(ins, emit):
    """Store of one element or a vector ("st")."""
    t, vector, space, ordered = _take_access(ins, emit)
    size, cpp = vector * BITS[t] // 8, storage(t)
    target = emit.pointer(ins.operand(0), space, size, "EMU_ST" + ("|EMU_AT" if ordered else ""))
    values = ", ".join(f"reg_as<{cpp}>({emit.read(x, t)})" for x in _registers(ins, ins.operand(1), vector))
    return f"{{ {cpp} v_[{vector}] = {{{values}}}; memcpy({target}, v_, {size}); }}"


@handles("prefetch", "prefetchu", "discard", "applypriority")
def hint(ins, emit):
    """Hints to the caches: no value changes ("prefetch", "applypriority"; discarded lines keep their old bytes)."""
    ins.take("global", "local")
    ins.take("L1", "L2")
    ins.take_matching(CACHE_HINTS)
    return ";"


@handles("createpolicy")
def createpolicy(ins, emit):
    """A cache policy is an opaque value that only hints use ("createpolicy")."""
    ins.take_type(("b64",))
    ins.need("fractional", "range", "cvt")
    ins.take("global")
    ins.take("L2")
    ins.take_matching(CACHE_HINTS)
    return emit.write(ins.operand(0), "(uint64_t)0")
