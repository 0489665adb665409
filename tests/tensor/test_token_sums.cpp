// SPDX-License-Identifier: Apache-2.0
// TokenSums: whatever slices a kernel sums, what is joined is the sum over all tokens, with its squared norm.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/kernels/token_sum.hpp"
#include "dpmp/tensor/token_sums.hpp"
#include "support/tensors.hpp"

using namespace dpmp;

TEST_CASE("sums over tokens are those of any slices, whoever takes their squares") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : real_dtypes)
    for (int round = 0; round < 30; ++round)
      dispatch_real(dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        using R = compute_t<T>;
        const index_t arrays = rng.integer(1, 3), samples = rng.integer(0, 4), width = rng.integer(1, 70),
                      tokens = round % 3 == 0 ? rng.integer(257, 700) : round % 3 * rng.integer(0, 10);
        std::optional<index_t> slices;
        if (rng.integer(0, 1)) slices = rng.integer(tokens > 0 ? 1 : 0, 5);
        const auto squares = TokenSquares(rng.integer(0, 2));
        CAPTURE(tokens);
        CAPTURE(slices.value_or(-1));
        const Tensor x = test::normal_tensor(ctx, rng, {arrays, samples, tokens, width}, dtype);
        TokenSums sums(ctx, {.samples = samples,
                             .tokens = tokens,
                             .width = width,
                             .arrays = arrays,
                             .dtype = dtype_of<R>,
                             .slices = slices,
                             .squares = squares});
        const kernels::TokenSlices& cut = sums.slices();
        CHECK(cut.count == slices.value_or(tokens > 256 ? (tokens + 255) / 256 : 1));
        CHECK(cut.count * cut.length >= tokens);
        CHECK(sums.rows() == samples * cut.count);
        for (index_t k = 0; k < arrays; ++k) {
          CHECK((sums.squares(k) != nullptr) == (squares == TokenSquares::by_kernel && cut.count == 1));
          launch_library_rows(ctx, sums.rows(), cut.length * width,
                              kernels::TokenSum<T>{x.data<T>() + k * samples * tokens * width, sums.template sums<R>(k),
                                                   sums.squares(k), tokens, width, width, tokens * width, cut});
        }
        const bool whole_at_once = arrays == 1 && squares == TokenSquares::none;
        const Tensor narrow = Tensor::empty(ctx, {samples, width}, dtype);
        if (whole_at_once) sums.template join_into<R>(ctx, narrow.data<T>());
        sums.join(ctx);
        const std::vector<double> terms = x.to_doubles();
        for (index_t k = 0; k < arrays; ++k) {
          const Tensor whole = sums.whole(k), norms = sums.whole_squares(k);
          CHECK(whole.shape() == Shape{samples, width});
          CHECK(whole.dtype() == dtype_of<R>);
          CHECK(norms.defined() == (squares != TokenSquares::none));
          const std::vector<double> found = whole.to_doubles(),
                                    of_norms = norms.defined() ? norms.to_doubles() : std::vector<double>();
          for (index_t i = 0; i < samples; ++i) {
            double square = 0;
            for (index_t c = 0; c < width; ++c) {
              double sum = 0, size = 0;
              for (index_t t = 0; t < tokens; ++t) {
                const double term = terms[std::size_t(((k * samples + i) * tokens + t) * width + c)];
                sum += term;
                size += std::fabs(term);
              }
              const double got = found[std::size_t(i * width + c)];
              // A rounding for each token and each slice.
              const double roundings = double(tokens + cut.count) * unit_roundoff(dtype_of<R>) * 1.01;
              CHECK(std::fabs(got - sum) <= roundings * size);
              square += got * got;
              if (whole_at_once)
                CHECK(narrow.to_doubles()[std::size_t(i * width + c)] == double(to_float(from_float<T>(R(got)))));
            }
            // Squares of FP32 numbers are exact in double, and sums of `width` of them round at most as often.
            if (norms.defined()) CHECK(std::fabs(of_norms[std::size_t(i)] - square) <= double(width + 1) * 0x1p-52 * square);
          }
        }
      });
}

TEST_CASE("sums over tokens that nobody wants take no memory and let every token be a slice") {
  Context ctx(Device::cpu(), 1);
  ctx.reset_peak_memory();
  const index_t before = ctx.memory().live_bytes;
  TokenSums sums(ctx, {.samples = 3, .tokens = 1000, .width = 8, .arrays = 2, .wanted = false});
  CHECK(ctx.memory().live_bytes == before);
  CHECK(sums.slices().count == 1000);
  CHECK(sums.slices().length == 1);
  CHECK(sums.rows() == 3000);
  CHECK(sums.sums<float>(1) == nullptr);
  CHECK(sums.squares(1) == nullptr);
  sums.join(ctx);
  CHECK(TokenSums(ctx, {.samples = 2, .tokens = 0, .width = 8, .wanted = false}).rows() == 2);
}
