# SPDX-License-Identifier: Apache-2.0
"""atom and red ("Parallel Synchronization and Communication Instructions: atom, red").

One atomic read-modify-write on host memory. Ordering modifiers need nothing: it is sequentially consistent here, which
hides errors of missing order; the race detector looks for those.
"""
from ..instruction import CACHE_HINTS, SCOPES, handles
from ..lexer import split_list
from ..ptx_types import BITS, CPP, FLOATS, HALVES, storage
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


def _vector(ins, emit, t, vector):
    """Vector form in global memory: each element by itself is atomic, the address a multiple of the size of all."""
    operation = ins.need("add", "min", "max")
    if ins.take_space("global", "shared") == "shared" or (t == "f32" and operation != "add"):
        raise ins.error("vectors are for global memory, and of f32 only add")
    values = split_list(ins.operands[-1][1:-1])
    targets = split_list(ins.operand(0)[1:-1]) if ins.name == "atom" else ["_"] * vector
    if len(values) != vector or len(targets) != vector or len(ins.operands) != (3 if ins.name == "atom" else 2):
        raise ins.error(f"expected {vector} registers")
    cpp, size = CPP[t], BITS[t] // 8
    address = ins.operand(1 if ins.name == "atom" else 0)
    pointer = emit.pointer(address, "global", vector * size, "EMU_LD|EMU_ST|EMU_AT")
    update = f"[&]({cpp} o_) -> {cpp} {{ return {_new_value(ins, operation, t, 'true')}; }}"
    lines = [f"uint8_t* p_ = {pointer}; {cpp} v_[] = {{{', '.join(emit.read(x, t) for x in values)}}}, r_[{vector}];"]
    for i in range(vector):
        lines.append(f"{{ {cpp} x_ = v_[{i}]; r_[{i}] = read_modify_write<{cpp}>(p_ + {i * size}, {update}); }}")
    lines += [emit.write(x, f"r_[{i}]") for i, x in enumerate(targets) if x != "_"]
    return f"{{ {' '.join(lines)} (void)r_; }}"


@handles("atom", "red")
def atomic(ins, emit):
    """All operations; atom returns the old value."""
    emit.unit.uses_atomics = True
    vector = int((ins.take("v2", "v4", "v8") or "v1")[1:])
    t = ins.take_type() if vector == 1 else ins.need("f32", *HALVES)
    ins.take("relaxed", "acquire", "release", "acq_rel")
    ins.take(*SCOPES)
    ins.take("noftz")  # always meant for f16 and bf16: subnormals are kept
    ins.take_matching(CACHE_HINTS)
    if vector > 1:
        return _vector(ins, emit, t, vector)
    operation = ins.need(*_OPERATIONS)
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
