# SPDX-License-Identifier: Apache-2.0
"""Approximate functions ("Floating Point Instructions: rsqrt, sin, cos, lg2, ex2, tanh").

The result is the correctly rounded one or, with EMU_APPROX_ERROR, one that is off by up to the error the ISA allows:
device/approximate.hpp.
"""
from ..instruction import handles


@handles("rsqrt", "ex2", "lg2", "sin", "cos", "tanh", types=("f32",))
def f32_function(ins, emit):
    """f32 forms; all of them are approximate."""
    ins.take_type()
    ins.need("approx")
    ftz = ins.has("ftz")
    # the host's library looks at bits of its input
    x = emit.flushed(emit.read(ins.operand(1), "f32"), ftz, arithmetic=False)
    return emit.write(ins.operand(0), emit.flushed(f"{ins.name}_approx({x})", ftz))


@handles("rsqrt", types=("f64",))
def rsqrt_f64(ins, emit):
    """rsqrt.approx.f64, and the gross rsqrt.approx.ftz.f64 that keeps only the upper word."""
    ins.take_type()
    ins.need("approx")
    x = emit.read(ins.operand(1), "f64")
    return emit.write(ins.operand(0), f"rsqrt_gross({x})" if ins.has("ftz") else f"(1.0 / sqrt({x}))")
