// SPDX-License-Identifier: Apache-2.0
// An audit in one run with canaries that are records like any other: made up, and easy to recognise (a wrong label, an odd
// text). The adversary sees the weights at the end alone: it guesses that a canary was in where its loss is small (Steinke,
// Nasr, Jagielski 2023, arXiv 2305.08846, section 6.2). Such bounds are far below those of train/gradient_canaries.hpp, and
// what they show is what somebody could do who was given the model.
#pragma once
#include "dpmp/dp/claimed_trade_off.hpp"
#include "dpmp/train/batch.hpp"
#include "dpmp/train/canary_coins.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Minus the loss of each of `canaries` canaries: the scores of dp::audit_one_run. losses: of a batch whose records are
/// numbers of canaries, 0 .. canaries - 1, as the model is now; they may start from the losses before training, which the
/// adversary knows too (before; empty: not).
std::vector<double> loss_scores(Context& ctx, Losses losses, index_t canaries, index_t physical_batch,
                                std::span<const double> before = {});
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline std::vector<double> loss_scores(Context& ctx, Losses losses, index_t canaries, index_t physical_batch,
                                                      std::span<const double> before) {
  DPMP_CHECK(canaries >= 1 && physical_batch >= 1, "expected canaries and slots, got ", canaries, " and ", physical_batch);
  DPMP_CHECK(before.empty() || index_t(before.size()) == canaries, "expected an earlier score of each of ", canaries,
             " canaries, got ", before.size());
  std::vector<double> scores;
  for (index_t first = 0; first < canaries; first += physical_batch) {
    std::vector<index_t> some;
    for (index_t k = first; k < std::min(canaries, first + physical_batch); ++k) some.push_back(k);
    Tape tape(ctx, index_t(some.size()), TapeMode::inference);
    for (const double loss : losses({tape, some, 0}).value().to_doubles()) scores.push_back(-loss);
  }
  for (std::size_t k = 0; k < before.size(); ++k) scores[k] -= before[k];
  return scores;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
