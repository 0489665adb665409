// SPDX-License-Identifier: Apache-2.0
// Dropout as a private training program uses it: the one place of the audit that knows how masks are keyed.
#pragma once
#include <dpmp/autograd/rules/dropout.hpp>
#include <dpmp/dp/streams.hpp>

#include <span>
#include <vector>

namespace audit {
using namespace dpmp;

/// The masks of the first step of a run: as a trainer keys them, for keys that an adversary may guess, too.
struct RunDropout {
  dp::StreamKeys keys;  // of the trainer

  /// batch: indices into the data set. records: a name of each record of the data set that stays when another is removed.
  Variable operator()(const Variable& x, double rate, std::span<const index_t> batch,
                      const std::vector<index_t>& records) const {
    const Key256 secret = keys.key(dp::Stream::record_identity);
    std::vector<RecordId> ids;
    for (const index_t i : batch) ids.push_back(stable_id(secret, std::uint64_t(records[std::size_t(i)])));
    return dropout(x, rate, {.secret = keys.key(dp::Stream::dropout), .step = 0, .layer = 1},
                   SampleIdentities(x.tape().ctx(), ids));
  }
};
}  // namespace audit
