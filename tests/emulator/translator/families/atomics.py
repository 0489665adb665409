# SPDX-License-Identifier: Apache-2.0
"""atom and red ("Parallel Synchronization and Communication Instructions: atom, red").

One atomic read-modify-write on host memory. Ordering modifiers need nothing: it is sequentially consistent here, which
hides errors of missing order; the race detector looks for those.
"""
from ..instruction import CACHE_HINTS, SCOPES, handles
from ..types import BITS, CPP, FLOATS, HALVES, storage
from .halves import on_halves

_OPERATIONS = ("add", "max", "min", "exch", "cas", "and", "or", "xor", "inc", "dec")
_HALF_HELPER = {"add": "half_add", "min": "half_min", "max": "half_max"}
_PLAIN = {
    "exch": "x_",
    "and": "(o_ & x_)",
    "or": "(o_ | x_)",
    "xor": "(o_ ^ x_)",
    "inc": "(o_ >= x_ ? 0 : o_ + 1)",
    "dec": "(o_ == 0 || o_ > x_ ? x_ : o_ - 1)",
    "cas": "(o_ == x_ ? y_ : o_)",
}


def _new_value(ins, operation, t, flush):
    """Expression of the new value from the old one o_ and the operands x_, y_."""
    if t in HALVES:
        if operation in _HALF_HELPER:
            return on_halves(_HALF_HELPER[operation], t, ["o_", "x_"])
    elif operation == "add":
        if t == "f32":
            return f"add_atomic(o_, x_, {flush})"
        return "o_ + x_" if t == "f64" else f"({CPP[t]})(({storage(t)})o_ + ({storage(t)})x_)"
    elif operation in ("min", "max"):
        if t in FLOATS:
            raise ins.error("is not in the ISA")
        return f"(o_ {'<' if operation == 'min' else '>'} x_ ? o_ : x_)"
    if operation in _PLAIN and (t not in HALVES or operation == "exch"):
        return _PLAIN[operation]
    raise ins.error(f"type .{t} is not modelled")


@handles("atom", "red")
def atomic(ins, emit):
    """All operations; atom returns the old value."""
    emit.unit.uses_atomics = True
    t = ins.take_type()
    operation = ins.need(*_OPERATIONS)
    ins.take("relaxed", "acquire", "release", "acq_rel")
    ins.take(*SCOPES)
    ins.take("noftz")  # always meant for f16 and bf16: subnormals are kept
    ins.take_matching(CACHE_HINTS)
    space = ins.take_space("global", "shared")
    operands = ins.operands[1:] if ins.name == "atom" else ins.operands
    if len(operands) < (3 if operation == "cas" else 2):
        raise ins.error("operand is missing")
    cpp, size = CPP[t], BITS[t] // 8
    # f32 sums in global memory flush subnormals, those in shared memory do not ("atom")
    flush = {"global": "true", "shared": "false"}.get(space) or f"!is_shared_address({emit.address(operands[0])[1]})"
    value = _new_value(ins, operation, t, flush)
    pointer = emit.pointer(operands[0], space, size, "EMU_LD|EMU_ST|EMU_AT")
    third = f"{cpp} y_ = {emit.read(operands[2], t)}; (void)y_; " if operation == "cas" else ""
    # a thread that takes a lock this way must let the holder run
    spin = "spin_hint(C, T); " if operation in ("cas", "exch") and emit.unit.uses_fibers else ""
    update = f"read_modify_write<{cpp}>(p_, [&]({cpp} o_) -> {cpp} {{ return {value}; }})"
    result = emit.write(ins.operand(0), update) if ins.name == "atom" else f"(void){update};"
    return f"{{ {spin}uint8_t* p_ = {pointer}; {cpp} x_ = {emit.read(operands[1], t)}; (void)x_; {third}{result} }}"
