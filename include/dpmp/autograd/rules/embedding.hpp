// SPDX-License-Identifier: Apache-2.0
// embedding: rows of a table by token id; the table's use is an outer-product site with one-hot rows, never built.
// position_embedding: adds row t of a table to token t of every sample; its per-sample gradient is the output gradient
// itself.
#pragma once
#include <optional>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// ids i32 [B, T] -> [B, T, width] from a table [vocabulary, width]. An id equal to
/// padding gives a zero row and no gradient. Rows of ids outside the vocabulary are NaN: that sample alone is not finite,
/// and private training leaves it out. Whether there is one is private, so nothing is thrown; only a tape of open records
/// (RecordsAre) refuses such ids, on the CPU.
Variable embedding(Tape& tape, const Tensor& ids, Parameter& table, std::optional<std::int32_t> padding = std::nullopt);
/// x [B, T, width] + table [at least T, width], broadcast over the samples.
Variable position_embedding(const Variable& x, Parameter& table);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/open_records.hpp"
#include "dpmp/kernels/embedding.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Embedding {
  static constexpr std::string_view name = "embedding";
  Tensor ids;  // [B, T]; padding is -1
  Parameter* table;
  std::vector<Parameter*> parameters() const { return {table}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.emit(ParameterSite::outer_product(*table, gradient, ids));
  }
};

struct PositionEmbedding {
  static constexpr std::string_view name = "position_embedding";
  GradientSlot x;
  Parameter* table;
  std::vector<Parameter*> parameters() const { return {table}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    // Row t is used once by each sample: the stored output gradient is the per-sample gradient of the table's first T rows.
    pass.emit(ParameterSite::vector(*table, gradient));
    pass.accumulate(x, gradient);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable embedding(Tape& tape, const Tensor& ids, Parameter& table,
                                         std::optional<std::int32_t> padding) {
  DPMP_CHECK(ids.dtype() == DType::i32 && ids.shape().rank() == 2, "embedding: expected ids i32 [B, T], got ", ids.dtype(),
             " ", ids.shape());
  DPMP_CHECK(table.shape().rank() == 2, "embedding: expected a table [vocabulary, width], got ", table.name(), " ",
             table.shape());
  check_device("embedding: the ids", ids, tape.ctx());
  check_device("embedding: the table", table.value(), tape.ctx());
  const index_t vocabulary = table.shape()[0], width = table.shape()[1], rows = ids.numel();
  const Tensor kept = Tensor::empty(tape.ctx(), ids.shape(), DType::i32);
  rules::check_open_ids(tape, ids, [&](index_t r, std::int32_t id) {
    DPMP_CHECK((padding && id == *padding) || (id >= 0 && id < vocabulary), "embedding: expected token ids in [0, ",
               vocabulary, ") for ", table.name(), ", got ", id, " at sample ", r / ids.shape()[1], ", position ",
               r % ids.shape()[1]);
  });
  const Tensor y = Tensor::empty(tape.ctx(), {ids.shape()[0], ids.shape()[1], width}, table.dtype());
  dpmp::detail::map_rows<kernels::EmbeddingForward>(tape.ctx(), table.dtype(), rows, width, ids, table.value(), y, kept,
                                                    vocabulary, width, padding.has_value(), padding.value_or(0));
  return tape.record(y, table.trainable(), rules::Embedding{kept, &table});
}

DPMP_KEPT_BODY inline Variable position_embedding(const Variable& x, Parameter& table) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() == 3 && table.shape().rank() == 2 && table.shape()[1] == x.shape()[2] &&
                 table.shape()[0] >= x.shape()[1],
             "position_embedding: expected x [B, T, width] and a table [at least T, width], got ", x.shape(), " and ",
             table.name(), " ", table.shape());
  DPMP_CHECK(table.dtype() == x.dtype(), "position_embedding: expected ", table.name(), " in ", x.dtype(), ", got ",
             table.dtype());
  check_device("position_embedding: the table", table.value(), tape.ctx());
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  const index_t per_sample = x.shape()[1] * x.shape()[2];
  dpmp::detail::map_rows<kernels::AddBroadcast>(tape.ctx(), x.dtype(), x.shape()[0], per_sample, x.value(), table.value(), y,
                                                per_sample);
  return tape.record(y, tape.needs_gradient(x) || table.trainable(), rules::PositionEmbedding{x.slot(), &table});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
