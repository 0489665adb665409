// SPDX-License-Identifier: Apache-2.0
// Products on the host by panels of our own (kernels/panel_product.hpp): what `automatic` takes for every dtype but bf16 on
// CPUs that multiply bf16 faster than FP32. Casts are part of the packing; rows are finished while they are in cache.
#pragma once
#include <algorithm>

#include "dpmp/gemm/product.hpp"
#include "dpmp/kernels/panel_product.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// A spec for operands In and outputs Out, multiplied and summed in R.
template <class In, class Out, class R>
class PanelGemm {
 public:
  PanelGemm(const Workers& workers, const GemmSpec& spec) : workers_(workers), s_(spec), finish_{s_} {}

  /// Columns are done in parts whose panels take at most this many bytes.
  static constexpr index_t most_packed_bytes = index_t(32) << 20;
  /// Where sums may wait in the output, only so much is packed at a time: it stays in a core's second cache until it is
  /// multiplied. A long sum (the gradient of a weight over 4096 tokens) was 13 to 17 % faster for it.
  static constexpr index_t packed_in_cache_bytes = index_t(1) << 20;

  void run() const {
    const index_t width = kernels::panel_columns<R>(team_width());
    const index_t depth = part_depth();
    const index_t wanted = most_packed_bytes / (std::max<index_t>(depth, 1) * index_t(sizeof(R)));
    const index_t part = std::max(width, wanted / width * width);
    const bool whole_rows = part >= s_.n;
    for (index_t first = 0; first < s_.n; first += part) {
      GemmSpec some = columns(first, std::min(part, s_.n - first));
      if (!whole_rows) some.row_squares = nullptr;
      index_t k = 0;
      do {
        PanelGemm(workers_, terms(some, k, std::min(depth, s_.k - k))).run_part();
        k += depth;
      } while (k < s_.k);
    }
    if (s_.row_squares && !whole_rows) square_all_rows<Out>(workers_, s_);
  }

 private:
  /// Rows of the output that are finished together: their panels of one block of depth stay in a core's second cache.
  static constexpr index_t block_rows = 192;
  static int team_width() { return 4 << int(best_isa()); }
  static index_t tile_rows() { return kernels::panel_rows<R>(team_width()); }
  static index_t tile_columns() { return kernels::panel_columns<R>(team_width()); }
  static index_t ceil_div(index_t x, index_t y) { return (x + y - 1) / y; }
  index_t column_panels() const { return ceil_div(s_.n, tile_columns()); }
  index_t b_bytes() const { return padded_bytes(column_panels() * tile_columns() * s_.k + kernels::panel_slack, sizeof(R)); }
  /// Rows that need no cast and run along k are read where they are.
  bool a_in_place() const { return std::is_same_v<In, R> && !s_.a.transposed; }
  index_t a_bytes() const {
    if (a_in_place()) return 0;
    const index_t rows = ceil_div(std::min(block_rows, s_.m), tile_rows()) * tile_rows();
    return padded_bytes(rows * std::min(kernels::panel_depth, s_.k) + kernels::panel_slack, sizeof(R));
  }
  static constexpr bool real_output = std::is_same_v<Out, R>;
  /// A residual may be the output, which then is still needed where sums would be stored.
  bool sums_aside() const { return !real_output || s_.residual; }
  index_t block_bytes() const {
    return a_bytes() + (sums_aside() ? padded_bytes(std::min(block_rows, s_.m) * s_.n, sizeof(R)) : 0);
  }

  /// Terms of the sum over k that are packed and multiplied before any others: whole blocks, or all. The order of all
  /// additions is the same.
  index_t part_depth() const {
    if (sums_aside() || s_.has_epilogue() || s_.slope_at) return s_.k;
    const index_t fit = packed_in_cache_bytes / (s_.n * index_t(sizeof(R)) * kernels::panel_depth);
    return std::min(s_.k, std::max<index_t>(1, fit) * kernels::panel_depth);
  }
  /// The product's terms [first, first + count), added to those before.
  GemmSpec terms(GemmSpec s, index_t first, index_t count) const {
    s.a.data = static_cast<const In*>(s.a.data) + first * (s.a.transposed ? s.a.row_stride : 1);
    s.b.data = static_cast<const In*>(s.b.data) + first * (s.b.transposed ? 1 : s.b.row_stride);
    s.k = count;
    s.accumulate = s.accumulate || first > 0;
    if (first + count < s_.k) s.row_squares = nullptr;
    return s;
  }
  /// The same product, of columns [first, first + count) alone.
  GemmSpec columns(index_t first, index_t count) const {
    GemmSpec s = s_;
    const auto shifted = [&](auto* p, index_t elements, auto tag) {
      using T = typename decltype(tag)::type;
      using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(p)>>, const T, T>;
      return p ? static_cast<decltype(p)>(static_cast<Bytes*>(p) + elements) : p;
    };
    s.n = count;
    s.b.data = shifted(s.b.data, first * (s.b.transposed ? s.b.row_stride : 1), TypeTag<In>{});
    s.bias = shifted(s.bias, first, TypeTag<In>{});
    s.out.data = shifted(s.out.data, first, TypeTag<Out>{});
    s.activation_input = shifted(s.activation_input, first, TypeTag<Out>{});
    s.slope_at = shifted(s.slope_at, first, TypeTag<Out>{});
    s.residual = shifted(s.residual, first, TypeTag<Out>{});
    return s;
  }

  void run_part() const {
    const int threads = workers_.threads;
    if (s_.batch >= threads) {
      const Scratch scratch(workers_.context, threads * (b_bytes() + block_bytes()));
      workers_.for_chunks(s_.batch, [&](int slot, index_t begin, index_t end) {
        char* mine = scratch.data() + slot * (b_bytes() + block_bytes());
        for (index_t i = begin; i < end; ++i) {
          if (i == begin || s_.b.batch_stride != 0) pack_b(i, mine, 0, column_panels());
          rows(i, 0, s_.m, mine, mine + b_bytes());
        }
      });
      return;
    }
    const Scratch scratch(workers_.context, b_bytes() + threads * block_bytes());
    for (index_t i = 0; i < s_.batch; ++i) {
      if (i == 0 || s_.b.batch_stride != 0)
        workers_.for_chunks(column_panels(),
                            [&](int, index_t begin, index_t end) { pack_b(i, scratch.data(), begin, end); });
      workers_.for_chunks(ceil_div(s_.m, tile_rows()), [&](int slot, index_t begin, index_t end) {
        rows(i, begin * tile_rows(), std::min(s_.m, end * tile_rows()), scratch.data(),
             scratch.data() + b_bytes() + slot * block_bytes());
      });
    }
  }

  /// Panels [begin, end) of op(b), block of depth by block of depth.
  void pack_b(index_t batch, char* to, index_t begin, index_t end) const {
    const In* b = static_cast<const In*>(s_.b.data) + batch * s_.b.batch_stride;
    for (index_t k = 0; k < s_.k; k += kernels::panel_depth) {
      const index_t depth = std::min(kernels::panel_depth, s_.k - k);
      run_library_rows(
          begin, end,
          kernels::PackPanels<In, R, false>{b + k * (s_.b.transposed ? 1 : s_.b.row_stride), block_of_b(to, k), s_.n, depth,
                                            s_.b.row_stride, depth * tile_columns(), !s_.b.transposed});
    }
  }
  R* block_of_b(char* packed, index_t k) const {
    return reinterpret_cast<R*>(packed) + k * column_panels() * tile_columns();
  }

  /// Rows [begin, end) of one matrix of the batch. scratch: block_bytes().
  void rows(index_t batch, index_t begin, index_t end, char* packed_b, char* scratch) const {
    const In* a = static_cast<const In*>(s_.a.data) + batch * s_.a.batch_stride;
    R* const packed_a = reinterpret_cast<R*>(scratch);
    for (index_t first = begin; first < end; first += block_rows) {
      const index_t count = std::min(block_rows, end - first);
      R* sums = reinterpret_cast<R*>(scratch + a_bytes());
      index_t stride = s_.n;
      if constexpr (real_output)
        if (!sums_aside()) sums = finish_.output(batch, first), stride = s_.out.row_stride;
      if (s_.k == 0 && !s_.accumulate)
        for (index_t r = 0; r < count; ++r) std::fill_n(sums + r * stride, s_.n, R(0));
      for (index_t k = 0; k < s_.k; k += kernels::panel_depth) {
        const index_t depth = std::min(kernels::panel_depth, s_.k - k);
        const In* x = s_.a.transposed ? a + k * s_.a.row_stride + first : a + first * s_.a.row_stride + k;
        const R* left = packed_a;
        if constexpr (std::is_same_v<In, R>)
          if (a_in_place()) left = x;
        if (!a_in_place())
          run_library_rows(0, ceil_div(count, tile_rows()),
                           kernels::PackPanels<In, R, true>{x, packed_a, count, depth, s_.a.row_stride, depth * tile_rows(),
                                                            s_.a.transposed});
        run_library_rows(
            0, column_panels(),
            kernels::PanelProduct<R>{left, block_of_b(packed_b, k), sums, count, s_.n, depth,
                                     a_in_place() ? s_.a.row_stride : depth * tile_rows(), depth * tile_columns(), stride,
                                     a_in_place(), R(s_.alpha), k > 0 || s_.accumulate});
      }
      if constexpr (std::is_same_v<R, compute_t<In>>)  // sums in double of narrower operands have no epilogue
        if (!real_output || s_.has_epilogue())
          for (index_t r = 0; r < count; ++r) finish_.finish(sums + r * stride, batch, first + r);
      if (s_.row_squares) square_rows<Out>(s_, batch, first, count);
    }
  }

  const Workers& workers_;
  const GemmSpec s_;
  Epilogue<In, Out> finish_;
};

inline void run_panels(const Workers& workers, const GemmSpec& s) {
  dispatch_stored(s.a.dtype, [&](auto tag) {
    using In = typename decltype(tag)::type;
    using R = compute_t<In>;
    if (s.out.dtype == s.a.dtype)
      PanelGemm<In, In, R>(workers, s).run();
    else if (s.out.dtype == dtype_of<R>)
      PanelGemm<In, R, R>(workers, s).run();
    else
      PanelGemm<In, double, double>(workers, s).run();
  });
}
}  // namespace dpmp::inline DPMP_ABI::detail
