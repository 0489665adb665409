// SPDX-License-Identifier: Apache-2.0
// Text from a transformer: prompts are continued token by token, and a token costs one pass over those before it.
#pragma once
#include "dpmp/nn/sampling.hpp"
#include "dpmp/nn/transformer.hpp"

namespace dpmp::inline DPMP_ABI::nn {
struct GeneratorOptions {
  Sampling sampling = {};
  /// A sequence ends with this token; not set: none does.
  std::optional<std::int32_t> stop = std::nullopt;
  /// Most tokens that a sequence gives to the model, at most its context; 0: the context. A sequence then has at most one
  /// more, which is drawn last.
  index_t capacity = 0;
};

/// Continues a batch of prompts of any lengths, on the model's device:
///
///     nn::Generator generator(model, {.sampling = {.temperature = 0.7, .seed = 1}, .stop = '\n'});
///     generator.start({prompt});
///     while (generator.next()) use(generator.sequences()[0].back());
///
/// What a model generates is post-processing of its weights: as private as these are, and no more.
class Generator {
 public:
  using Tokens = std::vector<std::int32_t>;
  /// The model must outlive it. Throws what Sampling::check throws, and for a capacity outside [0, context].
  explicit Generator(const Transformer& model, const GeneratorOptions& options = {});

  /// New sequences, in place of those that were. Throws unless there is one, and each has 1 .. capacity tokens in
  /// [0, vocabulary).
  void start(const std::vector<Tokens>& prompts);
  /// Draws a token for each sequence that goes on: that neither ended with `stop` nor is full. Whether there was one; false
  /// changes nothing. Throws before start(), and where a model says NaN.
  bool next();
  /// The prompts and what was drawn, `stop` included.
  std::span<const Tokens> sequences() const { return sequences_; }
  /// Whether this sequence goes on.
  bool goes_on(index_t sequence) const;

  /// start(prompts) and at most `tokens` draws: what was drawn for each, without the prompt and without `stop`.
  std::vector<Tokens> operator()(const std::vector<Tokens>& prompts, index_t tokens);

 private:
  const Transformer& model_;
  GeneratorOptions options_;
  index_t capacity_;
  std::optional<KeyValueCache> cache_;
  std::vector<Tokens> sequences_;
  std::vector<index_t> prompts_;  // their lengths
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Generator::Generator(const Transformer& model, const GeneratorOptions& options)
    : model_(model), options_(options), capacity_(options.capacity == 0 ? model.config().context : options.capacity) {
  options.sampling.check(model.config().vocabulary);
  DPMP_CHECK(capacity_ >= 1 && capacity_ <= model.config().context, "expected a capacity in [0, ", model.config().context,
             "] (0: the context), got ", options.capacity);
}

DPMP_KEPT_BODY inline void Generator::start(const std::vector<Tokens>& prompts) {
  DPMP_CHECK(!prompts.empty(), "expected at least one prompt, got none");
  for (std::size_t b = 0; b < prompts.size(); ++b) {
    const Tokens& prompt = prompts[b];
    DPMP_CHECK(!prompt.empty() && index_t(prompt.size()) <= capacity_, "expected 1 to ", capacity_, " tokens in prompt ", b,
               ", got ", prompt.size());
    for (std::size_t t = 0; t < prompt.size(); ++t)
      DPMP_CHECK(prompt[t] >= 0 && prompt[t] < model_.config().vocabulary, "expected token ids in [0, ",
                 model_.config().vocabulary, ") in prompt ", b, ", got ", prompt[t], " at position ", t);
  }
  if (cache_ && cache_->samples() == index_t(prompts.size()))
    cache_->clear();
  else
    cache_.emplace(model_.make_cache(index_t(prompts.size()), capacity_));
  sequences_.assign(prompts.begin(), prompts.end());
  prompts_.clear();
  for (const Tokens& prompt : prompts) prompts_.push_back(index_t(prompt.size()));
}

DPMP_KEPT_BODY inline bool Generator::goes_on(index_t sequence) const {
  DPMP_CHECK(sequence >= 0 && sequence < index_t(sequences_.size()), "expected a sequence in [0, ", sequences_.size(),
             "), got ", sequence);
  const Tokens& tokens = sequences_[std::size_t(sequence)];
  const bool stopped =
      options_.stop && index_t(tokens.size()) > prompts_[std::size_t(sequence)] && tokens.back() == *options_.stop;
  return !stopped && index_t(tokens.size()) <= capacity_;
}

DPMP_KEPT_BODY inline bool Generator::next() {
  DPMP_CHECK(cache_, "expected prompts to continue, got none: call start");
  const index_t samples = index_t(sequences_.size());
  // What the cache does not have yet: a whole prompt, or the token that was drawn last.
  std::vector<index_t> counts;
  for (index_t b = 0; b < samples; ++b)
    counts.push_back(goes_on(b) ? index_t(sequences_[std::size_t(b)].size()) - cache_->lengths()[std::size_t(b)] : 0);
  const index_t most = *std::max_element(counts.begin(), counts.end());
  if (most == 0) return false;
  std::vector<std::int32_t> ids(std::size_t(samples * most), 0);
  for (index_t b = 0; b < samples; ++b)
    std::copy_n(sequences_[std::size_t(b)].end() - counts[std::size_t(b)], counts[std::size_t(b)], ids.begin() + b * most);
  Context& ctx = model_.parameters().ctx();
  Tape tape(ctx, samples, TapeMode::inference);
  const std::vector<double> logits =
      model_.next(tape, Tensor::from(ctx, {samples, most}, ids), *cache_, counts).value().to_doubles();
  const std::size_t vocabulary = std::size_t(model_.config().vocabulary);
  for (std::size_t b = 0; b < sequences_.size(); ++b) {
    if (counts[b] == 0) continue;
    sequences_[b].push_back(sample(std::span(logits).subspan(b * vocabulary, vocabulary), options_.sampling,
                                   options_.sampling.first_sequence + b, sequences_[b].size()));
  }
  return true;
}

DPMP_KEPT_BODY inline std::vector<Generator::Tokens> Generator::operator()(const std::vector<Tokens>& prompts,
                                                                           index_t tokens) {
  DPMP_CHECK(tokens >= 0, "expected a number of tokens >= 0, got ", tokens);
  start(prompts);
  for (index_t k = 0; k < tokens && next(); ++k) {
  }
  std::vector<Tokens> drawn;
  for (std::size_t b = 0; b < sequences_.size(); ++b) {
    drawn.emplace_back(sequences_[b].begin() + prompts_[b], sequences_[b].end());
    if (options_.stop && !drawn.back().empty() && drawn.back().back() == *options_.stop) drawn.back().pop_back();
  }
  return drawn;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
