// SPDX-License-Identifier: Apache-2.0
// Whether an algorithm of a library gives a row of a product the same bits wherever it is: found out by trying. All rows of
// op(a) hold the same random numbers, all matrices of the batch are equal, and the second half of each sum takes back the
// first: what is left are the roundings, in the order in which they were made, at full precision in every dtype. An order
// that differs between two rows or matrices shows as other bits.
#pragma once
#include <array>

#include "dpmp/gemm/interface.hpp"
#include "dpmp/runtime/launch_blocks.cuh"
#include "dpmp/runtime/launch_cuda.cuh"

namespace dpmp::inline DPMP_ABI::detail {
/// Matrices of a batch, row by row.
struct ProbeMatrix {
  index_t batch, rows, columns, batch_stride, row_stride;
  index_t elements() const {
    return batch * rows * columns == 0 ? 0 : (batch - 1) * batch_stride + (rows - 1) * row_stride + columns;
  }
};

/// x[batch, row, column] = f(place along the sum, other index), the same in the whole batch. Numbers of many exponents, so
/// that sums of their products round in every precision.
template <class T>
struct FillProbe {
  static constexpr int threads = 256, blocks_per_multiprocessor = 4;
  T* data;
  ProbeMatrix matrix;
  index_t length;   // of the sums
  bool along_rows;  // they run over the rows of the matrix
  bool rows_of_b;   // the other index counts, and the second half of a sum takes back the first

  __device__ void operator()(char*) const {
    const index_t index = index_t(blockIdx.x) * threads + threadIdx.x;
    if (index >= matrix.batch * matrix.rows * matrix.columns) return;
    const index_t column = index % matrix.columns, row = index / matrix.columns % matrix.rows,
                  batch = index / matrix.columns / matrix.rows;
    const index_t along = along_rows ? row : column, other = along_rows ? column : row, half = (length + 1) / 2;
    const bool second = along >= half;
    const index_t place = second ? along - half : along;
    float x = number(std::uint32_t(place) * 0x9e3779b9u + (rows_of_b ? 1 + std::uint32_t(other) : 0) * 0x85ebca6bu);
    if (rows_of_b && second) x = -x;
    if (rows_of_b && length > 1 && length % 2 == 1 && along == half - 1) x = 0;  // has no partner
    data[batch * matrix.batch_stride + row * matrix.row_stride + column] = narrowed<T>(compute_t<T>(x));
  }

 private:
  __device__ static float number(std::uint32_t bits) {
    bits = (bits ^ bits >> 16) * 0x7feb352du;
    bits = (bits ^ bits >> 15) * 0x846ca68bu;
    bits ^= bits >> 16;
    const float size = ldexpf(1.0f + float(bits >> 9) * 0x1p-23f, -int(bits & 7));
    return bits & 8 ? -size : size;
  }
};

/// *differ = 1 where an element of a row is not that of the first row of the first matrix.
template <class Word>
struct CompareProbe {
  static constexpr int threads = 256, blocks_per_multiprocessor = 4;
  const Word* data;
  ProbeMatrix matrix;
  std::uint32_t* differ;

  __device__ void operator()(char*) const {
    const index_t index = index_t(blockIdx.x) * threads + threadIdx.x;
    if (index >= matrix.batch * matrix.rows * matrix.columns) return;
    const index_t column = index % matrix.columns, row = index / matrix.columns % matrix.rows,
                  batch = index / matrix.columns / matrix.rows;
    if (data[batch * matrix.batch_stride + row * matrix.row_stride + column] != data[column]) *differ = 1;
  }
};

/// The operands and results of one product for as long as its algorithms are tried.
class PositionProbe {
 public:
  /// Where there is one row in all, nothing has to be found out.
  static bool needed(const GemmSpec& s) { return s.position_free && s.m * s.batch > 1; }

  /// Takes as much memory as the product's own operands, and gives it back.
  PositionProbe(Context& ctx, const GemmSpec& s) : ctx_(ctx), spec_(s) {
    DPMP_CHECK(!ctx.backend().capturing(),
               "expected the products of a captured run to have been tried before, got the first of ", s.m, " x ", s.n,
               " x ", s.k, ": run the same work once before it is captured");
    const ProbeMatrix a = s.a.transposed ? ProbeMatrix{s.batch, s.k, s.m, s.a.batch_stride, s.a.row_stride}
                                         : ProbeMatrix{s.batch, s.m, s.k, s.a.batch_stride, s.a.row_stride};
    const ProbeMatrix b = s.b.transposed ? ProbeMatrix{s.batch, s.n, s.k, s.b.batch_stride, s.b.row_stride}
                                         : ProbeMatrix{s.batch, s.k, s.n, s.b.batch_stride, s.b.row_stride};
    out_ = {s.batch, s.m, s.n, s.out.batch_stride, s.out.row_stride};
    differ_ = static_cast<std::uint32_t*>(memory(4));
    spec_.a.data = filled(s.a.dtype, a, s.k, s.a.transposed, false);
    spec_.b.data = filled(s.b.dtype, b, s.k, !s.b.transposed, true);
    spec_.out.data = memory(out_.elements() * size_of(s.out.dtype));
    if (s.slope_at) spec_.slope_at = filled(s.out.dtype, out_, s.n, false, false);  // the same in every row
    if (s.activation_input) spec_.activation_input = memory(out_.elements() * size_of(s.out.dtype));
    if (s.row_sums) spec_.row_sums = memory(s.batch * s.m * size_of(s.out.dtype));
    // Zeros, which take part and hide nothing.
    if (s.bias) spec_.bias = zeros(s.n * size_of(s.a.dtype));
    if (s.residual)
      spec_.residual = zeros(ProbeMatrix{s.batch, s.m, s.n, s.residual_batch_stride, s.residual_row_stride}.elements() *
                             size_of(s.out.dtype));
  }
  PositionProbe(const PositionProbe&) = delete;
  PositionProbe& operator=(const PositionProbe&) = delete;
  ~PositionProbe() {
    for (std::size_t k = 0; k < count_; ++k) ctx_.backend().release(blocks_[k].first, blocks_[k].second);
  }

  /// Whether multiply(spec), a product of the spec's kind on other addresses, gives all rows the same bits.
  template <class F>
  bool passes(const F& multiply) {
    clear(differ_, 4);
    if (spec_.accumulate) clear(spec_.out.data, out_.elements() * size_of(spec_.out.dtype));
    multiply(spec_);
    compare(spec_.out.data, out_);
    if (spec_.activation_input) compare(spec_.activation_input, out_);
    if (spec_.row_sums) compare(spec_.row_sums, {spec_.batch, spec_.m, 1, spec_.m, 1});
    std::uint32_t differ = 1;
    ctx_.backend().copy_out(&differ, differ_, 4);
    return differ == 0;
  }

 private:
  void* memory(index_t bytes) {
    void* const data = ctx_.backend().acquire(std::max<index_t>(bytes, 4));
    DPMP_CHECK(data, "expected ", bytes, " bytes of device memory, for a moment, to try the algorithms of a product of ",
               spec_.batch, " x [", spec_.m, " x ", spec_.n, " x ", spec_.k, "] with, got none");
    blocks_[count_++] = {data, bytes};
    return data;
  }
  void clear(void* data, index_t bytes) { ctx_.backend().set_zero(data, bytes); }
  void* zeros(index_t bytes) {
    void* const data = memory(bytes);
    clear(data, bytes);
    return data;
  }
  void* filled(DType dtype, const ProbeMatrix& matrix, index_t length, bool along_rows, bool rows_of_b) {
    void* const data = memory(matrix.elements() * size_of(dtype));
    dispatch_stored(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch(matrix, FillProbe<T>{static_cast<T*>(data), matrix, length, along_rows, rows_of_b});
    });
    return data;
  }
  void compare(const void* data, const ProbeMatrix& matrix) {
    switch (size_of(spec_.out.dtype)) {
      case 2: return launch(matrix, CompareProbe<std::uint16_t>{static_cast<const std::uint16_t*>(data), matrix, differ_});
      case 4: return launch(matrix, CompareProbe<std::uint32_t>{static_cast<const std::uint32_t*>(data), matrix, differ_});
      default: return launch(matrix, CompareProbe<std::uint64_t>{static_cast<const std::uint64_t*>(data), matrix, differ_});
    }
  }
  template <class K>
  void launch(const ProbeMatrix& matrix, const K& kernel) {
    const index_t blocks = (matrix.batch * matrix.rows * matrix.columns + K::threads - 1) / K::threads;
    DPMP_CHECK(blocks < index_t(1) << 31, "expected fewer than 2^39 elements of a product's operand, got ", matrix.batch,
               " x [", matrix.rows, " x ", matrix.columns, "]");
    launch_blocks(stream_of(ctx_), dim3(unsigned(blocks)), 0, kernel);
  }

  Context& ctx_;
  GemmSpec spec_;
  ProbeMatrix out_{};
  std::uint32_t* differ_ = nullptr;
  std::array<std::pair<void*, index_t>, 9> blocks_;
  std::size_t count_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::detail
