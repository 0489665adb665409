// SPDX-License-Identifier: Apache-2.0
// Lines of a file as token sequences of one public length, for models whose vocabulary is not that of bytes.
#pragma once
#include <charconv>
#include <dpmp/dpmp.hpp>
#include <string>
#include <vector>

namespace examples {
using namespace dpmp;

/// One record a line: numbers of tokens with spaces between them, as any tokeniser writes them; or, where `bytes`, the
/// line's bytes and a line end, each a token. The first context + 1 of them are learnt: input t predicts token t + 1.
class TokenRecords {
 public:
  /// Throws, naming the line, for what is no number of a token of the vocabulary, and for lines without two tokens.
  TokenRecords(const std::vector<std::string>& lines, index_t vocabulary, index_t context, bool bytes) : context_(context) {
    DPMP_CHECK(!bytes || vocabulary >= 256, "expected a vocabulary of at least the 256 bytes, got ", vocabulary);
    for (const std::string& line : lines) {
      std::vector<std::int32_t>& record = records_.emplace_back();
      if (bytes) {
        for (const char c : line) record.push_back(static_cast<unsigned char>(c));
        record.push_back('\n');
        continue;
      }
      for (const char *at = line.data(), *end = at + line.size();;) {
        while (at < end && (*at == ' ' || *at == '\t')) ++at;
        if (at == end) break;
        std::int32_t token = -1;
        const auto parsed = std::from_chars(at, end, token);
        DPMP_CHECK(parsed.ec == std::errc() && token >= 0 && token < vocabulary, "expected tokens 0 .. ", vocabulary - 1,
                   " in record ", records_.size(), ", got something else");
        record.push_back(token);
        at = parsed.ptr;
      }
      DPMP_CHECK(record.size() >= 2, "expected at least two tokens in record ", records_.size(), ", got ", record.size());
    }
  }
  index_t size() const { return index_t(records_.size()); }
  /// Tokens that are predicted for record k.
  index_t predicted(index_t k) const { return std::min(index_t(records_[std::size_t(k)].size()) - 1, context_); }
  /// ids and targets [records, context]; -1 after the end.
  std::pair<Tensor, Tensor> batch(Context& ctx, std::span<const index_t> records) const {
    const Shape shape{index_t(records.size()), context_};
    std::vector<std::int32_t> ids(std::size_t(shape.numel()), 0), targets(ids.size(), -1);
    for (std::size_t i = 0; i < records.size(); ++i)
      for (index_t t = 0; t < predicted(records[i]); ++t) {
        const std::vector<std::int32_t>& record = records_[std::size_t(records[i])];
        ids[i * std::size_t(context_) + std::size_t(t)] = record[std::size_t(t)];
        targets[i * std::size_t(context_) + std::size_t(t)] = record[std::size_t(t) + 1];
      }
    return {Tensor::from(ctx, shape, ids), Tensor::from(ctx, shape, targets)};
  }

 private:
  index_t context_;
  std::vector<std::vector<std::int32_t>> records_;
};

/// Nats a token of all records, which are taken as public.
inline double nats_per_token(Context& ctx, const nn::Transformer& model, const TokenRecords& records,
                             index_t physical_batch) {
  double nats = 0, tokens = 0;
  for (index_t first = 0; first < records.size(); first += physical_batch) {
    std::vector<index_t> slots;
    for (index_t k = first; k < std::min(first + physical_batch, records.size()); ++k) slots.push_back(k);
    Tape tape(ctx, index_t(slots.size()), TapeMode::inference);
    const auto [ids, targets] = records.batch(ctx, slots);
    for (const double loss : model.losses(tape, ids, targets).value().to_doubles()) nats += loss;
    for (const index_t k : slots) tokens += double(records.predicted(k));
  }
  return nats / tokens;
}
}  // namespace examples
