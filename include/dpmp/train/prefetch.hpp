// SPDX-License-Identifier: Apache-2.0
// The data of the next physical batch, read and prepared on a thread of its own while this one is computed.
#pragma once
#include <algorithm>
#include <functional>
#include <future>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "dpmp/train/batch.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Data: what losses make tensors of, in the memory of the host.
///
///     train::Prefetch<std::vector<float>> pixels(read_pixels);  // std::vector<float> (std::span<const index_t> records)
///     trainer.step([&](const train::Batch& batch) {
///       const std::vector<float> x = pixels.take(batch); ..
///     });
///
/// A trainer draws as it does without: a batch is prepared ahead where the step that is being computed has drawn it, that is
/// the second and later physical batches of a step, and those of evaluate(). Numbers, order and errors are those of calling
/// `prepare` in the losses, if it is a function of the records.
template <class Data>
class Prefetch {
 public:
  using Prepare = std::function<Data(std::span<const index_t> records)>;
  /// prepare: runs in another thread, never in two at once; it must use no Context, as work is submitted from one thread.
  explicit Prefetch(Prepare prepare) : prepare_(std::move(prepare)) {}
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;
  /// Waits for what is being prepared; what it throws then is dropped.
  ~Prefetch() { drop(); }

  /// What prepare makes of the batch's records, and begins with those of the batch after it. Throws what prepare threw
  /// for these records. Losses are called from one thread, and so is this.
  Data take(const Batch& batch) {
    const bool is_here =
        ready_.valid() && std::equal(records_.begin(), records_.end(), batch.records.begin(), batch.records.end());
    ahead_ += is_here;
    if (!is_here) drop();  // a step that failed, or another function's batch
    Data data = is_here ? ready_.get() : prepare_(batch.records);
    begin(batch.next.records_);
    return data;
  }
  /// Takes that found their batch prepared or being prepared.
  index_t prepared_ahead() const { return ahead_; }

 private:
  void drop() {
    if (ready_.valid()) ready_.wait();
    ready_ = {};
  }
  void begin(std::span<const index_t> next) {
    if (next.empty()) return;
    records_.assign(next.begin(), next.end());
    try {
      ready_ = std::async(std::launch::async, [this] { return prepare_(records_); });
    } catch (const std::system_error&) {  // no thread: the batch is prepared when it is asked for
    }
  }
  Prepare prepare_;
  std::vector<index_t> records_;  // of ready_
  std::future<Data> ready_;
  index_t ahead_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::train
