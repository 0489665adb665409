# SPDX-License-Identifier: Apache-2.0
"""f32 and f64 arithmetic with exact rounding ("Floating-Point Instructions"); approximate forms are in approximate.py.

Directed rounding is exact: device/rounding.hpp. .ftz flushes inputs and result of f32 operations.
"""
from ..instruction import handles
from ..ptx_types import FLOATS

_SYMBOL = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def _inputs(ins, emit, t, count, ftz, arithmetic=True):
    values = (emit.read(ins.operand(i), t) for i in range(1, count + 1))
    return [emit.flushed(value, ftz, arithmetic) if t == "f32" else value for value in values]


def _result(ins, emit, expression, t, ftz):
    if ins.has("sat"):
        expression = f"saturate({expression})"
    return emit.write(ins.operand(0), emit.flushed(expression, ftz) if t == "f32" else expression)


@handles("add", "sub", "mul", types=FLOATS)
def arithmetic(ins, emit):
    """add, sub, mul ("add", "sub", "mul")."""
    t, ftz, rounding = ins.take_type(), ins.has("ftz"), ins.take_rounding()
    x, y = _inputs(ins, emit, t, 2, ftz)
    if rounding == "RN":
        expression = f"({x} {_SYMBOL[ins.name]} {y})"
    elif ins.name == "mul":
        expression = f"mul_rounded<{rounding}>({x}, {y})"
    else:
        expression = f"add_rounded<{rounding}>({x}, {'-' if ins.name == 'sub' else ''}{y})"
    return _result(ins, emit, expression, t, ftz)


@handles("div", types=FLOATS)
def div(ins, emit):
    """Correctly rounded division, or .approx/.full ("div")."""
    t, ftz, approximate = ins.take_type(), ins.has("ftz"), ins.take("approx", "full")
    rounding = ins.take_rounding()
    x, y = _inputs(ins, emit, t, 2, ftz)
    if approximate:
        if t != "f32":
            raise ins.error(f".{approximate} is for f32")
        expression = f"div_{approximate}({x}, {y})"
    elif rounding == "RN":
        expression = f"({x} / {y})"
    else:
        expression = f"div_rounded<{rounding}>({x}, {y})"
    return _result(ins, emit, expression, t, ftz)


@handles("fma", "mad", types=FLOATS)
def fma(ins, emit):
    """Product and sum with one rounding ("fma"; mad is the same on current devices)."""
    t, ftz, rounding = ins.take_type(), ins.has("ftz"), ins.take_rounding()
    values = ", ".join(_inputs(ins, emit, t, 3, ftz))
    if t == "f64" and rounding == "RN":
        return _result(ins, emit, f"fma({values})", t, ftz)
    return _result(ins, emit, f"fma_rounded<{rounding}>({values})", t, ftz)


@handles("sqrt", "rcp", types=FLOATS)
def sqrt_rcp(ins, emit):
    """Square root and reciprocal: correctly rounded or .approx ("sqrt", "rcp")."""
    t, ftz, approximate = ins.take_type(), ins.has("ftz"), ins.has("approx")
    rounding = ins.take_rounding()
    (x,) = _inputs(ins, emit, t, 1, ftz)
    if approximate:
        if t == "f64":
            if ins.name == "sqrt" or not ftz:
                raise ins.error(".approx.f64 is only rcp.approx.ftz.f64")
            return emit.write(ins.operand(0), f"rcp_gross({x})")
        return _result(ins, emit, f"{ins.name}_approx({x})", t, ftz)
    if t == "f64" and rounding == "RN":
        return _result(ins, emit, f"sqrt({x})" if ins.name == "sqrt" else f"(1.0 / {x})", t, ftz)
    if ins.name == "sqrt":
        return _result(ins, emit, f"sqrt_rounded<{rounding}>({x})", t, ftz)
    return _result(ins, emit, f"div_rounded<{rounding}>(1.0{'f' if t == 'f32' else ''}, {x})", t, ftz)


@handles("min", "max", types=FLOATS)
def min_max(ins, emit):
    """The number where one input is NaN, -0 < +0; .NaN passes NaN on; .xorsign.abs: smaller or larger magnitude with
    the product's sign ("min", "max")."""
    t, ftz, nan, xorsign, absolute = ins.take_type(), ins.has("ftz"), ins.has("NaN"), ins.has("xorsign"), ins.has("abs")
    helper = f"{ins.name}_{'nan' if nan else 'num'}"
    values = _inputs(ins, emit, t, len(ins.operands) - 1, ftz, arithmetic=False)
    if len(values) == 3 and not xorsign:
        expression = f"{helper}({helper}({values[0]}, {values[1]}), {values[2]})"
        if absolute:
            raise ins.error(".abs with three inputs is not modelled")
    elif len(values) == 2 and xorsign == absolute:
        expression = f"{helper}({', '.join(values)})"
        if xorsign:
            expression = f"with_xor_sign({helper}(magnitude({values[0]}), magnitude({values[1]})), {values[0]}, {values[1]})"
    else:
        raise ins.error("this form is not modelled")
    return emit.write(ins.operand(0), expression)


@handles("neg", "abs", types=FLOATS)
def neg_abs(ins, emit):
    """Sign bit only ("neg", "abs")."""
    t, ftz = ins.take_type(), ins.has("ftz")
    (x,) = _inputs(ins, emit, t, 1, ftz, arithmetic=False)
    if t == "f64":
        return emit.write(ins.operand(0), f"(-{x})" if ins.name == "neg" else f"(fabs({x}))")
    mask = "^ 0x80000000u" if ins.name == "neg" else "& 0x7fffffffu"
    return emit.write(ins.operand(0), f"float_of(bits_of({x}) {mask})")


@handles("copysign", types=FLOATS)
def copysign(ins, emit):
    """The sign of a with the magnitude of b ("copysign")."""
    t = ins.take_type()
    function = "copysignf" if t == "f32" else "copysign"
    return emit.write(ins.operand(0), f"{function}({emit.read(ins.operand(2), t)}, {emit.read(ins.operand(1), t)})")


@handles("testp", types=FLOATS)
def testp(ins, emit):
    """Class of a number, from its bits ("testp")."""
    x = emit.read(ins.operand(1), ins.take_type())
    kind = ins.need("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    return emit.write(ins.operand(0), f"is_{kind}({x})")
