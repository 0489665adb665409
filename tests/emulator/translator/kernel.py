# SPDX-License-Identifier: Apache-2.0
"""One kernel and all device functions it reaches -> one C++ file that becomes one shared object.

The file defines `emu_kernel` (EmuKernelDesc in emu_abi.h), where the runtime finds the body, the size of shared memory,
the sites for its reports and the table of addresses of global variables that it fills in.
"""
import re

from . import families  # noqa: F401  (registers the handlers)
from .errors import TranslationError
from .flush_mode import flush_mode
from .function import signature, translate_function
from .lexer import cpp_name

_INDIRECT_CALL = (
    "static void* function_at(EmuCtx* C, EmuThread* T, uint64_t a, uint32_t site) { uint64_t i = (a - EMU_FWIN) / 16; "
    "if (i >= sizeof ftab / sizeof *ftab || a % 16) "
    'emu_fail(C, T, site, "indirect call to something that is not a function"); return ftab[i]; }'
)


class Unit:
    """State of one file: what its functions need in common."""

    def __init__(self, module, explicit_ftz):
        self.module = module
        self.explicit_ftz = explicit_ftz  # emit flushes where .ftz is written
        self.errors = []
        self.sites = []
        self.needed = []  # device functions to translate, in the order they were first called
        self.calls_indirectly = False
        self.uses_fibers = False  # a thread may have to wait for others, so it needs a stack of its own
        self.uses_atomics = False
        self.dynamic_shared = False
        self.shared_size = 0
        self._shared_offset = {}

    def shared_offset(self, variable):
        """Offset of a shared variable; they are placed in order of first use, the dynamic ones after all others."""
        if variable.open_length or (variable.external and variable.size == 0):
            self.dynamic_shared = True
            return "EMU_DYN"
        if variable.name not in self._shared_offset:
            offset = (self.shared_size + variable.align - 1) // variable.align * variable.align
            self._shared_offset[variable.name] = offset
            self.shared_size = offset + variable.size
        return f"{self._shared_offset[variable.name]}u"

    def new_site(self, scope):
        """Number of a new site for the instruction that `scope` is at."""
        self.sites.append((scope.locations.here + " " if scope.locations.here else "") + " ".join(scope.text.split()))
        return len(self.sites) - 1

    def need(self, name):
        """Notes that a device function is called."""
        if self.module.functions.get(name) is None:
            raise TranslationError(f"undefined function '{name}'")
        if name not in self.needed:
            self.needed.append(name)

    def need_all(self):
        """A call through a pointer may reach every device function of the module."""
        for name in self.module.function_index:
            self.need(name)
        self.uses_fibers = self.calls_indirectly = True


def translate_kernel(module, name):
    """C++ text of kernel `name`. Raises one TranslationError that carries all that is not modelled."""
    function = module.functions.get(name)
    if function is None or not function.is_entry:
        raise TranslationError(f"no kernel '{name}' in the module")
    cpu_flush, explicit_ftz = flush_mode(module, name)
    unit = Unit(module, explicit_ftz)
    main = translate_function(unit, function)
    others = []
    while len(others) < len(unit.needed):  # translating one may need more
        others.append(translate_function(unit, module.functions[unit.needed[len(others)]]))
    if unit.errors:
        raise TranslationError.joined(unit.errors)
    return "\n".join(_head(unit) + others + [main, _description(unit, name, cpu_flush)]) + "\n"


def _dynamic_offset(unit):
    return (unit.shared_size + 15) // 16 * 16


def _head(unit):
    globals_count = max(1, len(unit.module.global_index))
    lines = [
        '#include "emu_dev.hpp"',
        f"#define EMU_DYN {_dynamic_offset(unit)}u",
        f'extern "C" {{ __attribute__((visibility("hidden"))) uint64_t emu_globals[{globals_count}]; }}',
    ]
    lines += [signature(unit.module.functions[name]) + ";" for name in unit.needed]
    if unit.calls_indirectly:
        pointers = ", ".join(f"(void*)fn_{cpp_name(name)}" for name in unit.module.function_index)
        lines += ["static void* const ftab[] = {" + pointers + "};", _INDIRECT_CALL]
    lines.append("static const char* const sites[] = {" + ", ".join(map(_quoted, unit.sites or ["-"])) + "};")
    return lines


def _quoted(text):
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _description(unit, name, cpu_flush):
    flags = ("EK_FIBER|" if unit.uses_fibers else "") + ("EK_FTZ|" if cpu_flush else "")
    flags += ("EK_ATOMICS|" if unit.uses_atomics else "") + "0"
    shared = _dynamic_offset(unit) if unit.dynamic_shared else unit.shared_size
    return (
        'extern "C" __attribute__((visibility("default"))) const EmuKernelDesc emu_kernel; '
        f'const EmuKernelDesc emu_kernel = {{"{name}", body, {flags}, {shared}u, 0u, {max(1, len(unit.sites))}u, sites, '
        f"emu_globals, {len(unit.module.global_index)}u}};"
    )
