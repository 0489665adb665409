// SPDX-License-Identifier: Apache-2.0
// Pictures of clothes with their classes, as Fashion-MNIST has them (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747).
#pragma once
#include <dpmp/dpmp.hpp>
#include <vector>

namespace examples {
using namespace dpmp;

struct FashionMnist {
  static constexpr index_t side = 28, classes = 10;
  /// [records, side, side].
  std::vector<std::uint8_t> pixels;
  /// [records], each in [0, classes).
  std::vector<std::int32_t> labels;
  index_t size() const { return index_t(labels.size()); }
};
}  // namespace examples
