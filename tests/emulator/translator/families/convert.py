# SPDX-License-Identifier: Apache-2.0
"""cvt ("Data Movement and Conversion Instructions: cvt").

Each conversion rounds once. Integer results saturate where a float does not fit; 8-bit floats are not modelled.
"""
import re

from ..instruction import handles
from ..ptx_types import BITS, CPP, HALVES, INTEGERS
from .halves import half_class, on_halves

#: rounding to an integer -> C function
_TO_INTEGER = {"rni": "nearbyint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
_FORMAT = {"f16": "half", "bf16": "bf16"}
_SMALL_FLOAT = re.compile(r"(e4m3|e5m2|e2m|e3m|ue8)\w*")


@handles("cvt")
def cvt(ins, emit):
    """All conversions; the two last modifiers are the types of result and source."""
    for modifier in ins.modifiers:
        if modifier == "pack" or _SMALL_FLOAT.fullmatch(modifier):
            raise ins.error(f".{modifier} is not modelled")
    source, result = ins.take_type(), ins.take_type()
    if result in ("f16x2", "bf16x2") and source == "f32":
        return _pack(ins, emit, result)
    if result == "tf32":
        return _to_tf32(ins, emit)
    if source in INTEGERS:
        return _from_integer(ins, emit, source, result)
    return _from_float(ins, emit, source, result)


def _pack(ins, emit, result):
    """Two f32 to a pair; the first source becomes the upper half."""
    rounding, relu = ins.take_rounding(), ins.has("relu")
    element, name = result[:-2], half_class(result)

    def narrowed(operand):
        value = f"float_to_{_FORMAT[element]}<{rounding}>({emit.read(operand, 'f32')})"
        return f"half_relu<{name}>({value})" if relu else value

    return emit.write(ins.operand(0), f"((uint32_t){narrowed(ins.operand(1))} << 16 | {narrowed(ins.operand(2))})")


def _to_tf32(ins, emit):
    """f32 -> tf32: 10 bits of mantissa; .rna rounds ties away from zero."""
    if ins.has("relu"):
        raise ins.error(".relu to tf32 is not modelled")
    rounding = ins.need("rna", "rn", "rz")
    return emit.write(ins.operand(0), f"tf32_{rounding}({emit.read(ins.operand(1), 'f32')})")


def _from_integer(ins, emit, source, result):
    value, saturate = emit.read(ins.operand(1), source), ins.has("sat")
    if result in INTEGERS:
        converted = f"saturate_int<{CPP[result]}>({value})" if saturate else f"({CPP[result]})({value})"
        return emit.write_as(ins.operand(0), result, converted)
    rounding = ins.take_rounding()
    if result == "f32":
        converted = f"(float){value}" if rounding == "RN" else f"to_float<{rounding}>((long double){value})"
    elif result == "f64":
        converted = f"(double){value}" if rounding == "RN" else f"to_double<{rounding}>((long double){value})"
    elif result == "f16":
        # an integer that double cannot hold is far beyond the largest half
        converted = f"double_to_half<{rounding}>((double){value})"
    elif result == "bf16":
        if BITS[source] == 64:
            converted = f"int_to_bf16<{rounding}>({value})"
        else:
            converted = f"double_to_bf16<{rounding}>((double){value})"
    else:
        raise ins.error("this pair of types is not modelled")
    if saturate:
        converted = on_halves("half_saturate", result, [converted]) if result in HALVES else f"saturate({converted})"
    return emit.write(ins.operand(0), converted)


def _from_float(ins, emit, source, result):
    if source not in ("f16", "bf16", "f32", "f64"):
        raise ins.error("this pair of types is not modelled")
    rounding, to_integer = ins.take_rounding(), ins.take(*_TO_INTEGER)
    ftz, saturate, relu = ins.has("ftz"), ins.has("sat"), ins.has("relu")
    value = emit.read(ins.operand(1), source)
    if source == "f32":
        value = emit.flushed(value, ftz, arithmetic=result != "f32")
    elif source in _FORMAT:
        value = f"{_FORMAT[source]}_to_float({value})"
    if result in INTEGERS:
        if not to_integer:
            raise ins.error("needs .rni, .rzi, .rmi or .rpi")
        # .sat changes nothing: the result is clamped to its type in any case
        helper = "double_to_int" if source == "f64" else "float_to_int"
        return emit.write_as(ins.operand(0), result, f"{helper}<{CPP[result]}>({_TO_INTEGER[to_integer]}((double){value}))")
    if to_integer:
        value = f"{_TO_INTEGER[to_integer]}({value})" if source == "f64" else f"{_TO_INTEGER[to_integer]}f({value})"
    converted = _between_floats(ins, value, source, result, rounding)
    if result == "f32":
        converted = emit.flushed(f"(float)({converted})", ftz)
    if saturate:
        converted = on_halves("half_saturate", result, [converted]) if result in HALVES else f"saturate({converted})"
    if relu:
        converted = on_halves("half_relu", result, [converted]) if result in HALVES else f"max_num({converted}, 0.0f)"
    return emit.write(ins.operand(0), converted)


def _between_floats(ins, value, source, result, rounding):
    """`value` is a C++ float, or double for f64."""
    if result == source and result in _FORMAT:
        return f"double_to_{_FORMAT[result]}<RN>({value})"  # exact: rounded to an integer at most
    if result == "f32":
        return f"to_float<{rounding}>({value})" if source == "f64" else value
    if result == "f64":
        return f"(double){value}"
    if result in _FORMAT:
        return f"{'double' if source == 'f64' else 'float'}_to_{_FORMAT[result]}<{rounding}>({value})"
    raise ins.error("this pair of types is not modelled")
