# SPDX-License-Identifier: Apache-2.0
"""Operands -> C++ expressions ("Instruction Operands" in the PTX ISA).

Generated code runs one thread. Names it relies on: C (EmuCtx: block), T (EmuThread), P (kernel parameters), `carry` (the
condition code register CC.CF); see runtime/emu_abi.h.
"""
import re

from .errors import TranslationError
from .lexer import cpp_name, cpp_register
from .ptx_types import BITS, CPP, storage

_FLOAT_LITERAL = re.compile(r"0[fF]([0-9A-Fa-f]{8})")
_DOUBLE_LITERAL = re.compile(r"0[dD]([0-9A-Fa-f]{16})")
_INTEGER_LITERAL = re.compile(r"-?(0[xX][0-9A-Fa-f]+|0[bB][01]+|\d+)U?")
_SYMBOL = re.compile(r"(?:generic\(\s*)?([\w$]+)\)?\s*(?:\+\s*(\d+))?")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")

_VECTOR_REGISTERS = {"%tid": "T->tid", "%ctaid": "C->ctaid", "%ntid": "C->ntid", "%nctaid": "C->nctaid"}
#: "Special Registers". The device has one multiprocessor from a thread's point of view; the clock is the host's.
_SPECIAL_REGISTERS = {
    "%laneid": "(T->lin & 31)",
    "%warpid": "(T->lin >> 5)",
    "%nwarpid": "((C->ntid[0]*C->ntid[1]*C->ntid[2] + 31) >> 5)",
    "%smid": "0",
    "%nsmid": "1",
    "%gridid": "0",
    "%dynamic_smem_size": "C->dyn",
    "%total_smem_size": "C->smem_total",
    "%clock": "emu_clock()",
    "%clock64": "emu_clock()",
    "%clock_hi": "(emu_clock() >> 32)",
    "%globaltimer": "emu_clock()",
    "%globaltimer_lo": "emu_clock()",
    "%globaltimer_hi": "(emu_clock() >> 32)",
    "%lanemask_eq": "(1u << (T->lin & 31))",
    "%lanemask_lt": "((1u << (T->lin & 31)) - 1)",
    "%lanemask_le": "((2u << (T->lin & 31)) - 1)",
    "%lanemask_gt": "~((2u << (T->lin & 31)) - 1)",
    "%lanemask_ge": "~((1u << (T->lin & 31)) - 1)",
}


def integer_literal(text):
    """Value of a PTX integer constant ("Integer Constants"); a leading 0 means octal."""
    digits = text.rstrip("U")
    return int(digits, 8) if re.fullmatch(r"-?0[0-7]+", digits) else int(digits, 0)


class Emitter:
    """Expressions for the operands of one function of one kernel; handlers of instructions get it.

    unit: the kernel's file (shared memory layout, sites, flags); scope: registers, variables and labels of the function.
    """

    def __init__(self, unit, scope):
        self.unit = unit
        self.scope = scope

    # ---- values
    def read(self, operand, type_name):
        """Value of a register, special register, constant or symbol, as the C++ type of a PTX type."""
        operand, cpp = operand.strip(), CPP[type_name]
        if operand in self.scope.registers:
            return f"reg_as<{cpp}>({cpp_register(operand)})"
        if operand.startswith("%"):
            return self._special(operand, cpp)
        literal = self._literal(operand, type_name)
        if literal:
            return literal
        match = _SYMBOL.fullmatch(operand)
        if match:
            symbol = self.symbol(match[1])
            if symbol:
                return f"(({cpp})({symbol[1]} + {match[2] or 0}))"
            if self.scope.is_entry and match[1] in self.scope.param_offset:
                return f"(({cpp})({self.scope.param_offset[match[1]]} + {match[2] or 0}))"
        raise TranslationError(f"operand '{operand}'")

    def _special(self, operand, cpp):
        base, _, axis = operand.partition(".")
        if base in _VECTOR_REGISTERS and axis in ("x", "y", "z"):
            return f"(({cpp}){_VECTOR_REGISTERS[base]}[{'xyz'.index(axis)}])"
        if operand in _SPECIAL_REGISTERS:
            return f"(({cpp}){_SPECIAL_REGISTERS[operand]})"
        raise TranslationError(f"register '{operand}'")

    def _literal(self, operand, type_name):
        cpp = CPP[type_name]
        match = _FLOAT_LITERAL.fullmatch(operand)
        if match:
            return f"float_of(0x{match[1]}u)" if type_name == "f32" else f"reg_as<{cpp}>((uint32_t)0x{match[1]}u)"
        match = _DOUBLE_LITERAL.fullmatch(operand)
        if match:
            return f"double_of(0x{match[1]}ull)" if type_name == "f64" else f"reg_as<{cpp}>((uint64_t)0x{match[1]}ull)"
        if _INTEGER_LITERAL.fullmatch(operand):
            value = integer_literal(operand) & ((1 << 64) - 1)
            if cpp in ("float", "double"):
                return f"reg_as<{cpp}>(({storage(type_name)}){value}ull)"
            return f"(({cpp}){value}ull)"
        if operand == "WARP_SZ":
            return f"(({cpp})32)"
        return None

    def predicate(self, operand):
        """Value of a predicate operand, which may be negated with !."""
        operand = operand.strip()
        if operand.startswith("!"):
            return "!" + cpp_register(operand[1:].strip())
        return cpp_register(operand) if operand in self.scope.registers else self.read(operand, "pred")

    def bits32(self, operands):
        """Comma list of operands as 32-bit patterns (fragments of a warp-level matrix)."""
        return ", ".join(f"reg_as<uint32_t>({self.read(x, 'b32')})" for x in operands)

    # ---- destinations
    def write(self, destination, expression):
        """Stores an expression whose C++ type has the right width; `_` drops the value (bit bucket)."""
        destination = destination.strip()
        if destination == "_":
            return f"(void)({expression});"
        return f"set_reg({self._destination(destination)}, {expression});"

    def write_as(self, destination, type_name, expression):
        """Stores an expression after conversion to a PTX type; a wider register gets it sign- or zero-extended."""
        destination = destination.strip()
        if destination == "_":
            return f"(void)({expression});"
        return f"set_reg_as<{CPP[type_name]}>({self._destination(destination)}, {expression});"

    def _destination(self, name):
        if name not in self.scope.registers:
            raise TranslationError(f"destination '{name}'")
        return cpp_register(name)

    # ---- symbols and addresses
    def symbol(self, name):
        """(state space, address expression) of a variable or function, or None."""
        variable = self.scope.variables.get(name) or self.unit.module.variables.get(name)
        if variable is not None:
            if variable.space == "shared":
                return "shared", self.unit.shared_offset(variable)
            if variable.space == "local":
                return "local", f"(uint64_t)(LB + {self.scope.local_offset[name]}u)"
            return "global", f"emu_globals[{self.unit.module.global_index[name]}]"
        if name in self.unit.module.function_index:
            return "func", f"(EMU_FWIN + {16 * self.unit.module.function_index[name]}ull)"
        return None

    def address(self, operand):
        """(kind, expression) of an address operand [base + offset].

        kind: reg, imm, the state space of a symbol, or lparam/param, whose expression is a host pointer already (for
        parameters of a kernel: of the parameter block).
        """
        match = _ADDRESS.fullmatch(operand.strip())
        if not match:
            raise TranslationError(f"address '{operand}'")
        base, offset = match[1], int(match[2] or "0", 0)
        if base in self.scope.registers:
            cpp = "uint32_t" if BITS[self.scope.registers[base]] == 32 else "uint64_t"
            return "reg", f"((uint64_t)reg_as<{cpp}>({cpp_register(base)}) + ({offset}ll))"
        if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", base):
            return "imm", f"((uint64_t){int(base, 0) + offset}ll)"
        if base in self.scope.local_params:
            return "lparam", f"({cpp_name(base)} + {offset})"
        if base in self.scope.param_offset:
            if self.scope.is_entry:
                return "param", f"(P + {self.scope.param_offset[base]} + {offset})"
            return "param", f"({cpp_name(base)} + {offset})"
        symbol = self.symbol(base)
        if symbol is None:
            raise TranslationError(f"address '{operand}'")
        return symbol[0], f"((uint64_t){symbol[1]} + ({offset}ll))"

    def pointer(self, operand, space, size, flags):
        """Host pointer to `size` bytes at an address operand, checked at run time; flags: EMU_LD, EMU_ST, EMU_AT."""
        kind, expression = self.address(operand)
        if kind in ("lparam", "param"):
            return expression
        if space == "param":
            if self.scope.is_entry:
                return f"(P + {expression})"
            raise TranslationError("register address in .param space of a function")
        if space == "generic" and kind in ("shared", "local"):
            space = kind  # the symbol tells; its address is an offset in its space, not a generic one
        helper = {"shared": "at_shared", "local": "at_local"}.get(space, "at_global")
        return f"{helper}<{size}, {flags}>(C, T, {expression}, {self.site()})"

    def site(self):
        """Number of a new site: the text and source line that a report about this instruction shows."""
        return self.unit.new_site(self.scope)

    def flushed(self, expression, ftz, arithmetic=True):
        """Subnormal f32 -> zero of the same sign where the instruction says .ftz.

        A kernel whose float arithmetic is all .ftz is run with the CPU's flush mode instead (flush_mode.py). That mode
        acts on CPU arithmetic only: code that looks at bits or just selects a value passes arithmetic=False.
        """
        return f"flush({expression})" if ftz and (self.unit.explicit_ftz or not arithmetic) else expression
