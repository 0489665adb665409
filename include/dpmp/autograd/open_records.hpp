// SPDX-License-Identifier: Apache-2.0
// Token ids and targets of open records, which may be looked at: on both devices a bad one is an error that names it.
#pragma once
#include <vector>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI::rules {
/// Calls check(position, value) for every element of an i32 tensor on a tape of open records (RecordsAre::open), and not at
/// all on another tape. On a GPU that waits for the device; while a graph is captured nothing is looked at, because its
/// replays are not.
template <class Check>
void check_open_ids(const Tape& tape, const Tensor& ids, Check&& check) {
  if (tape.records() != RecordsAre::open || tape.ctx().backend().capturing()) return;
  std::vector<std::int32_t> copied(tape.ctx().on_cuda() ? std::size_t(ids.numel()) : 0);
  if (tape.ctx().on_cuda()) ids.copy_to_host(copied.data());
  const std::int32_t* const values = tape.ctx().on_cuda() ? copied.data() : ids.data<std::int32_t>();
  for (index_t k = 0; k < ids.numel(); ++k) check(k, values[k]);
}
}  // namespace dpmp::inline DPMP_ABI::rules
