// SPDX-License-Identifier: Apache-2.0
// Benchmarks of the kernels that a transformer needs, private or not.
#pragma once
#include <dpmp/gemm/cublaslt.cuh>
#include <dpmp/kernels/cross_entropy.hpp>
#include <dpmp/kernels/cuda/attention/backward.cuh>
#include <dpmp/kernels/cuda/attention/forward.cuh>
#include <dpmp/kernels/layer_norm.hpp>
#include <dpmp/nn/parameters.hpp>
#include <dpmp/optim/optimiser.hpp>
#include <numeric>

#include "suite.cuh"

namespace bench {
template <class T>
void bench_attention(Suite& suite, index_t samples, index_t tokens, index_t heads, index_t width) {
  const dpmp::kernels::AttentionShape shape{samples, tokens, heads, heads, width, true};
  const index_t rows = samples * tokens, packed = shape.packed(), plain = shape.plain();
  const Array<T> qkv(suite.ctx, rows * packed, 1), output(suite.ctx, rows * plain),
      output_gradient(suite.ctx, rows * plain, 2), qkv_gradient(suite.ctx, rows * packed);
  const Array<float> log_sum_exp(suite.ctx, rows * heads), row_sums(suite.ctx, rows * heads);
  const std::string text = shape_text(samples, tokens, heads, width);
  const double pairs = double(samples * heads) * double(tokens) * double(tokens + 1) / 2;
  // The last head of the last sample.
  const index_t first = (rows - tokens) * packed;
  const auto part = [&](std::uint64_t seed, index_t start, index_t stride) {
    Numbers x;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t k = 0; k < width; ++k) x.push_back(test_value(seed, start + t * stride + k));
    return x;
  };
  const AttentionHead head(part(1, first + shape.query_column(heads - 1), packed),
                           part(1, first + shape.key_column(heads - 1), packed),
                           part(1, first + shape.value_column(heads - 1), packed),
                           part(2, (rows - tokens) * plain + (heads - 1) * width, plain), std::size_t(tokens));
  const auto compare = [&](LargestError& error, const Array<T>& array, index_t place, const Numbers& want) {
    const std::vector<T> got = array.read(place, width);
    for (std::size_t k = 0; k < want.size(); ++k) error.add(double(dpmp::to_float(got[k])), want[k]);
  };

  const auto forward = [&] {
    dpmp::kernels::attention_forward<T>(suite.stream(), {qkv.data(), nullptr, output.data(), log_sum_exp.data(), shape});
  };
  if (suite.wants("attention_forward"))
    suite.add<T>("attention_forward", text,
                 product_work<T>(4 * pairs * double(width), double(qkv.size() + output.size()) * sizeof(T)), forward, [&] {
                   LargestError error;
                   for (const index_t t : {index_t(0), tokens / 2, tokens - 1})
                     compare(error, output, (rows - tokens + t) * plain + (heads - 1) * width, head.output(std::size_t(t)));
                   return error.share();
                 });
  if (!suite.wants("attention_backward")) return;
  forward();
  const double bytes = double(2 * qkv.size() + 2 * output.size()) * sizeof(T);
  suite.add<T>(
      "attention_backward", text, product_work<T>(10 * pairs * double(width), bytes),
      [&] {
        dpmp::kernels::attention_backward<T>(suite.stream(),
                                             {qkv.data(), nullptr, output.data(), log_sum_exp.data(), output_gradient.data(),
                                              qkv_gradient.data(), row_sums.data(), shape});
      },
      [&] {
        LargestError queries, keys, values;
        const std::size_t t = std::size_t(tokens / 2);
        const index_t row = first + index_t(t) * packed;
        compare(queries, qkv_gradient, row + shape.query_column(heads - 1), head.query_gradient(t));
        compare(keys, qkv_gradient, row + shape.key_column(heads - 1), head.key_gradient(t));
        compare(values, qkv_gradient, row + shape.value_column(heads - 1), head.value_gradient(t));
        return std::max({queries.share(), keys.share(), values.share()});
      });
}

template <class T>
void bench_layer_norm(Suite& suite, index_t samples, index_t tokens, index_t width) {
  if (!suite.wants_some("layer_norm")) return;
  namespace k = dpmp::kernels;
  const index_t rows = samples * tokens;
  constexpr double epsilon = 1e-5;
  const Array<T> x(suite.ctx, rows * width, 1), gain(suite.ctx, width, 2), bias(suite.ctx, width, 3),
      y(suite.ctx, rows * width), g(suite.ctx, rows * width, 4), dx(suite.ctx, rows * width);
  const Array<float> mean(suite.ctx, rows), rstd(suite.ctx, rows), gain_and_bias(suite.ctx, 2 * samples * width);
  const Array<double> squares(suite.ctx, 2 * samples);
  const std::string text = shape_text(samples, tokens, width);
  const double pass = double(x.size()) * sizeof(T);
  const auto row_of = [&](std::uint64_t seed, index_t row) { return test_values(seed, row * width, width); };
  const index_t picked[] = {0, rows / 3, rows - 1};
  suite.add<T>(
      "layer_norm_forward", text, {.fp32 = 8.0 * double(x.size()), .bytes = 2 * pass},
      [&] {
        launch_rows(suite.ctx, rows, width,
                    k::LayerNormForward<T, true>{x.data(), gain.data(), bias.data(), y.data(), mean.data(), rstd.data(),
                                                 width, float(epsilon)});
      },
      [&] {
        LargestError error;
        for (const index_t row : picked) {
          const Numbers input = row_of(1, row);
          const RowStatistics s(input, epsilon);
          const std::vector<T> got = y.read(row * width, width);
          for (std::size_t j = 0; j < input.size(); ++j)
            error.add(double(dpmp::to_float(got[j])),
                      (input[j] - s.mean) * s.rstd * test_value(2, index_t(j)) + test_value(3, index_t(j)));
        }
        return error.share();
      });
  const k::TokenSlices slices = k::token_slices(samples, tokens, 4 * suite.ctx.backend().multiprocessors());
  const index_t part = samples * slices.count * width;
  const Array<float> parts(suite.ctx, 2 * part);
  suite.add<T>(
      "layer_norm_backward", text, {.fp32 = 19.0 * double(x.size()), .bytes = 3 * pass + 8.0 * double(samples * width)},
      [&] {
        launch_rows(
            suite.ctx, samples * slices.count, slices.length * width,
            k::LayerNormBackward<T, true>{x.data(), gain.data(), g.data(), mean.data(), rstd.data(), nullptr, dx.data(),
                                          parts.data(), parts.data() + part, nullptr, nullptr, tokens, width, slices});
        launch_rows(suite.ctx, 2 * samples, slices.count * width,
                    k::JoinSlices<float>{parts.data(), gain_and_bias.data(), squares.data(), slices.count, width});
      },
      [&] {
        LargestError error;
        for (const index_t row : picked) {
          const Numbers want = layer_norm_gradient(row_of(1, row), row_of(2, 0), row_of(4, row), epsilon);
          const std::vector<T> got = dx.read(row * width, width);
          for (std::size_t j = 0; j < want.size(); ++j) error.add(double(dpmp::to_float(got[j])), want[j]);
        }
        Numbers want(static_cast<std::size_t>(width));
        for (index_t t = rows - tokens; t < rows; ++t) {
          const Numbers input = row_of(1, t), gradient = row_of(4, t);
          const RowStatistics s(input, epsilon);
          for (std::size_t j = 0; j < want.size(); ++j) want[j] += gradient[j] * (input[j] - s.mean) * s.rstd;
        }
        const std::vector<float> got = gain_and_bias.read((samples - 1) * width, width);
        LargestError vector_error;
        for (std::size_t j = 0; j < want.size(); ++j) vector_error.add(double(got[j]), want[j]);
        return std::max(error.share(), vector_error.share());
      });
}

template <class T>
void bench_cross_entropy(Suite& suite, index_t samples, index_t tokens, index_t classes) {
  if (!suite.wants_some("cross_entropy")) return;
  namespace k = dpmp::kernels;
  const index_t rows = samples * tokens;
  const Array<T> logits(suite.ctx, rows * classes, 1), gradient(suite.ctx, rows * classes);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < ids.size(); ++r) ids[r] = std::int32_t(r * 7919 % std::size_t(classes));
  const Array<std::int32_t> targets(suite.ctx, ids);
  const Array<float> loss(suite.ctx, rows), top(suite.ctx, rows), scale(suite.ctx, rows), missing(suite.ctx, rows),
      weights(suite.ctx, std::vector<float>(static_cast<std::size_t>(samples), 1.0f));
  const std::string text = shape_text(samples, tokens, classes);
  const double pass = double(logits.size()) * sizeof(T);
  const index_t picked[] = {0, rows - 1};
  suite.add<T>(
      "cross_entropy_forward", text, {.fp32 = 12.0 * double(logits.size()), .bytes = pass},
      [&] {
        launch_rows(
            suite.ctx, rows, classes,
            k::CrossEntropyForward<T>{
                logits.data(), targets.data(), loss.data(), {top.data(), scale.data(), missing.data()}, classes, -1});
      },
      [&] {
        LargestError error;
        for (const index_t row : picked) {
          const Numbers x = test_values(1, row * classes, classes);
          error.add(loss.read_one(row), log_sum_exp(x) - x[std::size_t(ids[std::size_t(row)])]);
        }
        return error.share();
      });
  suite.add<T>(
      "cross_entropy_backward", text, {.fp32 = 12.0 * double(logits.size()), .bytes = 2 * pass},
      [&] {
        launch_rows(suite.ctx, rows, classes,
                    k::CrossEntropyBackward<T>{logits.data(),
                                               targets.data(),
                                               {top.data(), scale.data(), missing.data()},
                                               weights.data(),
                                               gradient.data(),
                                               tokens,
                                               classes,
                                               -1,
                                               1.0f});
      },
      [&] {
        LargestError error;
        for (const index_t row : picked) {
          const Numbers x = test_values(1, row * classes, classes);
          const double sum = log_sum_exp(x);
          const std::vector<T> got = gradient.read(row * classes, classes);
          for (std::size_t j = 0; j < x.size(); ++j)
            error.add(double(dpmp::to_float(got[j])),
                      std::exp(x[j] - sum) - (std::int32_t(j) == ids[std::size_t(row)] ? 1 : 0));
        }
        return error.share();
      });
}

/// What a step does with a parameter's sum: noise, moments, FP32 weights and their copy in bf16, in one pass.
inline void bench_update(Suite& suite, index_t n) {
  if (!suite.wants_some("update")) return;
  namespace optim = dpmp::optim;
  dpmp::Context& ctx = suite.ctx;
  constexpr double factor = 1.0 / 32, rate = 1.0 / 1024, epsilon = 1e-8;
  dpmp::nn::Parameters model(ctx, dpmp::DType::bf16, 1);
  const dpmp::Parameter& weight = model.constant("weight", {n}, 0);
  const dpmp::per_sample::GradientSums sums(ctx, model.all());
  dpmp::launch_elements(ctx, n, FillByHash<double>{sums.tensors()[0].data<double>(), 1});
  const optim::StepNoise noise{{}, 2.0};
  Numbers normals(static_cast<std::size_t>(std::min<index_t>(n, 4096)));
  dpmp::dp::add_gaussian_noise(ctx.team(), normals, noise.standard_deviation, noise.stream, 0);

  for (const bool noisy : {false, true}) {
    const optim::StepNoise* const added = noisy ? &noise : nullptr;
    optim::OptimiserState adamw(ctx, model.all(), optim::AdamW{.epsilon = epsilon});
    adamw.begin_step(ctx, sums, factor, rate, added);
    const auto error = [&] {
      // The first step of each optimiser from zero: with SGD it is linear in the noise, with AdamW the gradient over its size.
      LargestError of_sgd, of_adamw;
      const auto first_step = [&](const optim::Optimiser& optimiser, LargestError& found, const auto& formula) {
        ctx.backend().set_zero(weight.master().raw(), weight.master().bytes());
        optim::OptimiserState(ctx, model.all(), optimiser).step(ctx, sums, factor, rate, added);
        std::vector<float> got(normals.size());
        ctx.backend().copy_out(got.data(), weight.master().raw(), index_t(got.size() * sizeof(float)));
        for (std::size_t k = 0; k < got.size(); ++k)
          found.add(double(got[k]), -rate * formula(factor * (test_value(1, index_t(k)) + (noisy ? normals[k] : 0))));
      };
      first_step(optim::Sgd{}, of_sgd, [](double g) { return g; });
      first_step(optim::AdamW{.epsilon = epsilon}, of_adamw, [&](double g) { return g / (std::abs(g) + epsilon); });
      return std::max(of_sgd.share(), of_adamw.share());
    };
    // A normal takes half of a logarithm, a sine, a cosine and a square root: some 40 operations in double, beside ChaCha20.
    suite.add<float>(
        noisy ? "noise and update, adamw" : "update, adamw", shape_text(n),
        {.fp32 = 16.0 * double(n), .fp64 = noisy ? 40.0 * double(n) : 0, .bytes = 34.0 * double(n)},
        [&] { adamw.update(ctx, sums, noisy ? &noise.stream.key : nullptr); }, error);
  }
}

/// A copy within the device: what memory can do.
inline void bench_copy(Suite& suite, index_t bytes) {
  if (!suite.wants("ceiling, copy")) return;
  const Array<dpmp::bf16> from(suite.ctx, bytes / 2, 1), to(suite.ctx, bytes / 2);
  suite.add<dpmp::bf16>(
      "ceiling, copy", shape_text(from.size()), {.bytes = 2.0 * double(bytes)},
      [&] { suite.ctx.backend().copy(to.data(), from.data(), bytes); },
      [&] {
        LargestError error;
        for (const index_t place : {index_t(0), from.size() / 3, from.size() - 1})
          error.add(to.read_one(place), test_value(1, place));
        return error.share();
      });
}

/// out [m, n] in Out = a [m, k] b [k, n], either stored transposed, for each of a batch; sum_rows: and the sums of a's rows;
/// position_free: as GemmSpec has it.
template <class T, class Out>
void bench_gemm(Suite& suite, const std::string& name, index_t batch, index_t m, index_t n, index_t k, bool a_transposed,
                bool b_transposed, bool sum_rows = false, bool position_free = true) {
  if (!suite.wants(name)) return;
  const Array<T> a(suite.ctx, batch * m * k, 1), b(suite.ctx, batch * k * n, 2);
  const Array<Out> out(suite.ctx, batch * m * n), sums(suite.ctx, batch * m);
  dpmp::GemmSpec spec;
  spec.m = m, spec.n = n, spec.k = k, spec.batch = batch, spec.position_free = position_free;
  spec.a = {a.data(), dpmp::dtype_of<T>, a_transposed ? m : k, m * k, a_transposed};
  spec.b = {b.data(), dpmp::dtype_of<T>, b_transposed ? k : n, k * n, b_transposed};
  spec.out = {out.data(), dpmp::dtype_of<Out>, n, m * n};
  if (sum_rows) spec.row_sums = sums.data();
  const double bytes = double(a.size() + b.size()) * sizeof(T) + double(out.size()) * sizeof(Out);
  suite.add<T>(
      name, shape_text(batch, m, n, k), product_work<T>(2.0 * double(batch * m) * double(n * k), bytes),
      [&] { dpmp::gemm(suite.ctx, spec); },
      [&] {
        LargestError error, error_of_sums;
        for (index_t j = 0; j < 16; ++j) {
          const index_t row = j * 37 % m, column = j * 101 % n, i = batch - 1;
          const Numbers x = test_values(1, i * m * k + (a_transposed ? row : row * k), k, a_transposed ? m : 1),
                        y = test_values(2, i * k * n + (b_transposed ? column * k : column), k, b_transposed ? 1 : n);
          error.add(out.read_one((i * m + row) * n + column), dot(x.data(), y.data(), x.size()));
          if (sum_rows) error_of_sums.add(sums.read_one(i * m + row), std::accumulate(x.begin(), x.end(), 0.0));
        }
        return sum_rows ? std::max(error.share(), error_of_sums.share()) : error.share();
      });
}
}  // namespace bench
