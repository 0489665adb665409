// SPDX-License-Identifier: Apache-2.0
// One-hot rows: the per-sample gradient of a table has one row per distinct id of the sample, the sum of the input rows with
// that id. O(T d + T log T), no one-hot matrix, no T x T comparison.
#pragma once
#include <algorithm>
#include <numeric>

#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample::detail {
/// sum [width] += row [width], in double.
template <class T>
void add_row_in_double(const void* row, double* sum, index_t width) {
  run_library_rows(0, 1, kernels::AddRowInDouble<T>{static_cast<const T*>(row), sum, width});
}

/// The segment sums of one sample after another, in double, in the memory of one thread; `width` columns of the inputs,
/// which have this dtype.
class Segments {
 public:
  Segments(Context& ctx, DType dtype, index_t max_rows, index_t width)
      : width_(width),
        element_bytes_(size_of(dtype)),
        add_row_(dispatch_real(dtype, [](auto tag) { return add_row_in_double<typename decltype(tag)::type>; })),
        sums_(ctx.allocate(max_rows * width * 8)),
        squares_(ctx.allocate(max_rows * 8)) {
    order_.reserve(std::size_t(max_rows));
    ids_.reserve(std::size_t(max_rows));
  }
  /// Sums the one-hot sites' input rows, columns [first_column, first_column + width), of equal id. Padding rows (id < 0)
  /// form a segment of their own at the front that is left out by select.
  void gather(const SiteList& sites, index_t sample, index_t first_column = 0) {
    order_.clear();
    ids_.clear();
    for (const ParameterSite& site : sites) {
      if (!site.one_hot()) continue;
      const index_t tokens = site.b.shape()[1], stride = site.a.shape().back();
      for (index_t t = 0; t < tokens; ++t)
        order_.push_back(
            {site.b.data<std::int32_t>()[sample * tokens + t], index_t(order_.size()),
             static_cast<const char*>(site.a.raw()) + ((sample * tokens + t) * stride + first_column) * element_bytes_});
    }
    // The order among equal ids is the order of the tokens, whatever the other tokens are.
    std::sort(order_.begin(), order_.end(),
              [](const Row& x, const Row& y) { return x.id != y.id ? x.id < y.id : x.place < y.place; });
    double* sum = data();
    for (const Row& row : order_) {
      if (ids_.empty() || ids_.back() != row.id) {
        ids_.push_back(row.id);
        sum = data() + (index_t(ids_.size()) - 1) * width_;
        std::fill(sum, sum + width_, 0.0);
      }
      add_row_(row.data, sum, width_);
    }
  }
  double squared_norm() const {
    const index_t rows = index_t(ids_.size());
    run_library_rows(0, rows, kernels::SquaredRows<double>{data(), static_cast<double*>(squares_.data()), width_, width_});
    double squared = 0;
    for (index_t r = 0; r < rows; ++r) squared += ids_[std::size_t(r)] < 0 ? 0.0 : static_cast<double*>(squares_.data())[r];
    return squared;
  }
  /// table[id, :] += factor * segment; rows of the table are `stride` apart.
  void add_to(double* table, index_t stride, float factor) const {
    for (std::size_t r = 0; r < ids_.size(); ++r)
      if (ids_[r] >= 0)
        run_library_rows(0, 1,
                         kernels::WeightedAdd<double>{data() + index_t(r) * width_, table + ids_[r] * stride, width_, width_,
                                                      stride, double(factor)});
  }
  /// tile[id - first, :] += segment, rounded once, for the ids in [first, first + rows).
  template <class R>
  void add_to_tile(R* tile, index_t first, index_t rows) const {
    for (std::size_t r = 0; r < ids_.size(); ++r) {
      if (ids_[r] < first || ids_[r] >= first + rows) continue;
      R* to = tile + (ids_[r] - first) * width_;
      const double* from = data() + index_t(r) * width_;
      for (index_t j = 0; j < width_; ++j) to[j] += R(from[j]);
    }
  }

 private:
  struct Row {
    std::int32_t id;
    index_t place;
    const void* data;
  };
  double* data() const { return static_cast<double*>(sums_.data()); }
  index_t width_, element_bytes_;
  void (*add_row_)(const void* row, double* sum, index_t width);
  Buffer sums_, squares_;
  std::vector<Row> order_;
  std::vector<std::int32_t> ids_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample::detail
