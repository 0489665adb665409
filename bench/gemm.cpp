// SPDX-License-Identifier: Apache-2.0
// GFLOP/s of plain products per shape, dtype, backend and number of threads, as a markdown table: best of several runs.
//   gemm [seconds per number]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "dpmp/gemm/gemm.hpp"

using namespace dpmp;

namespace {
struct ShapeCase {
  const char* what;
  index_t m, n, k, batch;
  bool a_transposed, b_transposed;
};
constexpr ShapeCase shapes[] = {
    {"forward", 1024, 256, 768, 1, false, true},
    {"forward, wide output", 4096, 768, 96, 1, false, true},
    {"input gradient", 4096, 96, 768, 1, false, false},
    {"weight gradient", 96, 768, 4096, 1, true, false},
    {"attention scores", 128, 128, 64, 32, false, true},
    {"small", 64, 64, 64, 1, false, false},
    {"tiny", 8, 8, 8, 1, false, false},
    {"tiny batch", 8, 8, 8, 64, false, false},
};

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<unsigned char> random_matrix(DType dtype, index_t n) {
  std::mt19937 engine(1);
  std::normal_distribution<double> normal;
  std::vector<unsigned char> bytes(std::size_t(n * size_of(dtype)));
  dispatch_real(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (index_t i = 0; i < n; ++i) {
      const T x = from_float<T>(compute_t<T>(normal(engine)));
      std::memcpy(bytes.data() + std::size_t(i) * sizeof x, &x, sizeof x);
    }
  });
  return bytes;
}

double gflops(Context& ctx, const ShapeCase& s, DType dtype, GemmBackend backend, double budget) {
  const auto a = random_matrix(dtype, s.batch * s.m * s.k), b = random_matrix(dtype, s.batch * s.k * s.n);
  auto out = random_matrix(dtype, s.batch * s.m * s.n);
  GemmSpec spec;
  spec.m = s.m, spec.n = s.n, spec.k = s.k, spec.batch = s.batch;
  spec.a = {a.data(), dtype, s.a_transposed ? s.m : s.k, s.m * s.k, s.a_transposed};
  spec.b = {b.data(), dtype, s.b_transposed ? s.k : s.n, s.k * s.n, s.b_transposed};
  spec.out = {out.data(), dtype, s.n, s.m * s.n};
  gemm(ctx, spec, backend);
  double best = 1e30;
  const double end = seconds() + budget;
  int calls = 1;
  do {
    const double start = seconds();
    for (int i = 0; i < calls; ++i) gemm(ctx, spec, backend);
    const double took = seconds() - start;
    best = std::min(best, took / calls);
    if (took < 20e-6) calls *= 2;  // long enough for the clock
  } while (seconds() < end);
  return 2e-9 * double(s.batch * s.m * s.n * s.k) / best;
}
}  // namespace

int main(int argc, char** argv) {
  constexpr const char* names[] = {"automatic", "panels", "eigen", "oneDNN"};
  const double budget = argc > 1 ? std::atof(argv[1]) : 0.1;
  Context one(Device::cpu(), 1), all;
  std::printf(
      "%s\n\n| shape | batch x m x n x k | dtype | backend | GFLOP/s, 1 thread | GFLOP/s, %d threads "
      "|\n|---|---|---|---|---|---|\n",
      gemm_backend_info(all).c_str(), all.threads());
  for (const ShapeCase& s : shapes)
    for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
      for (GemmBackend backend : {GemmBackend::automatic, GemmBackend::panels, GemmBackend::eigen, GemmBackend::onednn}) {
        if (backend == GemmBackend::onednn && (!detail::has_onednn || dtype == DType::f64)) continue;
        std::printf("| %s | %d x %d x %d x %d | %s | %s | %.1f | %.1f |\n", s.what, int(s.batch), int(s.m), int(s.n),
                    int(s.k), std::string(name_of(dtype)).c_str(), names[int(backend)],
                    gflops(one, s, dtype, backend, budget), gflops(all, s, dtype, backend, budget));
      }
}
