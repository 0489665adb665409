# SPDX-License-Identifier: Apache-2.0
"""Barriers and fences ("Parallel Synchronization and Communication Instructions: bar, barrier, bar.warp.sync,
membar/fence")."""
from ..instruction import SCOPES, handles

_REDUCTIONS = ("popc", "and", "or")


@handles("bar", "barrier")
def barrier(ins, emit):
    """bar.sync, bar.arrive, bar.red, bar.warp.sync; bar is barrier.aligned ("bar", "barrier")."""
    emit.unit.uses_fibers = True
    if ins.has("warp"):
        ins.need("sync")
        return f"sync_warp(C, T, {emit.site()}, {emit.read(ins.operand(0), 'u32')});"
    ins.take("cta")
    aligned = int(ins.name == "bar" or ins.has("aligned"))
    ins.take("aligned")
    kind = ins.need("sync", "arrive", "red")
    if kind == "red":
        return _reduction(ins, emit)
    number = emit.read(ins.operand(0), "u32")
    if kind == "sync":
        count = emit.read(ins.operand(1), "u32") if len(ins.operands) > 1 else 0
    else:
        count = emit.read(ins.operand(1), "u32")
    return f"emu_barrier(C, T, {number}, {count}, {emit.site()}, {aligned}, {int(kind == 'arrive')});"


def _reduction(ins, emit):
    """bar.red: barrier that combines a predicate of all threads."""
    ins.take_type(("u32", "pred"))
    operation = _REDUCTIONS.index(ins.need(*_REDUCTIONS))
    number = emit.read(ins.operand(1), "u32")
    count = emit.read(ins.operand(2), "u32") if len(ins.operands) > 3 else 0
    predicate = emit.predicate(ins.operands[-1])
    call = f"emu_barred(C, T, {number}, {count}, {emit.site()}, {operation}, {predicate})"
    return emit.write(ins.operand(0), call if operation == 0 else f"(bool)({call})")


@handles("membar", "fence")
def fence(ins, emit):
    """Memory fence. Threads of one device run in turns, so it only matters to the race detector ("membar", "fence")."""
    if ins.name == "membar":
        ins.need("cta", "gl", "sys")
    else:
        ins.take("sc", "acq_rel", "acquire", "release")
        ins.need(*SCOPES)
    return "\n#ifdef EMU_RACE\nemu_fence(C, T);\n#endif\n"
