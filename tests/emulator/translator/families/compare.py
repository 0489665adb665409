# SPDX-License-Identifier: Apache-2.0
"""Comparison and selection ("Comparison and Selection Instructions", "Half Precision Comparison Instructions").

eq ne lt le gt ge are false when an input is NaN (ne too); equ ... geu are then true; num and nan test for NaN.
"""
from ..instruction import handles
from ..ptx_types import BITS, FLOATS, HALVES

_ORDERED = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">=",
}  # fmt: skip
_UNORDERED = ("equ", "neu", "ltu", "leu", "gtu", "geu")
_COMBINE = {"and": "&", "or": "|", "xor": "^"}
#: what `set` writes for true and false
_SET_VALUES = {
    "f32": ("1.0f", "0.0f"),
    "u32": ("0xffffffffu", "0u"),
    "s32": ("0xffffffffu", "0u"),
    "b32": ("0xffffffffu", "0u"),
    "f16": ("(uint16_t)0x3c00", "(uint16_t)0"),
    "bf16": ("(uint16_t)0x3f80", "(uint16_t)0"),
    "u16": ("(uint16_t)0xffff", "(uint16_t)0"),
}
_SET_PAIR_VALUES = {"f16x2": 0x3C00, "bf16x2": 0x3F80, "u32": 0xFFFF, "s32": 0xFFFF, "b32": 0xFFFF}


def _comparison(ins, operator, t, x, y):
    """C++ condition; x and y are C++ numbers."""
    floating = t in FLOATS or t in HALVES
    if operator in _ORDERED:
        # C++ != is true for NaN, PTX ne is not
        ordered = f" && {x} == {x} && {y} == {y}" if operator == "ne" and floating else ""
        return f"({x} {_ORDERED[operator]} {y})" + ordered
    if not floating:
        raise ins.error(f".{operator} is for floats")
    if operator in _UNORDERED:
        return f"({x} {_ORDERED[operator[:2]]} {y} || {x} != {x} || {y} != {y})"
    return f"{'!' if operator == 'num' else ''}({x} != {x} || {y} != {y})"


def _combined(condition, operator, other):
    """The condition, combined with the predicate operand of setp.and and the like."""
    if operator is None:
        return f"(bool)({condition})"
    return f"((bool)({condition}) {_COMBINE[operator]} (bool)({other}))"


def _widened(expression, t):
    return f"(double){'bf16' if t.startswith('b') else 'half'}_to_float({expression})"


def _pair_conditions(ins, emit, t, operator, combine, other):
    element = t[:-2]
    for half in (0, 1):
        x, y = (_widened(f"(uint16_t)({emit.read(ins.operand(i), t)} >> {16 * half})", element) for i in (1, 2))
        yield _combined(_comparison(ins, operator, t, x, y), combine, other)


def _condition(ins, emit, t, operator, ftz):
    x, y = emit.read(ins.operand(1), t), emit.read(ins.operand(2), t)
    if t in HALVES:
        x, y = _widened(x, t), _widened(y, t)
    elif t == "f32":
        x, y = emit.flushed(x, ftz), emit.flushed(y, ftz)
    return _comparison(ins, operator, t, x, y)


def _take_comparison(ins, emit):
    """(operand type, comparison, combining operator or None, other predicate or None, ftz)."""
    t = ins.take_type()
    if not ins.modifiers or ins.modifiers[0] not in (*_ORDERED, *_UNORDERED, "num", "nan"):
        raise ins.error("comparison is not modelled")
    operator = ins.modifiers.pop(0)
    combine, ftz = ins.take(*_COMBINE), ins.has("ftz")
    other = emit.predicate(ins.operand(3)) if combine else None
    return t, operator, combine, other, ftz


@handles("setp")
def setp(ins, emit):
    """Comparison to a predicate, or to p|q: the second gets the complement combined alike ("setp")."""
    t, operator, combine, other, ftz = _take_comparison(ins, emit)
    targets = [x.strip() for x in ins.operand(0).split("|")]
    if t in ("f16x2", "bf16x2"):
        low, high = _pair_conditions(ins, emit, t, operator, combine, other)
        second = emit.write(targets[1], "r1_") if len(targets) > 1 else ""
        return f"{{ bool r0_ = {low}, r1_ = {high}; {emit.write(targets[0], 'r0_')} {second} }}"
    condition = _condition(ins, emit, t, operator, ftz)
    if len(targets) == 1:
        return emit.write(targets[0], _combined(condition, combine, other))
    both = f"bool r0_ = {_combined('e_', combine, other)}, r1_ = {_combined('!e_', combine, other)};"
    return f"{{ bool e_ = {condition}; {both} {emit.write(targets[0], 'r0_')} {emit.write(targets[1], 'r1_')} }}"


@handles("set")
def set_value(ins, emit):
    """Comparison to a number: 1.0 for float results, all ones for integer ones ("set")."""
    t, operator, combine, other, ftz = _take_comparison(ins, emit)
    result = ins.take_type(_SET_PAIR_VALUES if t in ("f16x2", "bf16x2") else _SET_VALUES)
    if t in ("f16x2", "bf16x2"):
        low, high = _pair_conditions(ins, emit, t, operator, combine, other)
        one = _SET_PAIR_VALUES[result]
        return emit.write(ins.operand(0), f"(({low} ? {one}u : 0u) | ({high} ? {one}u : 0u) << 16)")
    true, false = _SET_VALUES[result]
    condition = _combined(_condition(ins, emit, t, operator, ftz), combine, other)
    return emit.write(ins.operand(0), f"({condition} ? {true} : {false})")


@handles("selp")
def selp(ins, emit):
    """a or b by a predicate ("selp")."""
    t = ins.take_type()
    condition = emit.predicate(ins.operand(3))
    return emit.write(ins.operand(0), f"({condition} ? {emit.read(ins.operand(1), t)} : {emit.read(ins.operand(2), t)})")


@handles("slct", types=("s32", "f32"))
def slct(ins, emit):
    """a or b by the sign of c; -0 counts as positive, NaN selects b ("slct")."""
    selector_type, t = ins.take_type(), ins.take_type()
    selector = emit.read(ins.operand(3), selector_type)
    if ins.has("ftz"):
        if BITS[selector_type] != 32 or selector_type != "f32":
            raise ins.error(".ftz is for f32")
        selector = emit.flushed(selector, True)
    return emit.write(ins.operand(0), f"({selector} >= 0 ? {emit.read(ins.operand(1), t)} : {emit.read(ins.operand(2), t)})")
