# SPDX-License-Identifier: Apache-2.0
"""Warp-level matrices: mma.sync, ldmatrix, stmatrix, movmatrix ("Warp Level Matrix Multiply-Accumulate Instructions").

Which lane holds which element: device/fragments.hpp; the products: device/mma_model.hpp; moves: device/matrix_moves.hpp.
"""
import re

from ..instruction import handles
from ..lexer import split_list

_MMA = re.compile(
    r"mma\.sync\.aligned\.m16n8k(?P<k>\d+)\.row\.col\.(?P<d>f32|f16|s32)\.(?P<a>\w+)\.(?P<b>\w+)\.(?P<c>f32|f16|s32)"
)
_FLOAT_KINDS = {"f16": 0, "bf16": 1, "tf32": 2}
_FLOAT_SHAPES = {("f16", 8), ("f16", 16), ("bf16", 8), ("bf16", 16), ("tf32", 4), ("tf32", 8)}


@handles("mma")
def mma(ins, emit):
    """m16n8k8/k16 f16 and bf16, m16n8k4/k8 tf32, m16n8k16/k32 of 8-bit integers ("mma.sync")."""
    emit.unit.uses_fibers = True
    match = _MMA.fullmatch(ins.op)
    if not match:
        raise ins.error("shape, layout or type is not modelled")
    k, d_type, a_type, b_type, c_type = int(match["k"]), match["d"], match["a"], match["b"], match["c"]
    d, a, b, c = (split_list(ins.operand(i)[1:-1]) for i in range(4))
    arguments = f"{k}, d_, a_, b_, c_"
    if (a_type, k) in _FLOAT_SHAPES and a_type == b_type and d_type == c_type and (d_type == "f32" or a_type == d_type):
        call = f"emu_mma(C, T, {emit.site()}, {_FLOAT_KINDS[a_type]}, {int(d_type == 'f16')}, {arguments});"
    elif {a_type, b_type} <= {"s8", "u8"} and k in (16, 32) and d_type == c_type == "s32":
        call = f"emu_imma(C, T, {emit.site()}, {int(a_type == 'u8')}, {int(b_type == 'u8')}, {arguments});"
    else:
        raise ins.error("shape or type is not modelled")
    ins.modifiers.clear()  # the pattern has matched all of them
    fragments = ", ".join(f"{name}[{len(x)}] = {{{emit.bits32(x)}}}" for name, x in (("a_", a), ("b_", b), ("c_", c)))
    stores = " ".join(emit.write(x, f"d_[{i}]") for i, x in enumerate(d))
    return f"{{ uint32_t {fragments}, d_[{len(d)}]; {call} {stores} }}"


def _take_8x8(ins, emit, registers, address):
    """(number of matrices, .trans, names of the registers, offset in shared memory) of ldmatrix and stmatrix."""
    emit.unit.uses_fibers = True
    ins.take_type()
    for modifier in ("sync", "aligned", "m8n8"):
        ins.need(modifier)
    count = int(ins.need("x1", "x2", "x4")[1:])
    transposed = int(ins.has("trans"))
    names = split_list(registers.strip("{}"))
    if len(names) != count:
        raise ins.error(f"expected {count} registers, got {len(names)}")
    _, address = emit.address(address)
    is_shared = ins.take_space("shared") == "shared"
    return count, transposed, names, f"(uint32_t){address}" if is_shared else f"(uint32_t)({address} - EMU_SWIN)"


@handles("ldmatrix", types=("b16",))
def ldmatrix(ins, emit):
    """8x8 matrices of 16-bit elements from shared memory; lanes 8i..8i+7 give the rows of matrix i ("ldmatrix")."""
    count, transposed, targets, offset = _take_8x8(ins, emit, ins.operand(0), ins.operand(1))
    site = emit.site()
    row = f"if ((T->lin & 31) < {8 * count}) r_ = at_shared<16, EMU_LD|EMU_MATRIX>(C, T, a_, {site});"
    call = f"emu_ldmatrix(C, T, {site}, {count}, {transposed}, v_, r_);"
    stores = " ".join(emit.write(x, f"v_[{i}]") for i, x in enumerate(targets))
    return f"{{ uint32_t v_[{count}]; uint64_t a_ = {offset}; const uint8_t* r_ = nullptr; {row} {call} {stores} }}"


@handles("stmatrix", types=("b16",))
def stmatrix(ins, emit):
    """8x8 matrices of 16-bit elements to shared memory; lane 8i + r stores row r of matrix i ("stmatrix")."""
    count, transposed, sources, offset = _take_8x8(ins, emit, ins.operand(1), ins.operand(0))
    site, values = emit.site(), ", ".join(emit.read(x, "b32") for x in sources)
    rows = f"collect_row(C, T, {site}, {count}, {transposed}, v_, row_);"
    store = f"memcpy(at_shared<16, EMU_ST|EMU_MATRIX>(C, T, {offset}, {site}), row_, 16);"
    return f"{{ uint32_t v_[4] = {{{values}}}, row_[4]; {rows} if ((T->lin & 31) < {8 * count}) {store} }}"


@handles("movmatrix", types=("b16",))
def movmatrix(ins, emit):
    """Transposes an 8x8 matrix of 16-bit elements in registers ("movmatrix")."""
    emit.unit.uses_fibers = True
    ins.take_type()
    for modifier in ("sync", "aligned", "m8n8", "trans"):
        ins.need(modifier)
    return emit.write(ins.operand(0), f"transpose_8x8(C, T, {emit.site()}, {emit.read(ins.operand(1), 'b32')})")
