// SPDX-License-Identifier: Apache-2.0
// Lines of text as byte sequences of one public length: what a byte-level model reads, how well it predicts them, and what
// it writes.
#pragma once
#include <dpmp/dpmp.hpp>
#include <dpmp/interop/held_out.hpp>
#include <numbers>
#include <string>
#include <vector>

namespace examples {
using namespace dpmp;

/// One line in twenty, by a public hash of what it says.
using interop::is_held_out;

/// Byte sequences of one public length: input = begin, b0, b1, ..; target = b0, b1, .., line end; -1 after the end.
class ByteRecords {
 public:
  static constexpr std::int32_t begin_of_record = 0;  // a byte that no record has
  ByteRecords(const std::vector<std::string>& lines, index_t context, bool held_out) : context_(context) {
    for (const std::string& line : lines)
      if (is_held_out(line) == held_out) records_.push_back(&line);
    DPMP_CHECK(!records_.empty(),
               "expected records to learn and records to hold out (one line in 20, by a hash of what it "
               "says), got none ",
               held_out ? "to hold out" : "to learn", " among ", lines.size(), " lines");
  }
  index_t size() const { return index_t(records_.size()); }
  /// Bytes of the text, line ends included, that are predicted for record k.
  index_t bytes(index_t k) const { return std::min<index_t>(index_t(records_[std::size_t(k)]->size()) + 1, context_); }

  /// What dropout knows record k by: a hash of its line under this secret.
  RecordId identity(const Key256& secret, index_t k) const { return content_id(secret, *records_[std::size_t(k)]); }
  /// ids and targets [records, context].
  std::pair<Tensor, Tensor> batch(Context& ctx, std::span<const index_t> records) const {
    const Shape shape{index_t(records.size()), context_};
    std::vector<std::int32_t> ids(records.size() * std::size_t(context_)), targets(ids.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      const std::string_view text = *records_[std::size_t(records[i])];
      std::int32_t *id = ids.data() + index_t(i) * context_, *target = targets.data() + index_t(i) * context_;
      for (index_t t = 0; t < context_; ++t) {
        const index_t length = index_t(text.size());
        target[t] = t < length ? static_cast<unsigned char>(text[std::size_t(t)]) : t == length ? '\n' : -1;
        id[t] = t == 0 ? begin_of_record : std::max<std::int32_t>(target[t - 1], 0);
      }
    }
    return {Tensor::from(ctx, shape, ids), Tensor::from(ctx, shape, targets)};
  }

 private:
  index_t context_;
  std::vector<const std::string*> records_;
};

/// Nats and bytes of the first `count` held-out records.
inline double bits_per_byte(Context& ctx, const nn::Transformer& model, const ByteRecords& records, index_t count,
                            index_t physical_batch) {
  double nats = 0, bytes = 0;
  count = std::min(count, records.size());
  for (index_t first = 0; first < count; first += physical_batch) {
    std::vector<index_t> slots;
    for (index_t k = first; k < std::min(first + physical_batch, count); ++k) slots.push_back(k);
    Tape tape(ctx, index_t(slots.size()), TapeMode::inference);
    const auto [ids, targets] = records.batch(ctx, slots);
    for (const double loss : model.losses(tape, ids, targets).value().to_doubles()) nats += loss;
    for (const index_t k : slots) bytes += double(records.bytes(k));
  }
  return nats / bytes / std::numbers::ln2;
}

/// One line drawn byte by byte from the model.
inline std::string generate(const nn::Transformer& model, std::uint64_t seed, std::uint64_t line) {
  nn::Generator generator(model, {.sampling = {.temperature = 0.7, .seed = seed, .first_sequence = line}, .stop = '\n'});
  const auto drawn = generator({{ByteRecords::begin_of_record}}, model.config().context);
  std::string text;
  for (const std::int32_t byte : drawn[0]) text += byte >= 32 && byte < 127 ? char(byte) : '?';
  return text;
}
}  // namespace examples
