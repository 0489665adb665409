// SPDX-License-Identifier: Apache-2.0
// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): a part of the forward pass keeps its inputs alone, and is
// computed again when the backward pass comes to it. It gets the places on the tape that it had, so that the gradients of
// its values are added in the same order and rounded at the same places: losses, gradients, norms and sums have the bits
// that they have without.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// f(args...), which records on this tape. Of the steps that it records only f and the args are kept; f is called once more
/// in each walk, with the same args. `selective` keeps the results of linear layers in addition; `none` and a tape for
/// inference just call f. f records the same operations of the same shapes and the same parameters every time, or the walk
/// throws; it must not read the value of the last one that it records, which is not always computed again. What f captures
/// by reference has to live until the tape was walked. Parts may be nested; each decides for what is directly in it. A tape
/// that was told what to do (Tape::set_checkpointing) does that instead.
template <class F, class... Args>
auto checkpointed(Checkpointing how, Tape& tape, F f, Args... args) {
  const Checkpointing chosen = tape.checkpointing(how);
  if (chosen == Checkpointing::none) return f(args...);
  return tape.record_part([f = std::move(f), ... args = std::move(args)] { return f(args...); },
                          chosen == Checkpointing::selective);
}
}  // namespace dpmp::inline DPMP_ABI
