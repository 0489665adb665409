// SPDX-License-Identifier: Apache-2.0
// A team of threads with a fixed split: which thread does what depends only on the amount of work and the number of threads,
// so results are bitwise repeatable. Two back ends behind one interface: OpenMP (shared with oneDNN, so cores are not
// oversubscribed) and std::thread (no OpenMP found, and under ThreadSanitizer, which misreads libgomp).
#pragma once
#include <algorithm>
#include <exception>
#include <mutex>

#include "dpmp/core/error.hpp"
#include "dpmp/core/function_ref.hpp"

#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
#include <omp.h>
#else
#include <condition_variable>
#include <thread>
#include <vector>
#endif

namespace dpmp::inline DPMP_ABI {
/// Work of about 10 us on one core. The caller does less than that alone: to wake and join other threads would eat the gain.
namespace worth_a_fork {
inline constexpr index_t elements = 16384;                  // read or written once
inline constexpr index_t noised = 4096;                     // elements, each with a normal number drawn for it
inline constexpr index_t multiply_adds = index_t(1) << 19;  // of a product in FP32
}  // namespace worth_a_fork

/// Runs one callable on a fixed number of logical threads. Inside a running team (nested use) the logical threads run one
/// after the other on the calling thread, with the same split, hence the same result.
class ThreadTeam {
 public:
  /// threads: 0 means one per available core. Throws when negative.
  explicit ThreadTeam(int threads = 0) : threads_(threads == 0 ? available() : threads) {
    DPMP_CHECK(threads >= 0, "expected a number of threads >= 0 (0: all cores), got ", threads);
    start();
  }
  ~ThreadTeam() { stop(); }
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return threads_; }
  /// Whether the caller itself runs inside a team.
  static bool inside() { return inside_flag(); }

  /// Calls f(t) for every logical thread t in [0, threads). The first exception is rethrown when all have finished.
  void run(FunctionRef<void(int)> f) {
    if (threads_ == 1 || inside()) {
      for (int t = 0; t < threads_; ++t) f(t);
      return;
    }
    std::exception_ptr first;
    std::mutex guard;
    fork([&](int t) {
      inside_flag() = true;
      try {
        f(t);
      } catch (...) {
        const std::lock_guard lock(guard);
        if (!first) first = std::current_exception();
      }
      inside_flag() = false;
    });
    if (first) std::rethrow_exception(first);
  }

  /// Calls f(begin, end) on contiguous chunks of [0, n), one a logical thread, the first n % threads of them one longer.
  /// `serial` runs the same chunks on the caller: for work too small to be worth a fork.
  void parallel_for(index_t n, FunctionRef<void(index_t, index_t)> f, bool serial = false) {
    const auto chunk = [&](int t) {
      const index_t share = n / threads_, extra = n % threads_;
      const index_t begin = t * share + std::min<index_t>(t, extra), end = begin + share + (t < extra ? 1 : 0);
      if (begin < end) f(begin, end);
    };
    if (serial)
      for (int t = 0; t < threads_; ++t) chunk(t);
    else
      run(chunk);
  }

 private:
  static bool& inside_flag() {
    static thread_local bool inside = false;
    return inside;
  }
  int threads_;

#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
  static int available() { return omp_get_num_procs(); }
  void start() {}
  void stop() {}
  void fork(FunctionRef<void(int)> body) {
#pragma omp parallel num_threads(threads_)
    {
      // Libraries called from here (oneDNN, Eigen) must not open a team of their own.
      omp_set_num_threads(1);
      // OpenMP may grant fewer threads than asked for; the logical threads are all run nevertheless.
      for (int t = omp_get_thread_num(); t < threads_; t += omp_get_num_threads()) body(t);
    }
  }
#else
  static int available() { return int(std::max(1u, std::thread::hardware_concurrency())); }
  void start() {
    for (int t = 1; t < threads_; ++t) workers_.emplace_back([this, t] { work(t); });
  }
  void stop() {
    {
      const std::lock_guard lock(guard_);
      quit_ = true;
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
  }
  void fork(FunctionRef<void(int)> body) {
    const std::lock_guard one_caller(callers_);
    {
      const std::lock_guard lock(guard_);
      body_ = &body;
      busy_ = threads_ - 1;
      ++round_;
    }
    wake_.notify_all();
    body(0);
    std::unique_lock lock(guard_);
    done_.wait(lock, [&] { return busy_ == 0; });
  }
  void work(int t) {
    for (index_t seen = 0;;) {
      std::unique_lock lock(guard_);
      wake_.wait(lock, [&] { return quit_ || round_ != seen; });
      if (quit_) return;
      seen = round_;
      const auto* body = body_;
      lock.unlock();
      (*body)(t);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }
  std::mutex callers_, guard_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const FunctionRef<void(int)>* body_ = nullptr;
  int busy_ = 0;
  index_t round_ = 0;
  bool quit_ = false;
#endif
};
}  // namespace dpmp::inline DPMP_ABI
