// SPDX-License-Identifier: Apache-2.0
// A team of threads with a fixed split: which thread does what depends only on the amount of work and the number of threads,
// so results are bitwise repeatable. Two back ends behind one interface: OpenMP (shared with oneDNN, so cores are not
// oversubscribed) and std::thread (no OpenMP found, and under ThreadSanitizer, which misreads libgomp).
#pragma once
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/core/function_ref.hpp"
#include "dpmp/runtime/cpu_count.hpp"

#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
#include <omp.h>
#include <pthread.h>

#include <cstring>
#else
#include <condition_variable>
#include <thread>
#endif

namespace dpmp::inline DPMP_ABI {
/// Work of about 10 us on one core. The caller does less than that alone: to wake and join other threads would eat the gain.
namespace worth_a_fork {
inline constexpr index_t elements = 16384;                  // read or written once
inline constexpr index_t noised = 4096;                     // elements, each with a normal number drawn for it
inline constexpr index_t multiply_adds = index_t(1) << 19;  // of a product in FP32
}  // namespace worth_a_fork

namespace detail {
/// Whether the calling thread opened a team of OpenMP's before fork() made this process: the child has the thread and not
/// the team, for which it would wait without end. opens: the caller is about to open one.
inline bool openmp_team_is_lost(bool opens) {
  static thread_local pid_t owner = 0;
  if (owner == 0 && opens) owner = getpid();
  return owner != 0 && owner != getpid();
}
}  // namespace detail

/// Runs one callable on a fixed number of logical threads. Inside a running team (nested use), and in a child that fork()
/// made of a process whose team had started, the logical threads run one after the other on the calling thread, with the
/// same split, hence the same result.
class ThreadTeam {
 public:
  /// threads: 0 means default_threads(), as OMP_NUM_THREADS, the affinity and the container have it. Throws when negative,
  /// and when the system does not start so many.
  explicit ThreadTeam(int threads = 0) : threads_(threads == 0 ? default_threads() : threads) {
    DPMP_CHECK(threads >= 0, "expected a number of threads >= 0 (0: all cores), got ", threads);
    start();
  }
  ~ThreadTeam() { stop(); }
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return threads_; }
  /// Whether the caller itself runs inside a team.
  static bool inside() { return inside_flag(); }

  /// Calls f(t) for every logical thread t in [0, threads). The first exception is rethrown when all have finished. Throws
  /// when the system does not start the threads.
  void run(FunctionRef<void(int)> f);

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
  static bool is_lost() { return detail::openmp_team_is_lost(true); }
  void start() { require(threads_ - 1); }
  void stop() {}
  /// OpenMP ends the process where it cannot start a thread: so many threads are started and ended first.
  static void require(int wanted);
  void fork(FunctionRef<void(int)> body);
#else
  bool is_lost() const { return getpid() != owner_; }
  void start();
  void stop();
  void fork(FunctionRef<void(int)> body);
  void work(int t);
  pid_t owner_ = getpid();
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

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline void ThreadTeam::run(FunctionRef<void(int)> f) {
  if (threads_ == 1 || inside() || is_lost()) {
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

#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
DPMP_KEPT_BODY inline void ThreadTeam::require(int wanted) {
  std::vector<pthread_t> started;
  started.reserve(std::size_t(wanted));
  std::mutex gate;
  gate.lock();
  int code = 0;
  while (int(started.size()) < wanted) {
    pthread_t thread;
    code = pthread_create(
        &thread, nullptr,
        [](void* at) -> void* {
          const std::lock_guard wait(*static_cast<std::mutex*>(at));
          return nullptr;
        },
        &gate);
    if (code != 0) break;
    started.push_back(thread);
  }
  gate.unlock();
  for (const pthread_t thread : started) pthread_join(thread, nullptr);
  DPMP_CHECK(code == 0, "expected ", wanted, " more threads, got ", started.size(), ": ", std::strerror(code));
}

DPMP_KEPT_BODY inline void ThreadTeam::fork(FunctionRef<void(int)> body) {
  // OpenMP keeps the threads of the calling thread's last team, and starts what is missing.
  static thread_local int last = 1;
  if (threads_ > last) require(threads_ - 1);
  last = threads_;
#pragma omp parallel num_threads(threads_)
  {
    // Libraries called from here (oneDNN, Eigen) must not open a team of their own.
    omp_set_num_threads(1);
    // OpenMP may grant fewer threads than asked for; the logical threads are all run nevertheless.
    for (int t = omp_get_thread_num(); t < threads_; t += omp_get_num_threads()) body(t);
  }
}
#else
DPMP_KEPT_BODY inline void ThreadTeam::start() {
  std::string failure;
  try {
    for (int t = 1; t < threads_; ++t) workers_.emplace_back([this, t] { work(t); });
  } catch (const std::exception& e) {
    failure = e.what();
  }
  if (failure.empty()) return;
  stop();
  throw Error(detail::concat("expected ", threads_ - 1, " more threads, got ", workers_.size(), ": ", failure));
}

DPMP_KEPT_BODY inline void ThreadTeam::stop() {
  if (is_lost()) {  // there is nobody to wait for
    for (auto& w : workers_) w.detach();
    return;
  }
  {
    const std::lock_guard lock(guard_);
    quit_ = true;
  }
  wake_.notify_all();
  for (auto& w : workers_) w.join();
}

DPMP_KEPT_BODY inline void ThreadTeam::fork(FunctionRef<void(int)> body) {
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

DPMP_KEPT_BODY inline void ThreadTeam::work(int t) {
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
#endif
}  // namespace dpmp::inline DPMP_ABI
#endif
