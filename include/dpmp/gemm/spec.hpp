// SPDX-License-Identifier: Apache-2.0
// What a matrix product is, as one object with named fields, and everything that can be refused about it.
#pragma once
#include "dpmp/core/dtype.hpp"
#include "dpmp/kernels/gemm_epilogue.hpp"

namespace dpmp::inline DPMP_ABI {
/// A row-major matrix to read, one for each element of the batch. `transposed`: the stored matrix is op(x)'s transpose.
/// bf16 operands are expected without denormals (the library's bf16 stores flush them): the bf16 units of CPUs ignore
/// denormal operands, the other paths do not.
struct GemmOperand {
  const void* data = nullptr;
  DType dtype = DType::f32;
  index_t row_stride = 0;    ///< elements from one stored row to the next
  index_t batch_stride = 0;  ///< elements from one stored matrix to the next; 0: all of the batch share one
  bool transposed = false;
};
/// A row-major matrix to write, one for each element of the batch; no two elements may share storage.
struct GemmOutput {
  void* data = nullptr;
  DType dtype = DType::f32;
  index_t row_stride = 0;
  index_t batch_stride = 0;
};
using GemmActivation = kernels::EpilogueActivation;
/// Who computes. `automatic` depends on the spec, the build and the CPU, never on data.
/// panels: our own, every dtype, on a CPU. eigen, onednn: by those libraries, for comparisons; position_free asks them in
/// vain.
enum class GemmBackend : std::uint8_t { automatic, panels, eigen, onednn };

/// out[m,n] = act(alpha * op(a)[m,k] op(b)[k,n] + bias) + residual, or (alpha * ..) * act'(slope_at), `batch` times; sums in
/// FP32 (f64: in double). Operands of one real dtype; the output has that dtype, or f32, or, on a CPU, f64: then products
/// and sums are in double, without an epilogue. alpha = 0 ignores the operands, as BLAS does.
struct GemmSpec {
  index_t m = 0, n = 0, k = 0, batch = 1;
  GemmOperand a, b;
  GemmOutput out;
  double alpha = 1;            ///< applied in FP32 (f64: in double) to the accumulator, never to an operand
  bool accumulate = false;     ///< out += alpha * op(a) op(b); out is f32 (f64), and there is no epilogue
  const void* bias = nullptr;  ///< [n], dtype of the operands
  GemmActivation activation = GemmActivation::none;
  /// Laid out like out, or null. Receives the pre-activation rounded to out's dtype; on a CPU the activation is applied to
  /// exactly that rounded value, saved or not (cuBLASLt's epilogue takes the FP32 sum). Must not be out itself.
  void* activation_input = nullptr;
  /// The backward pass of a product that saved its activation's input: laid out like out, in its dtype, or null. The result
  /// is multiplied by the activation's derivative at these numbers instead of going through it; it may be rounded to out's
  /// dtype before. Not with a bias, a residual or activation_input. Must not overlap out.
  const void* slope_at = nullptr;
  /// dtype of out, or null. Added last, before the only rounding. May be out itself (same strides), else must not overlap
  /// it.
  const void* residual = nullptr;
  index_t residual_row_stride = 0, residual_batch_stride = 0;
  /// [batch, m] in out's dtype, or null. Receives the sums of op(a)'s rows: where out = y_gradient^T x is the gradient of a
  /// weight, that of the bias after it. a is transposed, alpha 1, and there is no epilogue and nothing to accumulate into.
  void* row_sums = nullptr;
  /// [batch, m], or null, and null on a GPU. Receives the sums of the squares of what is stored in the output's rows, in
  /// double, taken while a row is in cache. There is no epilogue and nothing to accumulate into.
  double* row_squares = nullptr;
  /// Whether the bits of an output row follow from that row of op(a), from b and from the spec alone: not from where the row
  /// or its matrix is in the batch, nor from what the others hold. Everything from a record to its contribution needs that
  /// (P34); sums over the records do not, and may then be left to whatever library is fastest.
  bool position_free = true;

  bool has_epilogue() const { return bias || residual || activation != GemmActivation::none; }
};

namespace detail {
inline void check_operand(const GemmOperand& x, const char* name, index_t rows, index_t columns) {
  if (x.transposed) std::swap(rows, columns);
  DPMP_CHECK(x.row_stride >= columns, "expected a row stride >= ", columns,
             " (the length of a stored row) for gemm operand ", name, ", got ", x.row_stride);
  DPMP_CHECK(x.batch_stride >= 0, "expected a batch stride >= 0 for gemm operand ", name, ", got ", x.batch_stride);
  DPMP_CHECK(x.data || rows * columns == 0, "expected data for gemm operand ", name, " of ", rows, " x ", columns,
             ", got null");
}

/// Whether the matrices of a batch are stored one after the other (or are one shared matrix).
inline bool batch_outermost(index_t batch, index_t batch_stride, index_t rows, index_t row_stride) {
  return batch == 1 || batch_stride == 0 || batch_stride >= rows * row_stride;
}

inline void check_output(const GemmSpec& s) {
  DPMP_CHECK(s.out.row_stride >= s.n, "expected a row stride >= n = ", s.n, " for the gemm output, got ", s.out.row_stride);
  const index_t stride = s.out.batch_stride;
  const bool stacked = stride >= (s.m - 1) * s.out.row_stride + s.n;
  const bool interleaved = stride >= s.n && (s.batch - 1) * stride + s.n <= s.out.row_stride;  // packed heads in a row
  DPMP_CHECK(s.batch == 1 || stacked || interleaved, "expected gemm outputs that do not overlap, got ", s.batch, " of ", s.m,
             " x ", s.n, " with row stride ", s.out.row_stride, " and batch stride ", stride);
  DPMP_CHECK(s.out.data, "expected data for the gemm output of ", s.m, " x ", s.n, ", got null");
}
}  // namespace detail

/// Throws dpmp::Error on everything that is wrong with a spec.
inline void check_gemm(const GemmSpec& s) {
  DPMP_CHECK(s.m >= 0 && s.n >= 0 && s.k >= 0 && s.batch >= 0, "expected gemm extents >= 0, got m = ", s.m, ", n = ", s.n,
             ", k = ", s.k, ", batch = ", s.batch);
  const DType in = s.a.dtype, out = s.out.dtype;
  DPMP_CHECK(is_real(in) && s.b.dtype == in, "expected gemm operands of one real dtype, got ", in, " and ", s.b.dtype);
  const bool in_double = out == DType::f64;
  DPMP_CHECK(out == in || out == accumulate_dtype(in) || in_double, "expected a gemm output of dtype ", in, ", ",
             accumulate_dtype(in), " or f64, got ", out);
  DPMP_CHECK(!s.accumulate || out == accumulate_dtype(in) || in_double, "expected an output of dtype ", accumulate_dtype(in),
             " or f64 to accumulate a gemm into, got ", out);
  DPMP_CHECK(!in_double || in == DType::f64 || !(s.has_epilogue() || s.row_sums), "expected no epilogue in a gemm of ", in,
             " whose sums are in double");
  DPMP_CHECK(!s.accumulate || !s.has_epilogue(), "expected no bias, activation or residual in a gemm that accumulates");
  DPMP_CHECK(!s.activation_input || s.activation != GemmActivation::none,
             "expected an activation where its input is to be saved, got none");
  DPMP_CHECK(!s.activation_input || s.activation_input != s.out.data,
             "expected storage of its own for the activation's input, got out's");
  DPMP_CHECK(!s.slope_at || s.activation != GemmActivation::none,
             "expected an activation whose derivative a gemm is multiplied by, got none");
  DPMP_CHECK(!s.slope_at || (!s.bias && !s.residual && !s.activation_input),
             "expected no bias, residual or saved input in a gemm that is multiplied by an activation's derivative");
  DPMP_CHECK(!s.slope_at || s.slope_at != s.out.data,
             "expected storage of its own for the numbers that a derivative is taken at, got out's");
  DPMP_CHECK(
      !s.row_sums || (s.a.transposed && s.alpha == 1 && !s.accumulate && !s.has_epilogue() && !s.slope_at),
      "expected a transposed operand a, alpha = 1, no epilogue and no accumulation in a gemm that sums the rows of op(a)");
  DPMP_CHECK(!s.row_squares || !(s.accumulate || s.has_epilogue() || s.slope_at),
             "expected no epilogue and no accumulation in a gemm that squares its rows");
  if (s.m == 0 || s.batch == 0) return;
  if (s.n > 0 || s.row_sums) detail::check_operand(s.a, "a", s.m, s.k);
  if (s.n == 0) return;
  detail::check_operand(s.b, "b", s.k, s.n);
  detail::check_output(s);
  DPMP_CHECK(!s.residual || s.residual_row_stride >= s.n, "expected a row stride >= n = ", s.n,
             " for the gemm residual, got ", s.residual_row_stride);
  DPMP_CHECK(!s.residual || s.residual_batch_stride >= 0, "expected a batch stride >= 0 for the gemm residual, got ",
             s.residual_batch_stride);
}
}  // namespace dpmp::inline DPMP_ABI
