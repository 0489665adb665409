# SPDX-License-Identifier: Apache-2.0
"""Class under which an instruction is counted: EC_* of runtime/emu_abi.h, worth operations in runtime/statistics.hpp."""
import re

_BY_NAME = {
    "atom": "EC_ATOM", "red": "EC_ATOM", "bar": "EC_BAR", "barrier": "EC_BAR", "shfl": "EC_SHFL", "vote": "EC_SHFL",
    "match": "EC_SHFL", "redux": "EC_SHFL", "ldmatrix": "EC_LDS", "stmatrix": "EC_STS",
    "cp": "EC_CPASYNC",
}  # fmt: skip
_F32 = {"fma": "EC_FMA32", "mad": "EC_FMA32", "add": "EC_ADD32", "sub": "EC_ADD32", "mul": "EC_MUL32"}
_SPECIAL = ("rcp", "rsqrt", "sqrt", "div", "sin", "cos", "lg2", "ex2", "tanh")
_ARITHMETIC = ("add", "sub", "mul", "div", "rcp", "rsqrt", "sqrt", "ex2", "tanh")
_MMA = re.compile(r"m16n8k(\d+)\.row\.col\.\w+\.(\w+)\.\w+")
_MMA_TYPES = {"f16": "F16", "bf16": "BF16", "tf32": "TF32", "s8": "I8", "u8": "I8"}
_MMA_DEPTHS = {"F16": (8, 16), "BF16": (8, 16), "TF32": (4, 8), "I8": (16, 32)}


def instruction_class(instruction):
    """EC_* of the instruction; its modifiers must still be there."""
    name, modifiers = instruction.name, instruction.modifiers
    if name in ("ld", "ldu", "st"):
        return _memory_class(name, modifiers)
    if name == "mma":
        return _matrix_class(instruction.op)
    return _BY_NAME.get(name) or _arithmetic_class(name, modifiers[-1] if modifiers else "")


def _memory_class(name, modifiers):
    spaces = [m.split("::")[0] for m in modifiers]
    space = next((s for s in spaces if s in ("param", "shared", "global", "local", "const")), "generic")
    if space in ("global", "generic"):
        return "EC_STG" if name == "st" else "EC_LDG"
    if space == "shared":
        return "EC_STS" if name == "st" else "EC_LDS"
    return "EC_OTHER"


def _matrix_class(op):
    match = _MMA.search(op)
    kind = _MMA_TYPES.get(match[2]) if match else None
    if kind and int(match[1]) in _MMA_DEPTHS[kind]:
        return f"EC_MMA_{kind}_K{match[1]}"
    return "EC_OTHER"


def _arithmetic_class(name, type_name):
    if type_name == "f32":
        return _F32.get(name) or ("EC_SPECIAL32" if name in _SPECIAL else "EC_OTHER")
    if name not in ("fma", "mad") and name not in _ARITHMETIC:
        return "EC_OTHER"
    kind = "FMA" if name in ("fma", "mad") else "OP"
    if type_name == "f64":
        return f"EC_{kind}64"
    if type_name in ("f16", "bf16"):
        return f"EC_{kind}16"
    return f"EC_{kind}16X2" if type_name in ("f16x2", "bf16x2") else "EC_OTHER"
