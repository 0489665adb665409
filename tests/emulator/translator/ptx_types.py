# SPDX-License-Identifier: Apache-2.0
"""PTX scalar types ("Types" in the PTX ISA) and the C++ types that hold them.

16-bit floats and packed pairs are kept as bit patterns: C++17 has no such types, and the helpers in device/halves.hpp
round them exactly once.
"""
import re

CPP = {
    "pred": "bool",
    "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t",
    "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t", "f16": "uint16_t", "bf16": "uint16_t",
    "b32": "uint32_t", "u32": "uint32_t", "s32": "int32_t", "f32": "float", "tf32": "uint32_t",
    "f16x2": "uint32_t", "bf16x2": "uint32_t",
    "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f64": "double",
}  # fmt: skip


def _bits(name):
    if name == "pred":
        return 1
    if name == "tf32":
        return 32
    width, pair = re.search(r"(\d+)(x2)?$", name).groups()
    return int(width) * (2 if pair else 1)


BITS = {name: _bits(name) for name in CPP}

#: unsigned integer of a given width: how bits travel through memory and registers
STORAGE = {1: "bool", 8: "uint8_t", 16: "uint16_t", 32: "uint32_t", 64: "uint64_t"}

#: C++ type that holds the product of two values of a type exactly
WIDE = {
    "u16": "uint32_t", "s16": "int32_t", "u32": "uint64_t", "s32": "int64_t",
    "u64": "unsigned __int128", "s64": "__int128",
}  # fmt: skip

UNSIGNED = ("u8", "u16", "u32", "u64")
SIGNED = ("s8", "s16", "s32", "s64")
INTEGERS = UNSIGNED + SIGNED
UNTYPED = ("b8", "b16", "b32", "b64")
FLOATS = ("f32", "f64")
HALVES = ("f16", "bf16", "f16x2", "bf16x2")


def storage(type_name):
    """Unsigned C++ integer with the width of a PTX type."""
    return STORAGE[BITS[type_name]]


def register_type(type_name):
    """C++ type of a register declared with a PTX type: floats keep theirs, all else is bits (registers are untyped in
    effect: the ISA lets an instruction read a register of the same size as any type)."""
    return CPP[type_name] if type_name in FLOATS else storage(type_name)
