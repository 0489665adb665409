// SPDX-License-Identifier: Apache-2.0
// How many OpenMP threads a library called from here may use. oneDNN and Eigen ask OpenMP, not us; so each call tells
// OpenMP.
#pragma once
#include <algorithm>

#include "dpmp/runtime/parallel.hpp"

#if !(defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP) && defined(DPMP_WITH_ONEDNN) && DPMP_WITH_ONEDNN
#include <dlfcn.h>
#endif

namespace dpmp::inline DPMP_ABI::detail {
/// The functions of the OpenMP runtime in this process; all null where there is none to steer.
struct OpenMp {
  int (*max_threads)() = nullptr;
  int (*thread_limit)() = nullptr;
  int (*in_parallel)() = nullptr;
  int (*dynamic)() = nullptr;
  void (*set_threads)(int) = nullptr;
  void (*set_dynamic)(int) = nullptr;
  bool found() const { return max_threads && thread_limit && in_parallel && dynamic && set_threads && set_dynamic; }

  static const OpenMp& get() {
    static const OpenMp functions = [] {
      OpenMp f;
#if defined(DPMP_WITH_OPENMP) && DPMP_WITH_OPENMP
      f = {omp_get_max_threads, omp_get_thread_limit, omp_in_parallel,
           omp_get_dynamic,     omp_set_num_threads,  omp_set_dynamic};
#elif defined(DPMP_WITH_ONEDNN) && DPMP_WITH_ONEDNN
      // This build does not link OpenMP, but oneDNN may have brought it along.
      const auto find = [](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(RTLD_DEFAULT, name));
      };
      find(f.max_threads, "omp_get_max_threads");
      find(f.thread_limit, "omp_get_thread_limit");
      find(f.in_parallel, "omp_in_parallel");
      find(f.dynamic, "omp_get_dynamic");
      find(f.set_threads, "omp_set_num_threads");
      find(f.set_dynamic, "omp_set_dynamic");
#endif
      return f;
    }();
    return functions;
  }
};

/// For its lifetime, parallel regions opened by this thread get exactly threads() threads: `wanted`, or 1 inside a team or a
/// parallel region or where fork() took the team away, or the limit of the environment. Exactly, because a oneDNN primitive
/// made for N threads and granted fewer (OMP_THREAD_LIMIT, OMP_DYNAMIC) leaves part of the output unwritten without a word:
/// seen with 2.6 and 3.2.
class OpenMpScope {
 public:
  explicit OpenMpScope(int wanted) : threads_(ThreadTeam::inside() ? 1 : wanted) {
    const OpenMp& openmp = OpenMp::get();
    if (!openmp.found()) return;
    if (openmp.in_parallel() || openmp_team_is_lost(threads_ > 1)) threads_ = 1;
    threads_ = std::max(1, std::min(threads_, openmp.thread_limit()));
    old_threads_ = openmp.max_threads();
    old_dynamic_ = openmp.dynamic();
    if (old_threads_ != threads_) openmp.set_threads(threads_);
    if (old_dynamic_) openmp.set_dynamic(0);
  }
  ~OpenMpScope() {
    const OpenMp& openmp = OpenMp::get();
    if (!openmp.found()) return;
    if (old_threads_ != threads_) openmp.set_threads(old_threads_);
    if (old_dynamic_) openmp.set_dynamic(old_dynamic_);
  }
  OpenMpScope(const OpenMpScope&) = delete;
  OpenMpScope& operator=(const OpenMpScope&) = delete;
  int threads() const { return threads_; }

 private:
  int threads_, old_threads_ = 0, old_dynamic_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::detail
