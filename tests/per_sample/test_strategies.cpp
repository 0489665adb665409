// SPDX-License-Identifier: Apache-2.0
// Strategies: whatever is kept between norms and sums, the norms, the sums and the certificate are those of the same stored
// operands; second walks repeat them bit for bit; groups are clipped in one walk that keeps next to nothing.
#include <doctest/doctest.h>

#include <map>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/dp/clipping.hpp"
#include "dpmp/nn/transformer.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "support/errors.hpp"
#include "support/gpt.hpp"
#include "support/oracle.hpp"
#include "support/tensors.hpp"

namespace {
using namespace dpmp;
using per_sample::ClippedSumSink;
using per_sample::GradientStorage;
using per_sample::GradientSums;
using per_sample::GroupPass;
using per_sample::Groups;
using per_sample::Keep;
using per_sample::NormBounds;
using per_sample::NormChoice;
using per_sample::NormMethod;
using per_sample::SiteShape;
using per_sample::Strategy;
using per_sample::StrategyOptions;
using test::refuses;

nn::TransformerConfig config(bool tied, double dropout = 0) {
  return {.vocabulary = 23,
          .width = 16,
          .layers = 2,
          .heads = 2,
          .context = 12,
          .tied = tied,
          .dropout = dropout,
          .seed = test::seed()};
}

/// Every strategy, budgets that some and none of the parameters fit into, each norm by force, both ways to keep gradients.
std::vector<StrategyOptions> all_options(test::Rng& rng) {
  std::vector<StrategyOptions> options;
  for (Strategy s : {Strategy::automatic, Strategy::book_keeping, Strategy::two_pass, Strategy::materialised})
    for (NormChoice n : {NormChoice::automatic, NormChoice::gram, NormChoice::instantiate})
      options.push_back({.strategy = s, .norms = n});
  for (Strategy s : {Strategy::automatic, Strategy::materialised})
    options.push_back({.strategy = s, .gradients = GradientStorage::compute});
  for (index_t bytes : {index_t(0), rng.integer(1000, 60000), index_t(1) << 30}) options.push_back({.byte_budget = bytes});
  return options;
}
std::string text(const StrategyOptions& o) {
  return dpmp::detail::concat(per_sample::name_of(o.strategy), ", norms ", int(o.norms), ", budget ",
                              o.byte_budget.value_or(-1), ", gradients ", int(o.gradients));
}

/// A forward pass of the model, for as many walks as are wanted.
struct Pass {
  Pass(Context& ctx, const nn::Transformer& model, const test::Tokens& data) : tape(ctx, data.samples()) {
    tape.key_randomness({{}, 3, SampleIdentities(ctx, ids(data.samples()))});
    losses = cross_entropy(model(tape, data.ids), data.targets);
  }
  static std::vector<RecordId> ids(index_t n) {
    std::vector<RecordId> r;
    for (index_t i = 0; i < n; ++i) r.push_back(stable_id({}, std::uint64_t(100 + i)));
    return r;
  }
  Tape tape;
  Variable losses;
};

/// What a strategy released for these factors, and the norms it found.
struct Outcome {
  std::vector<double> sum;
  std::optional<NormBounds> norms;
  bool walked_again = false;
};
Outcome outcome(Context& ctx, const nn::Transformer& model, const test::Tokens& data, const StrategyOptions& options,
                const std::vector<float>& factors) {
  Pass pass(ctx, model, data);
  ClippedSumSink sink(Groups::flat(model.parameters().all()), options);
  GradientSums sums(ctx, model.parameters().all());
  Outcome result;
  per_sample::clipped_backward(
      pass.tape, pass.losses, Tensor(), sink,
      [&](index_t, const NormBounds& norms) {
        result.norms = norms;
        return factors;
      },
      sums);
  result.walked_again = sink.walks_again();
  result.sum = test::flat(sums);
  return result;
}
}  // namespace

TEST_CASE("P13: all strategies agree on norms, clipped sums and the certificate, tied and untied, in every dtype") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (bool tied : {false, true}) {
      const nn::Transformer model(ctx, config(tied, 0.1), dtype);
      const index_t samples = 4;
      const test::Tokens data = test::random_tokens(ctx, rng, samples, 12, 23);
      std::vector<float> factors;
      for (index_t i = 0; i < samples; ++i) factors.push_back(i == 2 ? 0.0f : float(rng.uniform(0.1, 1)));
      // The oracle takes the stored operands of one more walk, as the rules emit them.
      struct Sites final : GradientSink {
        std::map<const Parameter*, per_sample::SiteList> of;
        void accept(Context&, const ParameterSite& site) override { of[site.parameter].push_back(site); }
      } raw;
      Pass pass(ctx, model, data);
      pass.tape.backward(pass.losses, raw);
      std::vector<double> exact(std::size_t(samples), 0.0), expected;
      double scale = 0;
      std::map<const Parameter*, std::vector<double>> sum_of;
      for (const auto& [parameter, sites] : raw.of) {
        auto& sum = sum_of[parameter];
        sum.assign(std::size_t(parameter->numel()), 0.0);
        for (index_t i = 0; i < samples; ++i) {
          const std::vector<double> g = test::oracle_gradient(sites, i);
          const double norm = test::norm(g), c = double(factors[std::size_t(i)]);
          exact[std::size_t(i)] += norm * norm;
          scale += c * norm;
          for (std::size_t j = 0; j < g.size(); ++j) sum[j] += c * g[j];
        }
      }
      for (const Parameter* p : model.parameters().all()) {
        const auto& sum = sum_of.at(p);
        expected.insert(expected.end(), sum.begin(), sum.end());
      }
      for (const StrategyOptions& options : all_options(rng)) {
        CAPTURE(text(options));
        CAPTURE(tied);
        CAPTURE(name_of(dtype));
        const Outcome got = outcome(ctx, model, data, options, factors);
        // One rounding of each coordinate to bf16.
        const double narrow =
            options.gradients == GradientStorage::compute && dtype == DType::bf16 ? unit_roundoff(dtype) : 0;
        CHECK(test::distance(got.sum, expected) <= (1e-5 + narrow) * scale);
        for (index_t i = 0; i < samples; ++i) {
          const double norm = std::sqrt(exact[std::size_t(i)]);
          CHECK(std::fabs(got.norms->norm(i) - norm) <= (1e-5 + narrow) * norm);
          CHECK(got.norms->upper(i) >= (1 - 1e-5 - narrow) * norm);  // what is released may be rounded below it
          CHECK(got.norms->upper(i) <= (1.005 + narrow) * norm);
        }
        CHECK(got.walked_again == (options.strategy == Strategy::two_pass || options.byte_budget.value_or(1 << 30) < 60001));
      }
    }
}

TEST_CASE("P1, P13: gradients kept in bf16 are normed and released as they are stored, in half the bytes") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const index_t samples = 3;
  for (const bool tied : {false, true}) {
    const nn::Transformer model(ctx, config(tied), DType::bf16);
    const test::Tokens data = test::random_tokens(ctx, rng, samples, 12, 23);
    index_t bytes[2];
    for (const GradientStorage storage : {GradientStorage::accumulate, GradientStorage::compute}) {
      Pass pass(ctx, model, data);
      GroupPass sink({.strategy = Strategy::materialised, .gradients = storage});
      pass.tape.backward(pass.losses, sink);
      const NormBounds norms = sink.norms(ctx, samples);
      bytes[std::size_t(storage)] = 0;
      std::vector<double> squares(std::size_t(samples), 0.0);
      GradientSums sums(ctx, model.parameters().all());
      const std::vector<float> second{0, 0.37f, 0};
      sink.weighted_sum(ctx, second, sums);
      for (const per_sample::SiteList& list : sink.lists()) {
        const Tensor& kept = list[0].b;
        const bool matrix = list[0].parameter->shape().rank() == 2 && list[0].parameter->name() != "positions.weight";
        if (matrix) bytes[std::size_t(storage)] += kept.bytes();
        if (matrix) CHECK((kept.dtype() == DType::bf16) == (storage == GradientStorage::compute));
        const std::vector<double> values = kept.to_doubles(), sum = sums.of(*list[0].parameter).to_doubles();
        const std::size_t n = values.size() / std::size_t(samples);
        for (std::size_t i = 0; i < squares.size(); ++i)
          for (std::size_t j = 0; j < n; ++j) squares[i] += values[i * n + j] * values[i * n + j];
        for (std::size_t j = 0; j < n; ++j) CHECK(sum[j] == double(0.37f * float(values[n + j])));
      }
      for (index_t i = 0; i < samples; ++i) {
        const double norm = std::sqrt(squares[std::size_t(i)]);
        CHECK(norms.norm(i) == doctest::Approx(norm).epsilon(1e-5));
        CHECK(norms.upper(i) >= norm);
      }
    }
    CHECK(bytes[0] == 2 * bytes[1]);
  }
}

TEST_CASE("the second walk repeats every operand of the first one, bit for bit") {
  struct Copies final : GradientSink {
    std::vector<std::pair<const Parameter*, std::vector<double>>> all;
    std::vector<const Parameter*> finished;
    void accept(Context&, const ParameterSite& site) override {
      if (site.a.defined()) all.emplace_back(site.parameter, site.a.to_doubles());
      all.emplace_back(site.parameter, site.b.to_doubles());
    }
    void finish(Context&, Parameter& p) override { finished.push_back(&p); }
  };
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (bool tied : {false, true}) {
      const nn::Transformer model(ctx, config(tied, 0.2), dtype);
      Pass pass(ctx, model, test::random_tokens(ctx, rng, 5, 12, 23));
      Copies first, second;
      pass.tape.backward(pass.losses, first, Tensor(), AfterWalk::keep);
      pass.tape.backward(pass.losses, second);
      CHECK(first.all == second.all);
      // Every parameter is finished once, and only after its last site.
      CHECK(first.finished.size() == model.parameters().all().size());
      CHECK(std::set<const Parameter*>(first.finished.begin(), first.finished.end()).size() == first.finished.size());
      CHECK(refuses([&] { pass.tape.backward(pass.losses, second); }, "was not walked yet"));
    }
}

TEST_CASE("P1, P16: groups are clipped each to its own threshold, in one walk that keeps next to nothing") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16})
    for (bool tied : {false, true}) {
      const nn::Transformer model(ctx, config(tied), dtype);
      const auto parameters = model.parameters().all();
      const index_t samples = 5;
      const test::Tokens data = test::random_tokens(ctx, rng, samples, 12, 23);
      const auto halves = [](const Parameter& p) {
        return std::string(p.name().find("attention") != std::string::npos ? "a" : "b");
      };
      for (const Groups& groups :
           {Groups::by_parameter(parameters), Groups::by_layer(parameters), Groups::by(parameters, halves)})
        for (const StrategyOptions& options : {StrategyOptions{}, StrategyOptions{.strategy = Strategy::two_pass}}) {
          CAPTURE(groups.count());
          std::vector<double> thresholds;
          for (index_t g = 0; g < groups.count(); ++g) thresholds.push_back(rng.uniform(0.01, 0.1));
          for (index_t alone = 0; alone < samples; ++alone) {
            Pass pass(ctx, model, data);
            ClippedSumSink sink(groups, options);
            GradientSums sums(ctx, parameters);
            std::vector<int> calls(std::size_t(groups.count()), 0);
            const auto rule = [&](index_t g, const NormBounds& norms) {
              std::vector<float> c(static_cast<std::size_t>(samples));
              ++calls[std::size_t(g)];
              dp::FlatClipping(thresholds[std::size_t(g)]).factors(norms.upper(), norms.finite(), c);
              for (index_t i = 0; i < samples; ++i)
                if (i != alone) c[std::size_t(i)] = 0;
              return c;
            };
            per_sample::clipped_backward(pass.tape, pass.losses, Tensor(), sink, rule, sums);
            CHECK(calls == std::vector<int>(calls.size(), 1));
            std::vector<double> squares(thresholds.size(), 0.0);
            for (std::size_t k = 0; k < parameters.size(); ++k) {
              const double n = test::norm(sums.tensors()[k].to_doubles());
              squares[std::size_t(groups.of(*parameters[k]))] += n * n;
            }
            for (std::size_t g = 0; g < squares.size(); ++g) {
              CHECK(std::sqrt(squares[g]) <= thresholds[g]);
              CHECK(std::sqrt(squares[g]) >= 0.9 * thresholds[g]);  // these gradients are all larger
            }
          }
        }
    }
}

TEST_CASE("a group for each parameter and two passes peak far below book-keeping") {
  const auto peak = [](const std::function<Groups(std::span<Parameter* const>)>& grouping, const StrategyOptions& options) {
    Context ctx(Device::cpu(), 1);
    test::Rng rng;
    nn::Parameters parameters(ctx, DType::f32, test::seed());
    std::vector<nn::Linear> layers;
    for (int k = 0; k < 12; ++k) layers.emplace_back(parameters / ("layer" + std::to_string(k)), 32, 32);
    Tape tape(ctx, 16);
    Variable x = tape.input(test::normal_tensor(ctx, rng, {16, 64, 32}, DType::f32));
    for (const nn::Linear& layer : layers) x = layer(x);
    const Variable losses = mean_squared_error(x, Tensor::zeros(ctx, {16, 64, 32}, DType::f32));
    x = Variable();
    GradientSums sums(ctx, parameters.all());
    ClippedSumSink sink(grouping(parameters.all()), options);
    const index_t before = ctx.memory().live_bytes;
    ctx.reset_peak_memory();
    const auto half = [](index_t, const NormBounds& n) { return std::vector<float>(std::size_t(n.samples()), 0.5f); };
    per_sample::clipped_backward(tape, losses, Tensor(), sink, half, sums);
    return ctx.memory().peak_bytes - before;
  };
  const index_t book = peak(Groups::flat, {.strategy = Strategy::book_keeping}),
                twice = peak(Groups::flat, {.strategy = Strategy::two_pass}), groups = peak(Groups::by_parameter, {});
  CAPTURE(book);
  CAPTURE(twice);
  CAPTURE(groups);
  CHECK(2 * twice < book);
  CHECK(2 * groups < book);
}

TEST_CASE("parameters that share their input share its Gram and keep their norms") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16}) {
    nn::Parameters parameters(ctx, dtype, test::seed());
    const nn::Linear q(parameters / "q", 9, 4), k(parameters / "k", 9, 11), v(parameters / "v", 9, 7);
    const Tensor x = test::normal_tensor(ctx, rng, {3, 6, 9}, dtype);
    std::vector<std::vector<double>> norms;
    for (NormChoice choice : {NormChoice::gram, NormChoice::instantiate}) {
      Tape tape(ctx, 3);
      const Variable in = tape.input(x);
      const Variable y = concat({q(in), k(in), v(in)}, -1);
      GroupPass sink({.strategy = Strategy::book_keeping, .norms = choice});
      tape.backward(mean_squared_error(y, Tensor::zeros(ctx, {3, 6, 22}, DType::f32)), sink);
      const NormBounds bounds = sink.norms(ctx, 3);
      norms.push_back({bounds.norm(0), bounds.norm(1), bounds.norm(2)});
      for (index_t i = 0; i < 3; ++i) {
        double squared = 0;
        for (const auto& sites : sink.lists()) {
          const double n = test::norm(test::oracle_gradient(sites, i));
          squared += n * n;
        }
        CHECK(bounds.norm(i) == doctest::Approx(std::sqrt(squared)).epsilon(1e-5));
        CHECK(bounds.upper(i) >= std::sqrt(squared) * (1 - 1e-5));
      }
    }
  }
}

TEST_CASE("the choice is a pure function of public shapes, and follows another number of tokens") {
  const auto way = [](index_t tokens, index_t p, index_t d, const StrategyOptions& o = {}, index_t kept = 0) {
    SiteShape s{.samples = 8, .tokens = tokens, .p = p, .d = d};
    s.site_bytes = 8 * tokens * (p + d) * 4;
    return per_sample::plan_parameter(s, o, kept);
  };
  CHECK(way(1, 768, 768).norm == NormMethod::rank_one);
  CHECK(way(32, 768, 768).norm == NormMethod::gram);
  CHECK(way(32, 768, 768).keep == Keep::sites);
  CHECK(way(512, 256, 256).keep == Keep::gradients);
  CHECK(way(512, 256, 256, {.strategy = Strategy::book_keeping}).norm == NormMethod::instantiate);
  CHECK(way(512, 256, 256, {.byte_budget = 0}).keep == Keep::second_walk);
  const index_t gradients = 8 * 256 * 256 * 4;
  CHECK(way(512, 256, 256, {.byte_budget = gradients}).keep == Keep::gradients);
  CHECK(way(512, 256, 256, {.byte_budget = gradients}, 1).keep == Keep::second_walk);
  CHECK(way(512, 256, 256, {.norms = NormChoice::gram}).kept_bytes == gradients);
  // Of at most so many bytes a sample as gradients, what is beyond keeps sites, and is not walked again.
  const SiteShape square{.samples = 8, .tokens = 512, .p = 256, .d = 256, .site_bytes = 8 * 512 * 512 * 4};
  const auto limited = [&](index_t bytes, index_t kept) {
    return per_sample::plan_parameter(square, {.gradient_bytes = bytes}, kept, kept).keep;
  };
  CHECK(limited(gradients / 8, 0) == Keep::gradients);
  CHECK(limited(gradients / 8 - 1, 0) == Keep::sites);
  CHECK(limited(gradients / 8, 1) == Keep::sites);
  CHECK(limited(gradients / 4, gradients) == Keep::gradients);
  // A kept gradient in bf16 takes half the bytes; other dtypes keep FP32.
  const auto kept_bytes = [](DType dtype, bool on_cuda) {
    const SiteShape s{.samples = 8, .tokens = 512, .p = 256, .d = 256, .dtype = dtype, .on_cuda = on_cuda};
    return per_sample::plan_parameter(s, {.strategy = Strategy::materialised, .gradients = GradientStorage::compute}, 0)
        .kept_bytes;
  };
  for (const bool on_cuda : {false, true}) {
    CHECK(kept_bytes(DType::bf16, on_cuda) == gradients / 2);
    CHECK(kept_bytes(DType::f16, on_cuda) == gradients);
    CHECK(kept_bytes(DType::f32, on_cuda) == gradients);
  }
  // A GPU forms half of a Gram and pays more for memory beside arithmetic: at 512 tokens of width 768 a Gram is cheaper
  // there than a tile, on a CPU dearer; at 128 tokens it keeps sites, at 1024 gradients.
  const auto on = [](bool cuda, index_t tokens) {
    SiteShape s{.samples = 8, .tokens = tokens, .p = 768, .d = 768, .dtype = DType::bf16, .on_cuda = cuda};
    s.site_bytes = 8 * tokens * (768 + 768) * 2;
    return per_sample::plan_parameter(s, {}, 0);
  };
  CHECK(per_sample::choose_norm_method({.tokens = 512, .p = 768, .d = 768, .dtype = DType::bf16, .on_cuda = true}) ==
        NormMethod::gram);
  CHECK(per_sample::choose_norm_method({.tokens = 512, .p = 768, .d = 768, .dtype = DType::bf16}) ==
        NormMethod::instantiate);
  CHECK(on(true, 128).keep == Keep::sites);
  CHECK(on(true, 1024).keep == Keep::gradients);
  CHECK(refuses([] { GroupPass sink({.byte_budget = -1}); }, "byte budget >= 0"));
  CHECK(refuses([] { GroupPass sink({.strategy = Strategy::two_pass, .byte_budget = 5}); }, "the automatic strategy"));
  // One sink, two passes of different length: nothing is remembered.
  Context ctx(Device::cpu(), 1);
  Parameter w(ctx, "w", Tensor::zeros(ctx, {64, 64}, DType::f32), DType::f32);
  std::vector<Keep> chosen;
  GroupPass sink({}, [&](const Parameter&, const SiteShape&, const per_sample::NormPlan& x) { chosen.push_back(x.keep); });
  for (index_t tokens : {2, 300, 2}) {
    sink.clear();
    sink.accept(ctx, ParameterSite::outer_product(w, Tensor::zeros(ctx, {2, tokens, 64}, DType::f32),
                                                  Tensor::zeros(ctx, {2, tokens, 64}, DType::f32)));
    sink.norms(ctx, 2);
  }
  CHECK(chosen == std::vector<Keep>{Keep::sites, Keep::gradients, Keep::sites});
}
