# SPDX-License-Identifier: Apache-2.0
"""Control flow ("Control Flow Instructions", "Miscellaneous Instructions"); calls are in calls.py."""
from ..instruction import handles


@handles("ret")
def ret(ins, emit):
    """Return; a device function gives its frame of local memory back ("ret")."""
    ins.take("uni")
    if emit.scope.is_entry or not emit.scope.has_frame:
        return "return;"
    return "{ T->lsp = LB0; return; }"


@handles("exit")
def exit_thread(ins, emit):
    """End of the thread ("exit"); in a device function it would have to unwind its callers."""
    if not emit.scope.is_entry:
        raise ins.error("inside a device function is not modelled")
    return "return;"


@handles("bra")
def bra(ins, emit):
    """Branch ("bra")."""
    ins.take("uni")
    return f"goto {emit.scope.label(ins.operand(0))};"


@handles("brx")
def brx(ins, emit):
    """Branch by index into a list of targets; an index beyond it is undefined in the ISA and an error here ("brx.idx")."""
    ins.need("idx")
    ins.take("uni")
    targets = emit.scope.tables.get(ins.operand(1))
    if targets is None:
        raise ins.error(f"no .branchtargets '{ins.operand(1)}'")
    cases = " ".join(f"case {i}: goto {emit.scope.label(x)};" for i, x in enumerate(targets))
    outside = f'default: emu_fail(C, T, {emit.site()}, "brx.idx beyond its targets");'
    return f"switch ({emit.read(ins.operand(0), 'u32')}) {{ {cases} {outside} }}"


@handles("trap")
def trap(ins, emit):
    """Aborts the launch ("trap")."""
    return f'emu_fail(C, T, {emit.site()}, "trap");'


@handles("brkpt")
def brkpt(ins, emit):
    """There is no debugger to stop in ("brkpt")."""
    return ";"


@handles("griddepcontrol")
def griddepcontrol(ins, emit):
    """Launches run one after the other, so a dependent one finds its input ready ("griddepcontrol")."""
    ins.need("launch_dependents", "wait")
    return ";"


@handles("nanosleep")
def nanosleep(ins, emit):
    """Lets other threads run ("nanosleep")."""
    ins.take_type(("u32",))
    emit.unit.uses_fibers = True
    return "emu_yield(C, T);"
