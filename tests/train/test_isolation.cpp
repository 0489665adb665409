// SPDX-License-Identifier: Apache-2.0
// The checked mode: it lets good losses pass, and names what mixes samples in bad ones.
#include <doctest/doctest.h>

#include <numeric>
#include <set>

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
      for (index_t k = 0; k < width; ++k) x.push_back(table[std::size_t(s * width + k)]);
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
          ctx, [&](const train::Batch& b) { return small.good(b.tape, b.records); }, records);
      const auto dropped = [&](const train::Batch& batch) {
        const Variable x = small.input(batch.tape, small.rows(batch.records));
        return small.loss(small.output(dropout(x, 0.5, {}, SampleIdentities(ctx, names(batch.records)))));
      };
      check_isolation(ctx, dropped, records);
      test::TinyTraining gpt(ctx, dtype, {}, true);
      for (const auto strategy : {per_sample::Strategy::automatic, per_sample::Strategy::book_keeping})
        check_isolation(ctx, [&](const train::Batch& b) { return gpt.loss(b.tape, b.records); }, records,
                        {.slots_tried = 2, .strategy = {.strategy = strategy}});
    }
  }
}

TEST_CASE("checked mode: negatives from the batch, computed on the host and fed back as inputs") {
  Context ctx(Device::cpu(), 2);
  const Small small(ctx, DType::f32);
  // The logits of a record: its output with the outputs of all records of the batch.
  const auto losses = [&](const train::Batch& batch) {
    const Variable y = small.output(small.input(batch.tape, small.rows(batch.records)));
    const std::vector<double> all = y.value().to_doubles();
    std::vector<double> negatives;
    for (index_t i = 0; i < batch.tape.samples(); ++i) negatives.insert(negatives.end(), all.begin(), all.end());
    const Variable others =
        batch.tape.input(Tensor::from(ctx, {batch.tape.samples(), batch.tape.samples(), 4}, DType::f32, negatives));
    return small.loss(matmul(reshape(y, {batch.tape.samples(), 1, 4}), others, false, true));
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
  const auto on_the_host = [&](const train::Batch& batch) {
    return small.loss(small.output(small.input(batch.tape, centred(small.rows(batch.records)))));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, on_the_host, records); }, "forward value 0 (input)"));

  const auto recorded = [&](const train::Batch& batch) {
    const Variable x = small.first(small.input(batch.tape, small.rows(batch.records)));
    std::vector<double> y = x.value().to_doubles();
    double mean = 0;
    for (const double v : y) mean += v / double(y.size());
    for (double& v : y) v -= mean;
    return small.loss(small.second(batch.tape.record(Tensor::from(ctx, x.shape(), DType::f32, y), true, Centre{x.slot()})));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, recorded, records); }, "(centre)"));
}

TEST_CASE("checked mode: dropout ids that are slots") {
  Context ctx(Device::cpu(), 2);
  const Small small(ctx, DType::f32);
  const auto losses = [&](const train::Batch& batch) {
    std::vector<index_t> places(batch.records.size());
    std::iota(places.begin(), places.end(), 0);
    const Variable x = small.input(batch.tape, small.rows(batch.records));
    return small.loss(small.output(dropout(x, 0.5, {}, SampleIdentities(ctx, names(places)))));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, losses, records); }, "(dropout)"));
}

TEST_CASE(
    "checked mode: a backward pass that mixes samples, losses divided by the records of the batch, state between calls") {
  Context ctx(Device::cpu(), 1);
  const Small small(ctx, DType::f32);
  const auto backward = [&](const train::Batch& batch) {
    const Variable x = small.first(small.input(batch.tape, small.rows(batch.records)));
    return small.loss(small.second(batch.tape.record(x.value(), true, Mixing{x.slot()})));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, backward, records); }, "gradients of first."));
  const auto divided = [&](const train::Batch& batch) {
    // Empty slots repeat a record.
    const std::set<index_t> held(batch.records.begin(), batch.records.end());
    return scale(small.good(batch.tape, batch.records), 1 / double(held.size()));
  };
  CHECK(test::refuses([&] { check_isolation(ctx, divided, records); }, "was emptied"));
  int calls = 0;
  const auto counting = [&](const train::Batch& batch) { return scale(small.good(batch.tape, batch.records), 1 + ++calls); };
  CHECK(test::refuses([&] { check_isolation(ctx, counting, records); }, "the same batch was computed again"));
  const auto shape = [&](const train::Batch& batch) {
    const bool full = std::set<index_t>(batch.records.begin(), batch.records.end()).size() == batch.records.size();
    return !full ? scale(small.good(batch.tape, batch.records), 1) : small.good(batch.tape, batch.records);
  };
  CHECK(test::refuses([&] { check_isolation(ctx, shape, records); }, "the operations depend on the records"));
}

TEST_CASE("checked mode: a trainer validates its losses on public records") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  test::TinyTraining run(ctx, DType::bf16);
  train::Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records());
  const std::vector<double> before = run.masters();
  const std::vector<index_t> some{1, 4, 2, 7};
  CHECK(trainer.validate([&](const train::Batch& b) { return run.loss(b.tape, b.records); }, some).rows().size() > 5);
  const auto mixing = [&](const train::Batch& batch) {
    const Variable loss = run.loss(batch.tape, batch.records);
    std::vector<double> mean(batch.records.size(), 0.0);
    for (const double v : loss.value().to_doubles())
      for (double& m : mean) m += v / double(batch.records.size());
    return multiply(loss, batch.tape.input(Tensor::from(ctx, loss.shape(), loss.dtype(), mean)));
  };
  CHECK(test::refuses([&] { trainer.validate(mixing, some); }, "(input)"));
  CHECK(trainer.steps() == 0);
  CHECK(run.masters() == before);
}

TEST_CASE("P11, P15: checked mode looks at the gradients of the run's loss scaling: without it these are all 0 in f16") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Small small(ctx, DType::f16);
  const auto backward = [&](const train::Batch& batch) {
    const Variable x = small.first(small.input(batch.tape, small.rows(batch.records)));
    return scale(small.loss(small.second(batch.tape.record(x.value(), true, Mixing{x.slot()}))), 0x1p-34);
  };
  const auto kept = [&](const train::Batch& batch) { return scale(small.good(batch.tape, batch.records), 0x1p-34); };
  check_isolation(ctx, backward, records);
  dp::PlanOptions counting{.delta = 1e-5, .sampling_rate = 0.5, .steps = 5, .dataset_size = 30};
  counting.overflow = dp::OverflowOptions{.count_noise = 1, .share = 0.5, .initial_scale = 0x1p30};
  dp::PlanOptions plain = counting;
  plain.overflow.reset();
  const auto refused = [&](const dp::PlanOptions& o, const std::optional<LossScaling>& scaling) {
    train::Trainer trainer(ctx, small.parameters, dp::Plan::with_noise_multiplier(o, 0.7), test::random_keys(rng), 30,
                           {.loss_scaling = scaling});
    CHECK_NOTHROW(trainer.validate(kept, records));
    return test::refuses([&] { trainer.validate(backward, records); }, "gradients of first.");
  };
  CHECK(refused(counting, {}));
  CHECK(refused(plain, {}));
  CHECK(refused(plain, LossScaling::fixed(0x1p30)));
  CHECK_FALSE(refused(plain, LossScaling()));
}

TEST_CASE("checked mode: bad input is refused") {
  Context ctx(Device::cpu(), 1);
  const Small small(ctx, DType::f32);
  const auto losses = [&](const train::Batch& b) { return small.good(b.tape, b.records); };
  CHECK(test::refuses([&] { check_isolation(ctx, losses, std::vector<index_t>{1, 2}); }, "at least three records"));
  CHECK(test::refuses([&] { check_isolation(ctx, losses, std::vector<index_t>{1, 2, 1}); }, "expected different records"));
}
