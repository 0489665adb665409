// SPDX-License-Identifier: Apache-2.0
// The checked mode: it lets good losses pass, and names what mixes samples in bad ones.
#include <doctest/doctest.h>

#include <numeric>

#include "dpmp/autograd/rules/dropout.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/matmul.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/train/isolation.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using train::check_isolation;

namespace {
const std::vector<index_t> records{3, 11, 0, 7, 5, 20, 9};
constexpr index_t width = 6;

/// Two linear layers on made-up records: record r is the row r of a table.
struct Small {
  Small(Context& context, DType type)
      : ctx(context),
        dtype(type),
        parameters(context, type, 3),
        first(parameters / "first", width, 5),
        second(parameters / "second", 5, 4) {
    test::Rng rng(test::seed(), 40);
    table = test::normal_tensor(ctx, rng, {30, width}, DType::f64).to_doubles();
  }
  std::vector<double> rows(std::span<const index_t> slots) const {
    std::vector<double> x;
    for (const index_t s : slots)
      for (index_t k = 0; k < width; ++k) x.push_back(s < 0 ? 0 : table[std::size_t(s * width + k)]);
    return x;
  }
  Variable input(Tape& tape, const std::vector<double>& x) const {
    return tape.input(Tensor::from(ctx, {tape.samples(), width}, dtype, x));
  }
  Variable output(const Variable& x) const { return second(gelu(first(x))); }
  Variable loss(const Variable& y) const { return mean_squared_error(y, Tensor::zeros(ctx, y.shape(), DType::f32)); }
  Variable good(Tape& tape, std::span<const index_t> slots) const { return loss(output(input(tape, rows(slots)))); }
  Context& ctx;
  DType dtype;
  nn::Parameters parameters;
  nn::Linear first, second;
  std::vector<double> table;
};
std::vector<RecordId> names(std::span<const index_t> numbers) {
  std::vector<RecordId> ids;
  for (const index_t n : numbers) ids.push_back(stable_id(Key256{}, std::uint64_t(n)));
  return ids;
}
/// Hands gradients on; what it is recorded with was computed from the whole batch.
struct Centre {
  static constexpr std::string_view name = "centre";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, gradient); }
};
/// Adds every sample's gradients to every other's.
struct Mixing {
  static constexpr std::string_view name = "mixing";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    std::vector<double> g = gradient.to_doubles();
    double sum = 0;
    for (const double v : g) sum += v;
    for (double& v : g) v += sum;
    pass.accumulate(x, Tensor::from(pass.ctx, x.shape, x.dtype, g));
  }
};
}  // namespace

TEST_CASE("checked mode: models that keep samples apart pass, dropout keyed by the record too") {
  for (const int threads : {1, 2}) {
    Context ctx(Device::cpu(), threads);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const Small small(ctx, dtype);
      check_isolation(
          ctx, [&](Tape& t, std::span<const index_t> s) { return small.good(t, s); }, records);
      const auto dropped = [&](Tape& t, std::span<const index_t> s) {
        const Variable x = small.input(t, small.rows(s));
        return small.loss(small.output(dropout(x, 0.5, {}, SampleIdentities(ctx, names(s)))));
      };
      check_isolation(ctx, dropped, records);
      test::TinyTraining gpt(ctx, dtype, {}, true);
      for (const auto strategy : {per_sample::Strategy::automatic, per_sample::Strategy::book_keeping})
        check_isolation(ctx, [&](Tape& t, std::span<const index_t> s) { return gpt.loss(t, s); }, records,
                        {.slots_tried = 2, .strategy = {.strategy = strategy}});
    }
  }
}

TEST_CASE("checked mode: negatives from the batch, computed on the host and fed back as inputs") {
  Context ctx(Device::cpu(), 2);
  const Small small(ctx, DType::f32);
  // The logits of a record: its output with the outputs of all records of the batch.
  const auto losses = [&](Tape& tape, std::span<const index_t> slots) {
    const Variable y = small.output(small.input(tape, small.rows(slots)));
    const std::vector<double> all = y.value().to_doubles();
    std::vector<double> negatives;
    for (index_t i = 0; i < tape.samples(); ++i) negatives.insert(negatives.end(), all.begin(), all.end());
    const Variable others = tape.input(Tensor::from(ctx, {tape.samples(), tape.samples(), 4}, DType::f32, negatives));
    return small.loss(matmul(reshape(y, {tape.samples(), 1, 4}), others, false, true));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, losses, records); }, "(input)"));
  CHECK(test::refuses([&] { check_isolation(ctx, losses, records); }, "was replaced by 9"));
}

TEST_CASE("checked mode: the mean of the batch subtracted by the program, and inside of a recorded operation") {
  Context ctx(Device::cpu(), 2);
  const Small small(ctx, DType::f32);
  const auto centred = [](std::vector<double> x) {
    const std::size_t n = x.size() / std::size_t(width);
    for (index_t k = 0; k < width; ++k) {
      double mean = 0;
      for (std::size_t i = 0; i < n; ++i) mean += x[i * std::size_t(width) + std::size_t(k)] / double(n);
      for (std::size_t i = 0; i < n; ++i) x[i * std::size_t(width) + std::size_t(k)] -= mean;
    }
    return x;
  };
  const auto on_the_host = [&](Tape& tape, std::span<const index_t> slots) {
    return small.loss(small.output(small.input(tape, centred(small.rows(slots)))));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, on_the_host, records); }, "forward value 0 (input)"));

  const auto recorded = [&](Tape& tape, std::span<const index_t> slots) {
    const Variable x = small.first(small.input(tape, small.rows(slots)));
    std::vector<double> y = x.value().to_doubles();
    double mean = 0;
    for (const double v : y) mean += v / double(y.size());
    for (double& v : y) v -= mean;
    return small.loss(small.second(tape.record(Tensor::from(ctx, x.shape(), DType::f32, y), true, Centre{x.slot()})));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, recorded, records); }, "(centre)"));
}

TEST_CASE("checked mode: dropout ids that are slots") {
  Context ctx(Device::cpu(), 2);
  const Small small(ctx, DType::f32);
  const auto losses = [&](Tape& tape, std::span<const index_t> slots) {
    std::vector<index_t> places(slots.size());
    std::iota(places.begin(), places.end(), 0);
    const Variable x = small.input(tape, small.rows(slots));
    return small.loss(small.output(dropout(x, 0.5, {}, SampleIdentities(ctx, names(places)))));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, losses, records); }, "(dropout)"));
}

TEST_CASE(
    "checked mode: a backward pass that mixes samples, losses divided by the records of the batch, state between calls") {
  Context ctx(Device::cpu(), 1);
  const Small small(ctx, DType::f32);
  const auto backward = [&](Tape& tape, std::span<const index_t> slots) {
    const Variable x = small.first(small.input(tape, small.rows(slots)));
    return small.loss(small.second(tape.record(x.value(), true, Mixing{x.slot()})));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, backward, records); }, "gradients of first."));
  const auto divided = [&](Tape& tape, std::span<const index_t> slots) {
    const auto held = std::count_if(slots.begin(), slots.end(), [](index_t s) { return s >= 0; });
    return scale(small.good(tape, slots), 1 / double(held));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, divided, records); }, "was emptied"));
  int calls = 0;
  const auto counting = [&](Tape& tape, std::span<const index_t> slots) {
    return scale(small.good(tape, slots), 1 + ++calls);
  };
  CHECK(test::refuses([&] { check_isolation(ctx, counting, records); }, "the same batch was computed again"));
  const auto shape = [&](Tape& tape, std::span<const index_t> slots) {
    const bool masked = std::count(slots.begin(), slots.end(), dp::masked_slot) > 0;
    return masked ? scale(small.good(tape, slots), 1) : small.good(tape, slots);
  };
  CHECK(test::refuses([&] { check_isolation(ctx, shape, records); }, "the operations depend on the records"));
}

TEST_CASE("checked mode: a trainer validates its losses on public records") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  test::TinyTraining run(ctx, DType::bf16);
  train::PrivateTrainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records());
  const std::vector<double> before = run.masters();
  const std::vector<index_t> some{1, 4, 2, 7};
  CHECK(trainer.validate([&](Tape& t, std::span<const index_t> s) { return run.loss(t, s); }, some).rows().size() > 5);
  const auto mixing = [&](Tape& t, std::span<const index_t> s) {
    const Variable loss = run.loss(t, s);
    std::vector<double> mean(s.size(), 0.0);
    for (const double v : loss.value().to_doubles())
      for (double& m : mean) m += v / double(s.size());
    return multiply(loss, t.input(Tensor::from(ctx, loss.shape(), loss.dtype(), mean)));
  };
  CHECK(test::refuses([&] { trainer.validate(mixing, some); }, "(input)"));
  CHECK(trainer.steps() == 0);
  CHECK(run.masters() == before);
}

TEST_CASE("checked mode: bad input is refused") {
  Context ctx(Device::cpu(), 1);
  const Small small(ctx, DType::f32);
  const auto losses = [&](Tape& t, std::span<const index_t> s) { return small.good(t, s); };
  CHECK(test::refuses([&] { check_isolation(ctx, losses, std::vector<index_t>{1, 2}); }, "at least three records"));
  CHECK(test::refuses([&] { check_isolation(ctx, losses, std::vector<index_t>{1, 2, 1}); }, "expected different records"));
}
