// SPDX-License-Identifier: Apache-2.0
// An embedding that is the sum of several tables, as BERT's: tokens, positions, types of tokens.
#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "dpmp/nn/embedding.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// The sum over tables of the row that a token's id in that table says, and of row t of a table of positions for token t.
/// Each table is a parameter of its own, `<name>.weight`, with a per-sample norm and certificate like every other.
class SummedEmbedding {
 public:
  struct Table {
    std::string name;
    /// Ids 0 .. rows - 1.
    index_t rows = 0;
    Init weight = init::fan_in_normal();
  };
  struct Options {
    /// In the order that ids are given in.
    std::vector<Table> tables;
    /// Longest sequence: rows of the table `positions.weight`, which is made last; 0: none.
    index_t positions = 0;
    Init position_weight = init::normal(0.02);
  };
  /// Throws without a table, and on sizes that no table has.
  SummedEmbedding(const Scope& scope, index_t width, const Options& options);
  /// ids: i32 [B, T] for each table -> [B, T, width] in the scope's dtype, added up in the order of the tables, rounded
  /// after each. T is at most `positions`. Ids that a table does not have are treated as dpmp::embedding does.
  Variable operator()(Tape& tape, std::span<const Tensor> ids) const;
  Variable operator()(Tape& tape, std::initializer_list<Tensor> ids) const {
    return (*this)(tape, std::span(ids.begin(), ids.size()));
  }
  /// [rows, width]; the same storage may be the weight of an output layer.
  Parameter& table(index_t k) const;

 private:
  DType dtype_;
  std::vector<Embedding> tables_;
  Parameter* positions_ = nullptr;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"

namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline SummedEmbedding::SummedEmbedding(const Scope& scope, index_t width, const Options& options)
    : dtype_(scope.dtype()) {
  DPMP_CHECK(!options.tables.empty(), scope, ": expected at least one table to embed with, got none");
  DPMP_CHECK(width >= 1 && options.positions >= 0, scope, ": expected a width >= 1 and positions >= 0, got ", width, " and ",
             options.positions);
  for (const Table& table : options.tables) {
    DPMP_CHECK(table.rows >= 1, scope / table.name, ": expected a table of at least one row, got ", table.rows);
    tables_.emplace_back(scope / table.name, table.rows, width, Embedding::Options{.weight = table.weight});
  }
  if (options.positions > 0)
    positions_ = &(scope / "positions").add("weight", {options.positions, width}, options.position_weight);
}

DPMP_KEPT_BODY inline Variable SummedEmbedding::operator()(Tape& tape, std::span<const Tensor> ids) const {
  DPMP_CHECK(ids.size() == tables_.size(), "expected ids for each of ", tables_.size(), " tables, got ", ids.size());
  Variable x = cast(tables_[0](tape, ids[0]), dtype_);
  for (std::size_t k = 1; k < tables_.size(); ++k) {
    check_shape("the ids of a table", ids[k], ids[0].shape());
    x = add(x, cast(tables_[k](tape, ids[k]), dtype_));
  }
  return positions_ ? cast(position_embedding(cast(x, positions_->dtype()), *positions_), dtype_) : x;
}

DPMP_KEPT_BODY inline Parameter& SummedEmbedding::table(index_t k) const {
  DPMP_CHECK(k >= 0 && k < index_t(tables_.size()), "expected a table in [0, ", tables_.size(), "), got ", k);
  return tables_[std::size_t(k)].table();
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
