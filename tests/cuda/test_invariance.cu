// SPDX-License-Identifier: Apache-2.0
// P34 on a GPU: what is released of a record has the same bits in every slot of a physical batch, whatever the others hold;
// and a record that is really removed, so that all later ones move, moves the sum by no more than the declared sensitivity.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <numeric>

#include "cuda/clipped_sums.hpp"
#include "cuda/device_gpt.hpp"
#include "cuda/device_mlp.hpp"
#include "dpmp/dpmp.cuh"
#include "dpmp/nn/linear.hpp"
#include "dpmp/nn/vision.hpp"

namespace {
using namespace dpmp;
using test::SumCase;
constexpr index_t none = train::masked_slot;
constexpr double C = 0.4;

/// A model whose records can be put into any slots; the last one is broken.
struct Subject {
  index_t records;
  std::vector<Parameter*> parameters;
  std::function<Variable(const train::Batch&)> losses;
};
template <class Model>
Subject subject(const std::shared_ptr<Model>& model, const nn::Parameters& parameters, index_t records) {
  const auto losses = [model](const train::Batch& b) { return model->losses()(b); };
  return {records, {parameters.all().begin(), parameters.all().end()}, losses};
}

template <bool tied>
Subject gpt(Context& ctx, DType dtype) {
  const auto model = std::make_shared<test::DeviceGpt>(ctx, dtype, nn::TransformerConfig{.tied = tied}, 8);
  model->ids[std::size_t(7 * model->tokens + 2)] = 999;  // no token: NaN from there on
  return subject(model, model->model.parameters(), model->records);
}

/// One token a sample; widths that leave rows off 16-byte boundaries; dropout.
Subject mlp(Context& ctx, DType dtype) {
  const auto model = std::make_shared<test::DeviceMlp>(
      ctx, dtype, test::MlpSizes{.records = 8, .inputs = 27, .hidden = 41, .classes = 7, .dropout = 0.25});
  model->rows.values[7 * 27 + 13] = NAN;
  return subject(model, model->parameters, model->rows.records);
}

struct Cnn {
  Cnn(Context& context, DType dtype)
      : ctx(context),
        parameters(context, dtype, test::seed()),
        first(parameters / "first", 2, 6, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}),
        depthwise(parameters / "depthwise", 6, 12, {.kernel = {3, 3}, .dilation = {1, 2}, .groups = 6}),
        norm(parameters / "norm", 12, 3),
        head(parameters / "head", 12, 5),
        rows(8, 9 * 9 * 2) {}
  auto losses() const {
    return [this](const train::Batch& batch) {
      const index_t samples = index_t(batch.records.size());
      const Variable images =
          batch.tape.input(Tensor::from(ctx, {samples, 9, 9, 2}, parameters.dtype(), rows.of(batch.records)));
      const Variable features = norm(depthwise(max_pool2d(tanh(first(images)), {.kernel = {2, 2}, .padding = {1, 1}})));
      return cross_entropy(head(global_average_pool(tanh(features))),
                           Tensor::from(ctx, {samples}, rows.labels(batch.records, 5)));
    };
  }
  Context& ctx;
  nn::Parameters parameters;
  nn::Conv2d first, depthwise;
  nn::GroupNorm norm;
  nn::Linear head;
  test::DeviceRows rows;
};
Subject cnn(Context& ctx, DType dtype) {
  const auto model = std::make_shared<Cnn>(ctx, dtype);
  model->rows.values[7 * 9 * 9 * 2 + 81] = NAN;
  return subject(model, model->parameters, model->rows.records);
}

struct Kind {
  std::string name;
  Subject (*make)(Context&, DType);
};
const Kind kinds[] = {{"GPT", gpt<false>}, {"tied GPT", gpt<true>}, {"MLP", mlp}, {"CNN", cnn}};

struct Released {
  double upper;
  std::vector<double> sum;
};
/// The certified norm of the record in one slot, and its contribution: all other factors are 0.
Released released(Context& ctx, const Subject& x, const SumCase& way, std::span<const index_t> slots, index_t slot) {
  const dp::FlatClipping clipping(C, way.rule);
  per_sample::GradientSums sums(ctx, x.parameters);
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(x.parameters), way.options);
  Released r{};
  Tape tape(ctx, index_t(slots.size()));
  const Variable loss = x.losses({tape, train::records_of(slots)});
  const Tensor weights = Tensor::full(ctx, {index_t(slots.size())}, DType::f32, 1);
  per_sample::clipped_backward(
      tape, loss, weights, sink,
      [&](index_t, const per_sample::NormBounds& norms) -> per_sample::SampleFactors {
        r.upper = norms.upper(slot);
        const per_sample::SampleFactors all = train::clip_factors(ctx, norms, slots, weights, clipping);
        std::vector<float> factors(slots.size());
        ctx.backend().copy_out(factors.data(), all.on(ctx), index_t(slots.size() * sizeof(float)));
        for (std::size_t i = 0; i < factors.size(); ++i)
          if (index_t(i) != slot) factors[i] = 0;
        return factors;
      },
      sums);
  r.sum = test::flat(sums);
  return r;
}
/// What of two releases has other bits, or "".
std::string difference(const Released& x, const Released& y) {
  const auto differ = [](const double& a, const double& b) { return std::memcmp(&a, &b, sizeof a) != 0; };
  std::size_t elements = 0;
  for (std::size_t k = 0; k < x.sum.size(); ++k) elements += differ(x.sum[k], y.sum[k]);
  std::string found;
  if (differ(x.upper, y.upper)) found = detail::concat("the certified norm: ", x.upper, " and ", y.upper, "; ");
  if (elements) found += detail::concat(elements, " elements of ", x.sum.size());
  return found;
}

/// A record alone in the first slot, alone in the last, and in one between them, beside others, broken ones and empty slots.
void check_slots(Context& ctx, test::Rng& rng, const Subject& x, const SumCase& way) {
  constexpr index_t slots = 6;  // no multiple of the rows a vector or a tile holds
  const index_t record = rng.integer(0, x.records - 2), slot = rng.integer(1, slots - 2), shift = rng.integer(0, 2);
  std::vector<index_t> first(slots, none), last(slots, none), between;
  first.front() = last.back() = record;
  for (index_t i = 0; i < slots; ++i) {
    const index_t content[] = {none, x.records - 1, rng.integer(0, x.records - 2)};
    between.push_back(i == slot ? record : content[(i + shift) % 3]);
  }
  const Released wanted = released(ctx, x, way, first, 0);
  CHECK(test::norm(wanted.sum) > 0.5 * C);
  CHECK(test::norm(wanted.sum) <= C);
  CAPTURE(record);
  CHECK_MESSAGE(difference(released(ctx, x, way, last, slots - 1), wanted) == "", "in the last slot");
  CHECK_MESSAGE(difference(released(ctx, x, way, between, slot), wanted) == "", "beside others in slot ", slot);
}

/// How far the clipped sum of all whole records moves, in physical batches of 4, when one of the first ones is removed.
double moved_by_a_removal(Context& ctx, test::Rng& rng, const Subject& x, const SumCase& way) {
  std::vector<index_t> all(std::size_t(x.records - 1));
  std::iota(all.begin(), all.end(), index_t(0));
  std::vector<index_t> less = all;
  less.erase(less.begin() + rng.integer(0, 3));
  for (std::vector<index_t>* slots : {&all, &less}) slots->resize(8, none);
  return test::distance(test::clipped_sum(ctx, x.parameters, x.losses, all, way, C, 4),
                        test::clipped_sum(ctx, x.parameters, x.losses, less, way, C, 4));
}
}  // namespace

TEST_CASE("P34: on CUDA a contribution has the same bits in every slot, beside anything") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng(test::seed(), 77);
  for (const Kind& kind : kinds)
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Subject x = kind.make(ctx, dtype);
      for (const SumCase& way : test::sum_cases()) {
        const bool narrow = way.options.gradients == per_sample::GradientStorage::compute;
        if (narrow && dtype == DType::f32) continue;  // not narrower there
        CAPTURE(kind.name);
        CAPTURE(name_of(dtype));
        CAPTURE(way.name);
        check_slots(ctx, rng, x, way);
      }
    }
}

TEST_CASE("P34: on CUDA a record that is really removed moves the sum by at most the declared sensitivity") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng(test::seed(), 78);
  const std::vector<SumCase>& ways = test::sum_cases();
  std::size_t turn = 0;  // each way has one
  double largest = 0;
  for (const Kind& kind : kinds)
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const SumCase& way = ways[turn++ % ways.size()];
      CAPTURE(kind.name);
      CAPTURE(name_of(dtype));
      CAPTURE(way.name);
      const double moved = moved_by_a_removal(ctx, rng, kind.make(ctx, dtype), way);
      CHECK(moved <= C * (1 + 1e-6));
      CHECK(moved > 0.5 * C);
      largest = std::max(largest, moved / C);
    }
  MESSAGE("a removed record moves the sum by at most " << largest << " C");
}
