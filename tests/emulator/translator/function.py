# SPDX-License-Identifier: Apache-2.0
"""Body of one PTX function -> C++ function of one thread.

Two passes over the statements: labels, branch tables and variables first (a branch may go forward), then the code.
PTX scopes become C++ scopes, labels C++ labels, branches goto; a register is a C++ variable of its scope.
"""
import re

from .counting import instruction_class
from .emitter import Emitter
from .errors import TranslationError
from .instruction import Instruction, translate
from .lexer import cpp_name, cpp_register, split_list, statements
from .locations import Locations
from .ptx_types import BITS, register_type
from .variables import parse_variable

_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$", re.S)
_REGISTER_RANGE = re.compile(r"(%?[\w$]+)<(\d+)>$")
_CALL_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?$")
_VARIABLE = (".local", ".shared", ".global", ".const", ".extern")
#: directives that were read in the first pass or that change no value
_DONE = _VARIABLE + (".pragma", ".branchtargets", ".calltargets", ".callprototype", ".loc", ".file")


class Scope:
    """What the names in one function mean while it is translated."""

    def __init__(self, function, module):
        self.function = function
        self.is_entry = function.is_entry
        self.registers = {}  # PTX name -> PTX type
        self.variables = {}  # declared inside the function
        self.local_offset = {}  # .local variable -> offset in the frame
        self.local_size = 0
        self.local_params = set()  # .param variables of calls
        self.tables = {}  # name of .branchtargets -> labels
        self.labels = {}  # (scope number, PTX label) -> C++ label
        self.param_offset = {p.name: p.offset for p in function.params}
        self.param_offset.update({p.name: 0 for p in function.returns})
        self.open_scopes = [0]
        self.locations = Locations(module)
        self.text = ""  # instruction that is being translated

    @property
    def has_frame(self):
        """Whether the function has .local variables."""
        return bool(self.local_offset)

    def label(self, name):
        """C++ label of the PTX label that is visible here: the one of the innermost open scope."""
        for number in reversed(self.open_scopes):
            if (number, name) in self.labels:
                return self.labels[number, name]
        raise TranslationError(f"label '{name}'")


def signature(function):
    """C++ head of a function. Parameters and results of device functions are pointers to their bytes."""
    if function.is_entry:
        return "static void body(EmuCtx* __restrict C, EmuThread* __restrict T, const uint8_t* __restrict P)"
    places = "".join(f", uint8_t* {cpp_name(p.name)}" for p in function.returns + function.params)
    return f"static void fn_{cpp_name(function.name)}(EmuCtx* C, EmuThread* T, const uint8_t* P{places})"


def translate_function(unit, function):
    """C++ definition of the function. Errors of single statements are collected in unit.errors."""
    scope = Scope(function, unit.module)
    emitter = Emitter(unit, scope)
    listing = list(statements(function.body, function.first_line))
    _collect(scope, listing)
    used = set(re.findall(r"%?[\w$]+", function.body))
    lines = []
    scope_count = 0
    for line, text in listing:
        if text == "{":
            scope_count += 1
            scope.open_scopes.append(scope_count)
            lines.append("{")
            continue
        if text == "}":
            scope.open_scopes.pop()
            lines.append(";}")  # the ; lets a label stand before the brace
            continue
        try:
            lines += _statement(scope, emitter, text, used)
        except TranslationError as error:
            unit.errors.append(error.at(line))
    return signature(function) + " {\n" + _prologue(scope) + "\n" + "\n".join(lines) + _epilogue(scope) + "\n}"


def _collect(scope, listing):
    """First pass: labels with their scopes, variables, branch tables."""
    open_scopes, scope_count, seen, previous = [0], 0, {}, ""
    for line, text in listing:
        if text == "{":
            scope_count += 1
            open_scopes.append(scope_count)
        elif text == "}":
            open_scopes.pop()
        elif text.endswith(":"):
            name = text[:-1].strip()
            # the same label may occur in several scopes of a function; C++ labels are known in all of it
            count = seen.get(name, 0)
            seen[name] = count + 1
            scope.labels[open_scopes[-1], name] = "L_" + cpp_name(name) + (f"_d{count}" if count else "")
        elif text.startswith(_VARIABLE):
            try:
                _declare(scope, parse_variable(text))
            except TranslationError as error:
                raise error.at(line)
        elif text.startswith(".branchtargets"):
            scope.tables[previous[:-1].strip()] = split_list(text[len(".branchtargets") :].strip())
        previous = text


def _declare(scope, variable):
    scope.variables[variable.name] = variable
    if variable.space == "local":
        align = max(variable.align, 8)
        offset = (scope.local_size + align - 1) // align * align
        scope.local_offset[variable.name] = offset
        scope.local_size = offset + variable.size
    elif variable.space != "shared":
        raise TranslationError(f".{variable.space} variable inside a function")


def _statement(scope, emitter, text, used):
    """C++ lines of one statement that opens or closes no scope."""
    if text.endswith(":"):
        return [scope.label(text[:-1].strip()) + ":;"]
    match = _REGISTERS.match(text)
    if match:
        return list(_register_lines(scope, match[1], match[2], used))
    if scope.locations.read(text):
        return []
    match = _CALL_PARAMETER.match(text)
    if match:
        # a call's argument or result: bytes; 16 at least, since the callee may be declared with a wider one
        scope.local_params.add(match[2])
        size = BITS[match[1]] // 8 * int(match[3] or 1)
        return [f"alignas(16) uint8_t {cpp_name(match[2])}[{max(16, size)}];"]
    if text.startswith(_DONE):
        return []
    if text.startswith("."):
        raise TranslationError("unknown directive '" + text.split()[0] + "'")
    return [_instruction_line(scope, emitter, text)]


def _register_lines(scope, type_name, names, used):
    if type_name not in BITS:
        raise TranslationError(f"register of type .{type_name}")
    for item in split_list(names):
        numbered = _REGISTER_RANGE.match(item)
        every = [f"{numbered[1]}{k}" for k in range(int(numbered[2]))] if numbered else [item]
        for name in every:
            scope.registers[name] = type_name
            if not numbered or name in used:
                yield f"{register_type(type_name)} {cpp_register(name)};"


def _instruction_line(scope, emitter, text):
    instruction = Instruction(text)
    scope.text = text
    code = f"COUNT({instruction_class(instruction)}); "
    code += translate(instruction, emitter)
    if instruction.guard:
        return f"if ({'!' if instruction.guard_negated else ''}{cpp_register(instruction.guard)}) {{ {code} }}"
    return code


def _prologue(scope):
    text = "uint32_t carry = 0; (void)carry; "
    if scope.has_frame:
        # LB: start of this call's frame in the thread's local memory; a stack, so that recursion works
        text += (
            "const uint32_t LB0 = T->lsp, LB = (LB0 + 15u) & ~15u; (void)LB0; "
            f"T->lsp = LB + {scope.local_size}u; "
            'if (T->lsp > EMU_LSTRIDE) emu_fail(C, T, 0, "local memory > 512 KiB"); '
            f"if (C->poison) memset(T->lbase + LB, 0xFF, {scope.local_size});"
        )
    return text


def _epilogue(scope):
    return " T->lsp = LB0;" if scope.has_frame and not scope.is_entry else ""
