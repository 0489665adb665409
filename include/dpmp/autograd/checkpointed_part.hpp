// SPDX-License-Identifier: Apache-2.0
// What a tape keeps of a part of the forward pass whose steps it forgot (checkpointing.hpp).
#pragma once
#include <algorithm>
#include <functional>
#include <string_view>
#include <vector>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/autograd/recorded_value.hpp"

namespace dpmp::inline DPMP_ABI {
/// What a model keeps of its blocks for the backward pass. none: all that the rules save. block: a block's input; the rest
/// is computed again, at the price of one more forward pass without the last product of each block. selective: also the
/// results of products with parameters, which are dear (Korthikanti et al. 2022, arXiv 2205.05198); norms, activations and
/// attention are computed again. Changes time and memory alone, no bit of what is trained.
enum class Checkpointing : std::uint8_t { none, selective, block };
constexpr std::string_view name_of(Checkpointing how) {
  return how == Checkpointing::none ? "none" : how == Checkpointing::selective ? "selective" : "block";
}

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

/// What each walk of a tape computes again, of all samples: public facts, which have a price in per_sample/cost.hpp.
struct RecomputedWork {
  index_t parts = 0;
  /// Of the results of operations.
  index_t bytes = 0;
  /// Of products with parameters, for the rows of the part's first value, where their results are not kept (what a part ends
  /// with is not computed again), and of self-attention, as without a mask.
  double multiply_adds = 0;
  /// recorded: all values of the tape.
  void add(const CheckpointedPart& part, const std::vector<RecordedValue>& recorded);
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline void RecomputedWork::add(const CheckpointedPart& part, const std::vector<RecordedValue>& recorded) {
  ++parts;
  for (index_t slot = part.begin; slot < part.end; ++slot) {
    const RecordedValue& value = recorded[std::size_t(slot)];
    const bool kept =
        std::any_of(part.products.begin(), part.products.end(), [&](const auto& p) { return p.result && p.slot == slot; });
    if (!kept) bytes += value.shape.numel() * size_of(value.dtype);
    if (value.name == "attention" && value.shape.rank() >= 2)
      multiply_adds += 2 * double(value.shape.numel()) * double(value.shape[1]);
  }
  if (part.keeps_products || part.begin == part.end) return;
  const Shape& first = recorded[std::size_t(part.begin)].shape;
  const double rows = double(first.numel(0, std::max(1, first.rank() - 1)));
  double last = 0;
  for (const Parameter* p : part.parameters) {
    if (!p || p->shape().rank() != 2) continue;
    last = rows * double(p->shape().numel());
    multiply_adds += last;
  }
  multiply_adds -= last;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
