// SPDX-License-Identifier: Apache-2.0
// The identities of a physical batch's records on the device: what randomness inside of a record is keyed by.
#pragma once
#include <algorithm>

#include "dpmp/core/record_id.hpp"
#include "dpmp/core/secret_key.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// One identity a slot. It can be made of RecordIds only, so no slot or index is taken for an identity by mistake.
class SampleIdentities {
 public:
  SampleIdentities(Context& ctx, std::span<const RecordId> records);
  /// i32 [B, 2]: the low and the high half of each identity.
  const Tensor& values() const { return values_; }
  /// Whether one of them is a record's place in the data set.
  bool by_place() const { return by_place_; }

 private:
  Tensor values_;
  bool by_place_ = false;
};

/// What randomness inside of a record (dropout) is keyed by in one pass, in addition to its place in the model.
struct SampleRandomness {
  /// dp::StreamKeys::key(dp::Stream::dropout) of the run.
  SecretKey secret;
  /// 0 .. 2^40 - 1.
  index_t step;
  /// One a sample.
  SampleIdentities records;
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline SampleIdentities::SampleIdentities(Context& ctx, std::span<const RecordId> records) {
  std::vector<std::int32_t> halves;
  for (const RecordId& r : records) {
    halves.push_back(std::int32_t(std::uint32_t(r.value())));
    halves.push_back(std::int32_t(std::uint32_t(r.value() >> 32)));
    by_place_ = by_place_ || r.kind() == RecordId::Kind::place;
  }
  values_ = Tensor::from(ctx, {index_t(records.size()), 2}, halves);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
