// SPDX-License-Identifier: Apache-2.0
// What the certificate of a norm costs by size and method: certified over exact norm of one sample with random normal rows,
// and what the choice of a method predicts, on the CPU and on a GPU. The exact norm is that of Grams in double.
#include <cstdio>
#include <cstdlib>
#include <dpmp/per_sample/per_sample.hpp>
#include <random>

namespace {
using namespace dpmp;
using per_sample::NormMethod;

struct Size {
  index_t p, d, tokens;
  const char* what;
};
constexpr Size sizes[] = {{2304, 768, 128, "GPT-2's q, k, v"},
                          {768, 3072, 1024, "GPT-2's feed-forward"},
                          {50257, 768, 128, "GPT-2's head"},
                          {50257, 768, 1024, "GPT-2's head"},
                          {8192, 64, 512, ""},
                          {2048, 512, 1024, ""},
                          {4096, 1024, 128, ""},
                          {1024, 1024, 8192, ""},
                          {262144, 64, 64, ""},
                          {128256, 4096, 256, "LLaMA-3's head"},
                          {4096, 4096, 1, ""}};

double slack(Context& ctx, const per_sample::SiteList& sites, NormMethod method, double exact) {
  per_sample::NormBounds bounds(ctx, 1);
  per_sample::squared_norms_outer(ctx, sites, bounds, method);
  return bounds.upper(0) / exact - 1;
}

void measure(Context& ctx, const Size& s, DType dtype, std::mt19937_64& random) {
  Parameter w(ctx, "w", Tensor::zeros(ctx, {s.p, s.d}, DType::f32), dtype);
  std::normal_distribution<float> normal;
  const auto rows = [&](index_t width) {
    const Tensor x = Tensor::empty(ctx, {1, s.tokens, width}, dtype);
    dispatch_real(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      for (index_t k = 0; k < x.numel(); ++k) x.data<T>()[k] = from_float<T>(compute_t<T>(normal(random)));
    });
    return x;
  };
  const per_sample::SiteList sites{ParameterSite::outer_product(w, rows(s.d), rows(s.p))};
  per_sample::NormBounds grams(ctx, 1);
  per_sample::squared_norms_outer(ctx, sites, grams, NormMethod::gram);
  const double exact = grams.norm(0);
  per_sample::SiteShape shape = per_sample::shape_of(sites);
  const NormMethod chosen = per_sample::choose_norm_method(shape);
  shape.on_cuda = true;
  const NormMethod on_cuda = per_sample::choose_norm_method(shape);
  std::printf("| %lld x %lld, T = %lld%s%s | %s | %.5f %% | %.5f %% | %s | %s | %.3f %% | %.3f %% |\n", (long long)s.p,
              (long long)s.d, (long long)s.tokens, *s.what ? ", " : "", s.what, std::string(name_of(dtype)).c_str(),
              100 * slack(ctx, sites, NormMethod::gram, exact), 100 * slack(ctx, sites, NormMethod::instantiate, exact),
              std::string(per_sample::name_of(chosen)).c_str(), std::string(per_sample::name_of(on_cuda)).c_str(),
              100 * per_sample::predicted_slack(shape, on_cuda), 100 * per_sample::predicted_slack(shape, NormMethod::gram));
  std::fflush(stdout);
}
}  // namespace

int main() {
  try {
    Context ctx(Device::cpu());
    std::mt19937_64 random(1);
    std::printf(
        "%s\n\n| parameter | dtype | gram | instantiate | CPU takes | GPU takes | its slack, predicted | slack of a "
        "Gram there |\n|---|---|---|---|---|---|---|---|\n",
        gemm_backend_info(ctx).c_str());
    for (const Size& s : sizes)
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) measure(ctx, s, dtype, random);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_certificate_sizes: %s\n", e.what());
    return 1;
  }
}
