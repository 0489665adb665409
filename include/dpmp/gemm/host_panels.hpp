// SPDX-License-Identifier: Apache-2.0
// Products on the host by panels of our own (kernels/panel_product.hpp): what `automatic` takes for every dtype but bf16 on
// CPUs that multiply bf16 faster than FP32. Casts are part of the packing; rows are finished while they are in cache.
#pragma once
#include <algorithm>

#include "dpmp/gemm/product.hpp"
#include "dpmp/kernels/panel_product.hpp"

namespace dpmp::inline DPMP_ABI::detail {
class PanelGemm;
/// What of a product depends on its types: operands In and outputs Out, multiplied and summed in R.
struct PanelTypes {
  index_t in_bytes, out_bytes, sum_bytes;
  bool real_input, real_output;  // In, Out is R
  index_t (*tile_rows)(int team_width);
  index_t (*tile_columns)(int team_width);
  /// Panels [begin, end) of op(b), block of depth by block of depth.
  void (*pack_b)(const PanelGemm& product, index_t batch, char* to, index_t begin, index_t end);
  /// Rows [begin, end) of one matrix of the batch. scratch: block_bytes().
  void (*rows)(const PanelGemm& product, index_t batch, index_t begin, index_t end, char* packed_b, char* scratch);
};

/// A product of a spec's types.
class PanelGemm {
 public:
  PanelGemm(const Workers& workers, const GemmSpec& spec, const PanelTypes& types)
      : workers_(workers), s_(spec), types_(types) {}

  /// Columns are done in parts whose panels take at most this many bytes.
  static constexpr index_t most_packed_bytes = index_t(32) << 20;
  /// Where sums may wait in the output, only so much is packed at a time: it stays in a core's second cache until it is
  /// multiplied. A long sum (the gradient of a weight over 4096 tokens) was 13 to 17 % faster for it.
  static constexpr index_t packed_in_cache_bytes = index_t(1) << 20;

  void run() const {
    const index_t width = tile_columns();
    const index_t depth = part_depth();
    const index_t wanted = most_packed_bytes / (std::max<index_t>(depth, 1) * types_.sum_bytes);
    const index_t part = std::max(width, wanted / width * width);
    const bool whole_rows = part >= s_.n;
    for (index_t first = 0; first < s_.n; first += part) {
      GemmSpec some = columns(first, std::min(part, s_.n - first));
      if (!whole_rows) some.row_squares = nullptr;
      index_t k = 0;
      do {
        PanelGemm(workers_, terms(some, k, std::min(depth, s_.k - k)), types_).run_part();
        k += depth;
      } while (k < s_.k);
    }
    if (!whole_rows) square_all_rows(workers_, s_);
  }

 private:
  template <class In, class Out, class R>
  friend struct PanelWork;
  /// Rows of the output that are finished together: their panels of one block of depth stay in a core's second cache.
  static constexpr index_t block_rows = 192;
  static int team_width() { return 4 << int(best_isa()); }
  index_t tile_rows() const { return types_.tile_rows(team_width()); }
  index_t tile_columns() const { return types_.tile_columns(team_width()); }
  static index_t ceil_div(index_t x, index_t y) { return (x + y - 1) / y; }
  index_t column_panels() const { return ceil_div(s_.n, tile_columns()); }
  index_t b_bytes() const {
    return padded_bytes(column_panels() * tile_columns() * s_.k + kernels::panel_slack, types_.sum_bytes);
  }
  /// Rows that need no cast and run along k are read where they are.
  bool a_in_place() const { return types_.real_input && !s_.a.transposed; }
  index_t a_bytes() const {
    if (a_in_place()) return 0;
    const index_t rows = ceil_div(std::min(block_rows, s_.m), tile_rows()) * tile_rows();
    return padded_bytes(rows * std::min(kernels::panel_depth, s_.k) + kernels::panel_slack, types_.sum_bytes);
  }
  /// A residual may be the output, which then is still needed where sums would be stored.
  bool sums_aside() const { return !types_.real_output || s_.residual; }
  index_t block_bytes() const {
    return a_bytes() + (sums_aside() ? padded_bytes(std::min(block_rows, s_.m) * s_.n, types_.sum_bytes) : 0);
  }

  /// Terms of the sum over k that are packed and multiplied before any others: whole blocks, or all. The order of all
  /// additions is the same.
  index_t part_depth() const {
    if (sums_aside() || s_.has_epilogue() || s_.slope_at) return s_.k;
    const index_t fit = packed_in_cache_bytes / (s_.n * types_.sum_bytes * kernels::panel_depth);
    return std::min(s_.k, std::max<index_t>(1, fit) * kernels::panel_depth);
  }
  /// The product's terms [first, first + count), added to those before.
  GemmSpec terms(GemmSpec s, index_t first, index_t count) const {
    s.a.data = moved(s.a.data, first * (s.a.transposed ? s.a.row_stride : 1) * types_.in_bytes);
    s.b.data = moved(s.b.data, first * (s.b.transposed ? 1 : s.b.row_stride) * types_.in_bytes);
    s.k = count;
    s.accumulate = s.accumulate || first > 0;
    if (first + count < s_.k) s.row_squares = nullptr;
    return s;
  }
  /// The same product, of columns [first, first + count) alone.
  GemmSpec columns(index_t first, index_t count) const {
    GemmSpec s = s_;
    const index_t in = first * types_.in_bytes, out = first * types_.out_bytes;
    s.n = count;
    s.b.data = moved(s.b.data, in * (s.b.transposed ? s.b.row_stride : 1));
    s.bias = moved(s.bias, in);
    s.out.data = moved(s.out.data, out);
    s.activation_input = moved(s.activation_input, out);
    s.slope_at = moved(s.slope_at, out);
    s.residual = moved(s.residual, out);
    return s;
  }
  static const void* moved(const void* p, index_t bytes) { return p ? static_cast<const char*>(p) + bytes : p; }
  static void* moved(void* p, index_t bytes) { return p ? static_cast<char*>(p) + bytes : p; }

  void run_part() const {
    const int threads = workers_.threads;
    if (s_.batch >= threads) {
      const Scratch scratch(workers_.context, threads * (b_bytes() + block_bytes()));
      workers_.for_chunks(s_.batch, [&](int slot, index_t begin, index_t end) {
        char* mine = scratch.data() + slot * (b_bytes() + block_bytes());
        for (index_t i = begin; i < end; ++i) {
          if (i == begin || s_.b.batch_stride != 0) types_.pack_b(*this, i, mine, 0, column_panels());
          types_.rows(*this, i, 0, s_.m, mine, mine + b_bytes());
        }
      });
      return;
    }
    const Scratch scratch(workers_.context, b_bytes() + threads * block_bytes());
    for (index_t i = 0; i < s_.batch; ++i) {
      if (i == 0 || s_.b.batch_stride != 0)
        workers_.for_chunks(column_panels(),
                            [&](int, index_t begin, index_t end) { types_.pack_b(*this, i, scratch.data(), begin, end); });
      workers_.for_chunks(ceil_div(s_.m, tile_rows()), [&](int slot, index_t begin, index_t end) {
        types_.rows(*this, i, begin * tile_rows(), std::min(s_.m, end * tile_rows()), scratch.data(),
                    scratch.data() + b_bytes() + slot * block_bytes());
      });
    }
  }

  const Workers& workers_;
  const GemmSpec s_;
  const PanelTypes& types_;
};

template <class In, class Out, class R>
struct PanelWork {
  static void pack_b(const PanelGemm& p, index_t batch, char* to, index_t begin, index_t end) {
    const GemmSpec& s = p.s_;
    const In* b = static_cast<const In*>(s.b.data) + batch * s.b.batch_stride;
    for (index_t k = 0; k < s.k; k += kernels::panel_depth) {
      const index_t depth = std::min(kernels::panel_depth, s.k - k);
      run_library_rows(
          begin, end,
          kernels::PackPanels<In, R, false>{b + k * (s.b.transposed ? 1 : s.b.row_stride), block_of_b(p, to, k), s.n, depth,
                                            s.b.row_stride, depth * p.tile_columns(), !s.b.transposed});
    }
  }
  static R* block_of_b(const PanelGemm& p, char* packed, index_t k) {
    return reinterpret_cast<R*>(packed) + k * p.column_panels() * p.tile_columns();
  }
  static void rows(const PanelGemm& p, index_t batch, index_t begin, index_t end, char* packed_b, char* scratch) {
    constexpr bool real_output = std::is_same_v<Out, R>;
    const GemmSpec& s = p.s_;
    const Epilogue<In, Out> finish{s};
    const In* a = static_cast<const In*>(s.a.data) + batch * s.a.batch_stride;
    R* const packed_a = reinterpret_cast<R*>(scratch);
    for (index_t first = begin; first < end; first += PanelGemm::block_rows) {
      const index_t count = std::min(PanelGemm::block_rows, end - first);
      R* sums = reinterpret_cast<R*>(scratch + p.a_bytes());
      index_t stride = s.n;
      if constexpr (real_output)
        if (!p.sums_aside()) sums = finish.output(batch, first), stride = s.out.row_stride;
      if (s.k == 0 && !s.accumulate)
        for (index_t r = 0; r < count; ++r) std::fill_n(sums + r * stride, s.n, R(0));
      for (index_t k = 0; k < s.k; k += kernels::panel_depth) {
        const index_t depth = std::min(kernels::panel_depth, s.k - k);
        const In* x = s.a.transposed ? a + k * s.a.row_stride + first : a + first * s.a.row_stride + k;
        const R* left = packed_a;
        if constexpr (std::is_same_v<In, R>)
          if (p.a_in_place()) left = x;
        if (!p.a_in_place())
          run_library_rows(0, PanelGemm::ceil_div(count, p.tile_rows()),
                           kernels::PackPanels<In, R, true>{x, packed_a, count, depth, s.a.row_stride, depth * p.tile_rows(),
                                                            s.a.transposed});
        run_library_rows(
            0, p.column_panels(),
            kernels::PanelProduct<R>{left, block_of_b(p, packed_b, k), sums, count, s.n, depth,
                                     p.a_in_place() ? s.a.row_stride : depth * p.tile_rows(), depth * p.tile_columns(),
                                     stride, p.a_in_place(), R(s.alpha), k > 0 || s.accumulate});
      }
      if constexpr (std::is_same_v<R, compute_t<In>>)  // sums in double of narrower operands have no epilogue
        if (!real_output || s.has_epilogue())
          for (index_t r = 0; r < count; ++r) finish.finish(sums + r * stride, batch, first + r);
      if (s.row_squares) square_rows<Out>(s, batch, first, count);
    }
  }
  static constexpr PanelTypes types{sizeof(In),
                                    sizeof(Out),
                                    sizeof(R),
                                    std::is_same_v<In, R>,
                                    std::is_same_v<Out, R>,
                                    kernels::panel_rows<R>,
                                    kernels::panel_columns<R>,
                                    pack_b,
                                    rows};
};

inline void run_panels(const Workers& workers, const GemmSpec& s) {
  dispatch_stored(s.a.dtype, [&](auto tag) {
    using In = typename decltype(tag)::type;
    using R = compute_t<In>;
    const PanelTypes& types = s.out.dtype == s.a.dtype     ? PanelWork<In, In, R>::types
                              : s.out.dtype == dtype_of<R> ? PanelWork<In, R, R>::types
                                                           : PanelWork<In, double, double>::types;
    PanelGemm(workers, s, types).run();
  });
}
}  // namespace dpmp::inline DPMP_ABI::detail
