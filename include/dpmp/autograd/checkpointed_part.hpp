// SPDX-License-Identifier: Apache-2.0
// What a tape keeps of a part of the forward pass whose steps it forgot (checkpointing.hpp).
#pragma once
#include <functional>
#include <vector>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI {
struct CheckpointedPart {
  /// The result of a matrix product, kept for the time when the part is recorded again.
  struct Product {
    Tensor value;
    index_t slot;  // of the value that was recorded next
    bool result;   // whether it is that value
  };
  explicit CheckpointedPart(bool with_products) : keeps_products(with_products) {}

  bool keeps_products;
  /// Records the part; holds its inputs.
  std::function<void()> record = {};
  /// Slots of its values: begin .. end - 1.
  index_t begin = 0, end = 0;
  /// All that its rules name as parameters(), one after the other.
  std::vector<Parameter*> parameters = {};
  /// In the order in which they were computed.
  std::vector<Product> products = {};
};
}  // namespace dpmp::inline DPMP_ABI
