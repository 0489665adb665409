# SPDX-License-Identifier: Apache-2.0
"""Warp collectives: shuffles, votes, matches, reductions ("Data Movement and Conversion Instructions: shfl.sync",
"Parallel Synchronization and Communication Instructions: vote.sync, match.sync, activemask, redux.sync").

The lanes of the member mask meet in the runtime (emu_coll), which then computes the results of all: device/warp.hpp.
"""
from ..instruction import handles
from ..ptx_types import CPP

_SHUFFLES = {"idx": 0, "up": 1, "down": 2, "bfly": 3}
_REDUCTIONS = ("add", "min", "max", "and", "or", "xor")


def _targets(ins):
    """The one or two destinations d|p."""
    first, *second = (x.strip() for x in ins.operand(0).split("|"))
    return first, (second[0] if second else None)


@handles("shfl", types=("b32",))
def shfl(ins, emit):
    """Value of another lane ("shfl.sync")."""
    emit.unit.uses_fibers = True
    ins.take_type()
    ins.need("sync")
    mode = _SHUFFLES[ins.need(*_SHUFFLES)]
    target, valid = _targets(ins)
    mask, value = emit.read(ins.operand(4), "u32"), emit.read(ins.operand(1), "b32")
    lane, clamp = emit.read(ins.operand(2), "u32"), emit.read(ins.operand(3), "u32")
    call = f"shuffle<{mode}>(C, T, {emit.site()}, {mask}, {value}, {lane}, {clamp}, v_)"
    stored = emit.write(valid, "q_") if valid else ""
    return f"{{ uint32_t v_ = 0; bool q_ = {call}; {emit.write(target, 'v_')} (void)q_; {stored} }}"


@handles("vote")
def vote(ins, emit):
    """Votes over the member mask ("vote.sync")."""
    emit.unit.uses_fibers = True
    ins.take_type(("pred", "b32"))
    ins.need("sync")
    mode = ins.need("all", "any", "uni", "ballot")
    mask = emit.read(ins.operand(2), "u32")
    votes = f"ballot(C, T, {emit.site()}, {mask}, {emit.predicate(ins.operand(1))})"
    if mode == "uni":
        return f"{{ uint32_t v_ = {votes}; {emit.write(ins.operand(0), f'(v_ == 0 || v_ == {mask})')} }}"
    result = {"ballot": votes, "any": f"({votes} != 0)", "all": f"({votes} == {mask})"}[mode]
    return emit.write(ins.operand(0), result)


@handles("activemask", types=("b32",))
def activemask(ins, emit):
    """Only the own lane: the ISA promises no convergence, so code that hopes for more shows here ("activemask")."""
    ins.take_type()
    return emit.write(ins.operand(0), "(1u << (T->lin & 31))")


@handles("match", types=("b32", "b64"))
def match(ins, emit):
    """Lanes with the same value, or whether all have it ("match.sync")."""
    emit.unit.uses_fibers = True
    t = ins.take_type()
    mode = ins.need("any", "all")
    ins.need("sync")
    target, predicate = _targets(ins)
    mask = emit.read(ins.operand(2), "u32")
    found = f"uint32_t v_ = match_lanes<{CPP[t]}>(C, T, {emit.site()}, {mask}, {emit.read(ins.operand(1), t)});"
    if mode == "any":
        return f"{{ {found} {emit.write(target, 'v_')} }}"
    stored = emit.write(predicate, "q_") if predicate else ""
    return f"{{ {found} bool q_ = v_ == {mask}; {emit.write(target, f'(q_ ? {mask} : 0u)')} {stored} }}"


@handles("redux", types=("u32", "s32", "b32"))
def redux(ins, emit):
    """Reduction over the member mask ("redux.sync")."""
    emit.unit.uses_fibers = True
    t = ins.take_type()
    ins.need("sync")
    operation = _REDUCTIONS.index(ins.need(*_REDUCTIONS))
    mask, value = emit.read(ins.operand(2), "u32"), emit.read(ins.operand(1), t)
    return emit.write(ins.operand(0), f"reduce_lanes<{operation}, {CPP[t]}>(C, T, {emit.site()}, {mask}, {value})")
