# SPDX-License-Identifier: Apache-2.0
"""Calls: device functions, function pointers and the functions the system provides ("Control Flow Instructions: call",
and the system calls of the CUDA guide: vprintf, __assertfail, malloc, free).

Arguments and results are byte arrays of the caller (its .param variables); the callee gets pointers to them.
"""
from ..instruction import handles
from ..lexer import cpp_name, split_list
from ..ptx_types import CPP, storage


@handles("call")
def call(ins, emit):
    """call (result), function, (arguments)."""
    ins.take("uni")
    operands = list(ins.operands)
    result = operands.pop(0)[1:-1].strip() if operands[0].startswith("(") else None
    target = operands[0].strip()
    arguments = split_list(operands[1].strip()[1:-1]) if len(operands) > 1 else []

    def argument(index, t):
        return f"reg_as<{CPP[t]}>(*({storage(t)}*){cpp_name(arguments[index])})"

    if target in _SYSTEM:
        return _SYSTEM[target](argument, cpp_name(result) if result else None)
    places = ([result] if result else []) + arguments
    passed = ", ".join(["C", "T", "P"] + [cpp_name(x) for x in places])
    if target in emit.scope.registers:
        emit.unit.need_all()
        types = ", ".join(["EmuCtx*", "EmuThread*", "const uint8_t*"] + ["uint8_t*"] * len(places))
        pointer = f"function_at(C, T, {emit.read(target, 'u64')}, {emit.site()})"
        return f"((void(*)({types})){pointer})({passed});"
    if target in emit.unit.module.functions:
        emit.unit.need(target)
        return f"fn_{cpp_name(target)}({passed});"
    raise ins.error(f"function '{target}' is not known")


def _vprintf(argument, result):
    call_text = f"emu_vprintf(C, T, {argument(0, 'b64')}, {argument(1, 'b64')})"
    return f"{{ uint32_t v_ = {call_text}; memcpy({result}, &v_, 4); }}"


def _assertfail(argument, result):
    message = f"{argument(0, 'b64')}, {argument(1, 'b64')}, {argument(2, 'b32')}, {argument(3, 'b64')}, {argument(4, 'b64')}"
    return f"emu_assertfail(C, T, {message});"


def _malloc(argument, result):
    return f"{{ uint64_t v_ = emu_dmalloc(C, T, {argument(0, 'b64')}); memcpy({result}, &v_, 8); }}"


def _free(argument, result):
    return f"emu_dfree(C, T, {argument(0, 'b64')});"


_SYSTEM = {"vprintf": _vprintf, "__assertfail": _assertfail, "malloc": _malloc, "free": _free}
