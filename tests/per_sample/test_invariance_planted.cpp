// SPDX-License-Identifier: Apache-2.0
// Ways in which a record's numbers can come to depend on its slot or on the others, planted: the check of P34 finds each.
#include <doctest/doctest.h>

#include <cstdio>

#include "dpmp/autograd/rules/dropout.hpp"
#include "dpmp/gemm/gemm.hpp"
#include "per_sample/invariance.hpp"

namespace {
using namespace dpmp;

/// x [B, width] of one record each goes through an operation written here, whose outputs' squares are the losses.
class PlantedModel final : public test::SlotModel {
 public:
  using Operation = std::function<Variable(Tape&, const Variable&, const test::Arrangement&)>;
  PlantedModel(Context& ctx, test::Rng& rng, index_t slots, index_t width, test::Symmetry symmetry, Operation operation)
      : ctx_(ctx),
        probe_(std::make_unique<Parameter>(ctx, "input", Tensor::zeros(ctx, {width}, DType::f32), DType::f32)),
        parameters_{probe_.get()},
        x_{Shape{slots, width}, std::vector<double>(std::size_t(slots * width))},
        operation_(std::move(operation)) {
    fill_records(rng, x_, symmetry, 1);
  }
  index_t records() const override { return x_.shape.front(); }
  const test::Parameters& parameters() const override { return parameters_; }
  Variable record(Tape& tape, const test::Arrangement& slots) const override {
    const Variable x = tape.input(Tensor::from(ctx_, x_.shape, DType::f32, test::arranged(x_.values, records(), slots)));
    const Variable probed = tape.record(x.value(), true, test::GradientProbe{x.slot(), probe_.get()});
    const Variable y = operation_(tape, probed, slots);
    return weighted_sum(multiply(y, y), std::vector<double>(std::size_t(y.value().numel()), 1.0));
  }

 private:
  Context& ctx_;
  std::unique_ptr<Parameter> probe_;
  test::Parameters parameters_;
  test::Values x_;
  Operation operation_;
};

/// A result recorded as an operation whose backward pass hands on the output's gradients, or, where there are not as many as
/// inputs, their mean: enough for the faults below to reach the contributions.
struct PlantedRule {
  static constexpr std::string_view name = "planted";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const std::vector<double> g = gradient.to_doubles();
    const std::size_t samples = std::size_t(x.shape.front()), width = std::size_t(x.shape[1]), out = g.size() / samples;
    std::vector<double> to_x(samples * width, 0.0);
    for (std::size_t i = 0; i < samples; ++i)
      for (std::size_t k = 0; k < width; ++k)
        if (out == width)
          to_x[i * width + k] = g[i * out + k];
        else
          for (std::size_t j = 0; j < out; ++j) to_x[i * width + k] += g[i * out + j] / double(out);
    pass.accumulate(x, Tensor::from(pass.ctx, x.shape, x.dtype, to_x));
  }
};
Variable planted(Tape& tape, const Variable& x, const Shape& shape, const std::vector<double>& values) {
  return tape.record(Tensor::from(tape.ctx(), shape, DType::f32, values), true, PlantedRule{x.slot()});
}

/// What the check finds in 30 rounds: two orders of a sum often round alike, and one round tries few records in each slot.
std::string found(Context& ctx, test::Rng& rng, const test::SlotModel& model) {
  index_t seen = 0;
  for (int round = 0; round < 30; ++round)
    if (const std::string what = test::find_dependence(ctx, rng, model, seen); !what.empty()) return what;
  return "";
}
/// Whether norms and contributions alone, which is what a strategy makes of the pass, show it too.
bool contributions_show(Context& ctx, test::Rng& rng, const test::SlotModel& model) {
  for (int k = 0; k < 100; ++k)
    if (!test::InvarianceCheck(ctx, rng, model).contribution({}, false, dp::FlatClipping(1e-3)).empty()) return true;
  return false;
}

constexpr index_t slots = 13, width = 39, outputs = 5;

/// x w^T where row r of w is `w` from r on, in the order that `backwards(row)` says.
PlantedModel product_model(Context& ctx, test::Rng& rng, const std::function<bool(index_t row)>& backwards) {
  test::Values w{Shape{outputs, width}, std::vector<double>(std::size_t(outputs * width))};
  fill_symmetric(rng, w, test::Symmetry::odd, 1);
  return {ctx,
          rng,
          slots,
          width,
          test::Symmetry::even,
          [w = w.values, backwards](Tape& tape, const Variable& x, const test::Arrangement&) {
            const float* a = x.value().data<float>();
            std::vector<double> y;
            for (index_t i = 0; i < slots; ++i)
              for (index_t j = 0; j < outputs; ++j) {
                float sum = 0;
                for (index_t k = 0; k < width; ++k) {
                  const index_t at = backwards(i) ? width - 1 - k : k;
                  sum += a[i * width + at] * float(w[std::size_t(j * width + at)]);
                }
                y.push_back(double(sum));
              }
            return planted(tape, x, {slots, outputs}, y);
          }};
}
}  // namespace

TEST_CASE("P34: planted: a product that sums its last rows in another order is found") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 3000);
  const PlantedModel whole = product_model(ctx, rng, [](index_t) { return false; });
  CHECK(found(ctx, rng, whole) == "");
  // Rows in blocks of six, as register tiles are; what is left over goes another way.
  const PlantedModel broken = product_model(ctx, rng, [](index_t row) { return row >= slots / 6 * 6; });
  const std::string what = found(ctx, rng, broken);
  CAPTURE(what);
  CHECK(what.find("(planted)") != std::string::npos);
  CHECK(contributions_show(ctx, rng, broken));
}

TEST_CASE("P34: planted: a library's sgemm is found wherever it gives one row other bits in other places") {
  test::Rng rng(test::seed(), 3001);
  std::vector<GemmBackend> libraries{GemmBackend::eigen};
  if (detail::has_onednn) libraries.push_back(GemmBackend::onednn);
  for (const GemmBackend library : libraries) {
    int of_place = 0, all = 0;
    for (const int threads : {1, 2})
      for (const index_t d : {8, 37, 64, 129})
        for (const index_t p : {1, 5, 16, 64}) {
          Context ctx(Device::cpu(), threads);
          test::Values w{Shape{p, d}, std::vector<double>(std::size_t(p * d))};
          fill_symmetric(rng, w, test::Symmetry::odd, 1);
          const Tensor weight = Tensor::from(ctx, w.shape, DType::f32, w.values);
          const auto product = [&](const Tensor& x) {
            const Tensor y = Tensor::empty(ctx, {slots, p}, DType::f32);
            gemm(ctx,
                 {.m = slots,
                  .n = p,
                  .k = d,
                  .a = {.data = x.raw(), .row_stride = d},
                  .b = {.data = weight.raw(), .row_stride = d, .transposed = true},
                  .out = {.data = y.raw(), .row_stride = p}},
                 library);
            return y;
          };
          const PlantedModel model(ctx, rng, slots, d, test::Symmetry::even,
                                   [&](Tape& tape, const Variable& x, const test::Arrangement&) {
                                     return planted(tape, x, {slots, p}, product(x.value()).to_doubles());
                                   });
          // The plain question, to know what the check has to find: one row everywhere.
          test::Values row{Shape{1, d}, std::vector<double>(std::size_t(d))};
          bool depends = false;
          for (int tries = 0; tries < 4; ++tries) {
            fill_symmetric(rng, row, test::Symmetry::none, 1);
            std::vector<double> everywhere;
            for (index_t i = 0; i < slots; ++i) everywhere.insert(everywhere.end(), row.values.begin(), row.values.end());
            const std::vector<double> y = product(Tensor::from(ctx, {slots, d}, DType::f32, everywhere)).to_doubles();
            for (std::size_t k = 0; k < y.size(); ++k) depends = depends || y[k] != y[k % std::size_t(p)];
          }
          of_place += depends;
          ++all;
          CAPTURE(d);
          CAPTURE(p);
          if (depends) CHECK(found(ctx, rng, model) != "");
        }
    std::printf("%s: products whose rows depend on their place: %d of %d shapes\n",
                library == GemmBackend::eigen ? "Eigen" : "oneDNN", of_place, all);
  }
}

TEST_CASE("P34: planted: another order in the tail of a vector is found") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 3002);
  for (const bool broken : {false, true}) {
    // a x^2 + b x, over the whole batch as one flat array; what is behind the last 16 is rounded once less.
    const PlantedModel model(ctx, rng, slots, width, test::Symmetry::none,
                             [=](Tape& tape, const Variable& x, const test::Arrangement&) {
                               const float* a = x.value().data<float>();
                               std::vector<double> y;
                               for (index_t k = 0; k < slots * width; ++k) {
                                 volatile float square = a[k] * a[k], line = 0.3f * a[k];
                                 const bool tail = broken && k >= slots * width / 16 * 16;
                                 y.push_back(double(tail ? std::fma(a[k], a[k], line) : square + line));
                               }
                               return planted(tape, x, {slots, width}, y);
                             });
    CHECK((found(ctx, rng, model) != "") == broken);
    if (broken) CHECK(contributions_show(ctx, rng, model));
  }
}

TEST_CASE("P34: planted: a chunk of threads that ends inside of a record is found") {
  test::Rng rng(test::seed(), 3003);
  for (const int threads : {1, 2}) {
    Context ctx(Device::cpu(), threads);
    // The sum of each record, of a batch cut into equal chunks of elements: a record with a cut is two sums.
    const PlantedModel model(ctx, rng, slots, width, test::Symmetry::none,
                             [=](Tape& tape, const Variable& x, const test::Arrangement&) {
                               const float* a = x.value().data<float>();
                               std::vector<double> y;
                               for (index_t i = 0; i < slots; ++i) {
                                 float total = 0;
                                 for (index_t chunk = 0; chunk < threads; ++chunk) {
                                   const index_t begin = std::max(i * width, chunk * slots * width / threads),
                                                 end = std::min((i + 1) * width, (chunk + 1) * slots * width / threads);
                                   float part = 0;
                                   for (index_t k = begin; k < end; ++k) part += a[k];
                                   total += part;
                                 }
                                 y.push_back(double(total));
                               }
                               return planted(tape, x, {slots, 1}, y);
                             });
    CHECK((found(ctx, rng, model) != "") == (threads > 1));
    if (threads > 1) CHECK(contributions_show(ctx, rng, model));
  }
}

TEST_CASE("P34: planted: dropout keyed by the slot is found") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 3004);
  DropoutKey key{.secret = {}, .step = 1, .layer = 1};
  key.secret.words[0] = std::uint32_t(rng.bits());
  for (const bool broken : {false, true}) {
    const PlantedModel model(
        ctx, rng, slots, width, test::Symmetry::none, [=](Tape& tape, const Variable& x, const test::Arrangement& at) {
          std::vector<RecordId> ids;
          for (index_t i = 0; i < slots; ++i)
            ids.push_back(stable_id(key.secret, std::uint64_t(broken ? i : at[std::size_t(i)].content + 10)));
          return dropout(x, 0.5, key, SampleIdentities(tape.ctx(), ids));
        });
    const std::string what = found(ctx, rng, model);
    CAPTURE(what);
    CHECK((what.find("(dropout)") != std::string::npos) == broken);
    if (broken) CHECK(contributions_show(ctx, rng, model));
  }
}

TEST_CASE("P34: planted: a mean over the batch is found") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 3005);
  const PlantedModel model(ctx, rng, slots, width, test::Symmetry::none,
                           [](Tape& tape, const Variable& x, const test::Arrangement&) {
                             std::vector<double> y = x.value().to_doubles(), mean(std::size_t(width), 0.0);
                             for (std::size_t k = 0; k < y.size(); ++k) mean[k % std::size_t(width)] += y[k] / double(slots);
                             for (std::size_t k = 0; k < y.size(); ++k) y[k] -= mean[k % std::size_t(width)];
                             return planted(tape, x, {slots, width}, y);
                           });
  CHECK(found(ctx, rng, model).find("(planted)") != std::string::npos);
}
