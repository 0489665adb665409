// SPDX-License-Identifier: Apache-2.0
// Records of numbers on the host, and an MLP on any device: one token a sample.
#pragma once
#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "dpmp/nn/dropout.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/train/batch.hpp"
#include "support/tensors.hpp"

namespace test {
/// Rows of normal numbers, one a record.
struct DeviceRows {
  DeviceRows(dpmp::index_t record_count, dpmp::index_t width_of_each) : records(record_count), width(width_of_each) {
    Rng rng(seed(), 5500 + std::uint64_t(width));
    for (dpmp::index_t k = 0; k < records * width; ++k) values.push_back(rng.normal());
  }
  /// The rows of these slots.
  std::vector<double> of(std::span<const dpmp::index_t> slots) const {
    std::vector<double> x;
    for (const dpmp::index_t slot : slots) {
      const auto row = values.begin() + slot * width;
      x.insert(x.end(), row, row + width);
    }
    return x;
  }
  /// Record k is of class k modulo their number.
  static std::vector<std::int32_t> labels(std::span<const dpmp::index_t> slots, int classes) {
    std::vector<std::int32_t> of_slots;
    for (const dpmp::index_t slot : slots) of_slots.push_back(std::int32_t(slot % classes));
    return of_slots;
  }
  dpmp::index_t records, width;
  std::vector<double> values;
};

struct MlpSizes {
  dpmp::index_t records = 8, inputs = 24, hidden = 40;
  int classes = 10;
  double dropout = 0;
};
/// Two of the same sizes, on whatever devices, hold the same weights and records.
struct DeviceMlp {
  DeviceMlp(dpmp::Context& context, dpmp::DType dtype, const MlpSizes& of = {})
      : ctx(context),
        sizes(of),
        parameters(context, dtype, seed()),
        first(parameters / "first", of.inputs, of.hidden),
        second(parameters / "second", of.hidden, of.classes),
        rows(of.records, of.inputs) {
    for (dpmp::index_t k = 0; k < of.records; ++k) names.push_back(dpmp::stable_id({}, std::uint64_t(k)));
  }
  auto losses() const {
    return [this](const dpmp::train::Batch& batch) {
      const dpmp::index_t samples = dpmp::index_t(batch.records.size());
      dpmp::Variable x = first(
          batch.tape.input(dpmp::Tensor::from(ctx, {samples, sizes.inputs}, parameters.dtype(), rows.of(batch.records))));
      batch.tape.key_randomness({{}, 0, dpmp::train::identities(ctx, batch.records, names)});
      x = dpmp::nn::Dropout(sizes.dropout, 0)(gelu(x));
      return cross_entropy(second(x), dpmp::Tensor::from(ctx, {samples}, rows.labels(batch.records, sizes.classes)));
    };
  }
  dpmp::Context& ctx;
  MlpSizes sizes;
  dpmp::nn::Parameters parameters;
  dpmp::nn::Linear first, second;
  DeviceRows rows;
  std::vector<dpmp::RecordId> names;
};
}  // namespace test
