// SPDX-License-Identifier: Apache-2.0
// Who runs a kernel functor: on the CPU here, the only place that knows instruction sets and how rows are spread over
// threads; on a GPU in launch_cuda.cuh.
// `flatten` pulls the whole functor into each copy, so every copy is compiled for its own set and a consumer needs no
// -march.
#pragma once
#include <string_view>

#include "dpmp/runtime/context.hpp"
#include "dpmp/runtime/math.hpp"
#include "dpmp/runtime/team_host.hpp"

// Copies for other instruction sets than the one of the translation unit:
// - none without optimisation: `flatten` does nothing then, and a call across instruction sets would change the vector ABI;
// - none when the unit's own flags ask for AVX2 or AVX-512 (-march=native): they say what to compile for, and three copies
// take three times as long;
// - none with clang, which checks the registers of an inlined function against the flags of the unit: give it -march;
// - none where DPMP_HOST_ISA_NATIVE is set, whatever the unit's flags are;
// - header-only, one for AVX2 and, for functors that compute more than they read (`static constexpr bool wide = true`), one
// for AVX-512; the unit's own copy is for CPUs without AVX2 and kept small;
// - in dpmp::compiled, and where DPMP_HOST_ISA_ALL is set, all for every functor.
// What a unit compiles for its own instruction sets has their names (DPMP_UNIT_ABI): units of different flags may launch one
// functor, each its own copy.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define DPMP_HOST_UNIT_ISA 2
#elif defined(__AVX2__) && defined(__FMA__)
#define DPMP_HOST_UNIT_ISA 1
#else
#define DPMP_HOST_UNIT_ISA 0
#endif
#if defined(__x86_64__) && defined(__OPTIMIZE__) && DPMP_HOST_UNIT_ISA == 0 && !defined(DPMP_HOST_ISA_NATIVE) && \
    !defined(__clang__)
#define DPMP_HOST_ISA_VARIANTS 1
#else
#define DPMP_HOST_ISA_VARIANTS 0
#endif
#if defined(DPMP_COMPILED) || defined(DPMP_HOST_ISA_ALL)
#define DPMP_HOST_ISA_LEAN 0
#else
#define DPMP_HOST_ISA_LEAN DPMP_HOST_ISA_VARIANTS
#endif

namespace dpmp::inline DPMP_ABI {
enum class Isa : std::uint8_t { baseline, avx2, avx512 };

inline std::string_view name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

inline namespace DPMP_UNIT_ABI {
/// What this translation unit is compiled for without any dispatch.
inline constexpr Isa unit_isa = Isa(DPMP_HOST_UNIT_ISA);

/// The widest instruction set that this CPU has and this build has kernels for.
inline Isa best_isa() {
#if DPMP_HOST_ISA_VARIANTS
  static const Isa isa = [] {
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      return Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
    return unit_isa;
  }();
  return isa;
#else
  return unit_isa;
#endif
}
}  // namespace DPMP_UNIT_ABI

namespace detail {
/// Defined in runtime/launch_cuda.cuh: the same functor with a team of a CUDA warp for each row.
template <class F>
void launch_rows_on_cuda(Context& ctx, index_t rows, index_t row_work, const F& f);
template <class F>
void launch_elements_on_cuda(Context& ctx, index_t n, const F& f);

inline namespace DPMP_UNIT_ABI {
/// Whether a functor gets a copy for AVX-512 where those for AVX2 do for the others.
template <class F>
inline constexpr bool is_wide = !DPMP_HOST_ISA_LEAN || requires {
  requires F::wide;
};

#if DPMP_HOST_ISA_LEAN
#define DPMP_UNIT_COPY cold
#else
#define DPMP_UNIT_COPY
#endif
/// Rows [begin, end) of the functor at f, on the calling thread.
using RunRows = void (*)(void* f, index_t begin, index_t end);
template <class F>
__attribute__((flatten, noinline, DPMP_UNIT_COPY)) void rows_of_unit(void* at, index_t begin, index_t end) {
  const F& f = *static_cast<const F*>(at);
  constexpr int width = 4 << DPMP_HOST_UNIT_ISA;  // floats in a register
  using Team = HostTeam<typename F::Real, std::is_same_v<typename F::Real, double> ? width / 2 : width>;
  for (index_t r = begin; r < end; ++r) f(Team{}, r);
}
#if DPMP_HOST_ISA_VARIANTS
template <class F>
__attribute__((flatten, noinline, target("avx2,fma"))) void rows_avx2(void* at, index_t begin, index_t end) {
  const F& f = *static_cast<const F*>(at);
  for (index_t r = begin; r < end; ++r) f(HostTeam<float, 8>{}, r);
}
template <class F>
__attribute__((flatten, noinline, target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))) void rows_avx512(void* at,
                                                                                                           index_t begin,
                                                                                                           index_t end) {
  const F& f = *static_cast<const F*>(at);
  for (index_t r = begin; r < end; ++r) f(HostTeam<float, 16>{}, r);
}
#endif
/// The copy of a functor for an instruction set.
template <class F>
RunRows rows_for([[maybe_unused]] Isa isa) {
// nvcc reads host code again when it compiles for the device, where a kernel's body may not meet a host team's vectors.
#if defined(__CUDA_ARCH__)
  return nullptr;
#else
#if DPMP_HOST_ISA_VARIANTS
  if constexpr (std::is_same_v<typename F::Real, float>) {  // double is for references: one variant will do
    if constexpr (is_wide<F>)
      if (isa == Isa::avx512) return rows_avx512<F>;
    if (isa >= Isa::avx2) return rows_avx2<F>;
  }
#endif
  return rows_of_unit<F>;
#endif
}
template <class F>
void* address_of(const F& f) {
  return const_cast<F*>(&f);
}
}  // namespace DPMP_UNIT_ABI
}  // namespace detail

inline namespace DPMP_UNIT_ABI {
/// Runs f(team, row) for rows [begin, end) on the calling thread. F::Real (float or double) is the type it computes in.
template <class F>
void run_rows(index_t begin, index_t end, const F& f, Isa isa = best_isa()) {
  detail::rows_for<F>(isa)(detail::address_of(f), begin, end);
}
}  // namespace DPMP_UNIT_ABI

namespace detail {
inline namespace DPMP_UNIT_ABI {
// What is the same for all functors is compiled once.
inline void spread_rows(Context& ctx, index_t rows, index_t row_work, void* f, RunRows run) {
  if (rows * row_work < worth_a_fork::elements) return run(f, 0, rows);
  ctx.team().parallel_for(rows, {f, run});
}
template <class F>
void launch_rows_on_host(Context& ctx, index_t rows, index_t row_work, const F& f) {
  spread_rows(ctx, rows, row_work, address_of(f), rows_for<F>(best_isa()));
}
}  // namespace DPMP_UNIT_ABI
}  // namespace detail

/// Rows that keep a device busy, for kernels that may cut their work into any number of them. A host's do not follow its
/// threads: a step gives the same bits on any number of them.
inline index_t rows_that_fill_device(const Context& ctx) { return ctx.on_cuda() ? 4 * ctx.backend().multiprocessors() : 64; }

inline namespace DPMP_UNIT_ABI {
/// Runs f(team, row) for rows [0, rows) on the context's device. `row_work`: elements a row touches, so that little work is
/// not spread; the split does not change any row's result.
template <class F>
void launch_rows(Context& ctx, index_t rows, index_t row_work, const F& f) {
  DPMP_IF_CUDA (ctx.on_cuda()) return detail::launch_rows_on_cuda(ctx, rows, row_work, f);
  detail::launch_rows_on_host(ctx, rows, row_work, f);
}
}  // namespace DPMP_UNIT_ABI

namespace detail {
// A flat array as rows of 4096 elements, so that an element-wise kernel is spread like every other one.
template <class F>
struct FlatRows {
  static constexpr index_t width = 4096;
  using Real = typename F::Real;
  F f;
  index_t n;
  template <class Team>
  DPMP_HOST void operator()(const Team& team, index_t row) const {
    const index_t begin = row * width, left = n - begin;
    team.for_each(left < width ? left : width, [&](auto at) DPMP_LAMBDA {
      at.offset += begin;
      f(at);
    });
  }
};
inline namespace DPMP_UNIT_ABI {
template <class F>
void launch_elements_on_host(Context& ctx, index_t n, const F& f) {
  using Flat = FlatRows<F>;
  launch_rows_on_host(ctx, (n + Flat::width - 1) / Flat::width, Flat::width, Flat{f, n});
}
}  // namespace DPMP_UNIT_ABI
}  // namespace detail

inline namespace DPMP_UNIT_ABI {
/// Runs an element-wise functor f(at) over spans that cover [0, n).
template <class F>
void launch_elements(Context& ctx, index_t n, const F& f) {
  DPMP_IF_CUDA (ctx.on_cuda()) return detail::launch_elements_on_cuda(ctx, n, f);
  detail::launch_elements_on_host(ctx, n, f);
}
}  // namespace DPMP_UNIT_ABI

// The same for the library's own kernels, which are compiled where they are used or, in programs that link dpmp::compiled,
// once: what is declared here and not defined is found there. Functors of a user's own go to the functions above.
#if defined(DPMP_COMPILED) && !(defined(DPMP_COMPILING) && !defined(__CUDACC__))
template <class F>
void run_library_rows(index_t begin, index_t end, const F& f, Isa isa = best_isa());
namespace detail {
template <class F>
void launch_library_rows_on_host(Context& ctx, index_t rows, index_t row_work, const F& f);
template <class F>
void launch_library_elements_on_host(Context& ctx, index_t n, const F& f);
#else
template <class F>
DPMP_KEPT void run_library_rows(index_t begin, index_t end, const F& f, Isa isa = best_isa()) {
  run_rows(begin, end, f, isa);
}
namespace detail {
template <class F>
DPMP_KEPT void launch_library_rows_on_host(Context& ctx, index_t rows, index_t row_work, const F& f) {
  launch_rows_on_host(ctx, rows, row_work, f);
}
template <class F>
DPMP_KEPT void launch_library_elements_on_host(Context& ctx, index_t n, const F& f) {
  launch_elements_on_host(ctx, n, f);
}
#endif
#if defined(DPMP_COMPILED) && !(defined(DPMP_COMPILING) && defined(__CUDACC__))
template <class F>
void launch_library_rows_on_cuda(Context& ctx, index_t rows, index_t row_work, const F& f);
template <class F>
void launch_library_elements_on_cuda(Context& ctx, index_t n, const F& f);
#else
template <class F>
DPMP_KEPT void launch_library_rows_on_cuda(Context& ctx, index_t rows, index_t row_work, const F& f) {
  launch_rows_on_cuda(ctx, rows, row_work, f);
}
template <class F>
DPMP_KEPT void launch_library_elements_on_cuda(Context& ctx, index_t n, const F& f) {
  launch_elements_on_cuda(ctx, n, f);
}
#endif
}  // namespace detail

template <class F>
void launch_library_rows(Context& ctx, index_t rows, index_t row_work, const F& f) {
  DPMP_IF_CUDA (ctx.on_cuda()) return detail::launch_library_rows_on_cuda(ctx, rows, row_work, f);
  detail::launch_library_rows_on_host(ctx, rows, row_work, f);
}
template <class F>
void launch_library_elements(Context& ctx, index_t n, const F& f) {
  DPMP_IF_CUDA (ctx.on_cuda()) return detail::launch_library_elements_on_cuda(ctx, n, f);
  detail::launch_library_elements_on_host(ctx, n, f);
}
}  // namespace dpmp::inline DPMP_ABI
