# SPDX-License-Identifier: Apache-2.0
"""cp.async ("Data Movement and Conversion Instructions: Non-bulk copy").

The runtime decides when the bytes land: at the copy or at the latest moment the ISA allows, the wait.
"""
from ..instruction import CACHE_HINTS, handles


@handles("cp")
def cp_async(ins, emit):
    """cp.async.ca/.cg of 4, 8, 16 bytes, commit_group, wait_group, wait_all; bulk copies are refused ("cp.async")."""
    if not ins.has("async"):
        raise ins.error("is not modelled")
    kind = ins.take("commit_group", "wait_group", "wait_all", "ca", "cg")
    if kind == "commit_group":
        return "emu_cp_commit(C, T);"
    if kind == "wait_group":
        return f"emu_cp_wait(C, T, {emit.read(ins.operand(0), 'u32')});"
    if kind == "wait_all":
        return "emu_cp_commit(C, T); emu_cp_wait(C, T, 0);"
    if kind is None:
        raise ins.error("is not modelled")
    return _copy(ins, emit)


def _copy(ins, emit):
    if ins.take_space("shared") != "shared" or ins.take_space("global") != "global":
        raise ins.error("copies from global to shared memory only")
    optional = ins.operands[3:]
    if any("cache_hint" in hint for hint in ins.take_matching(CACHE_HINTS)):
        optional = optional[:-1]
    if ins.operand(2) not in ("4", "8", "16"):
        raise ins.error("size must be 4, 8 or 16")
    size = int(ins.operand(2))
    source_size = str(size)
    if optional:
        # fewer source bytes, the rest is zero; or a predicate that says to ignore the source
        if emit.scope.registers.get(optional[0].lstrip("!")) == "pred":
            source_size = f"({emit.predicate(optional[0])} ? 0u : {size}u)"
        else:
            source_size = emit.read(optional[0], "u32")
    (_, target), (_, source) = emit.address(ins.operand(0)), emit.address(ins.operand(1))
    site = emit.site()
    return (
        f"{{ uint32_t ns_ = {source_size}; uint64_t d_ = (uint32_t){target}, a_ = {source}; "
        f"uint8_t* dp_ = at_shared<{size}, EMU_ST|EMU_ASYNC_BEGIN>(C, T, d_, {site}); const uint8_t* sp_ = nullptr; "
        f'if (a_ & {size - 1}) emu_fail(C, T, {site}, "misaligned cp.async source"); '
        f"if (ns_ == {size}) sp_ = at_global<{size}, EMU_LD>(C, T, a_, {site}); "
        f"else if (ns_) sp_ = emu_resolve(C, T, a_, ns_, {site}, EMU_LD); "
        f"emu_cp_async(C, T, dp_, d_, sp_, {size}, ns_, {site}); }}"
    )
