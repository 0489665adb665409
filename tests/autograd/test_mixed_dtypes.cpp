// SPDX-License-Identifier: Apache-2.0
// Operands of several dtypes: every operation with more than one operand refuses them, by name and with both dtypes; and the
// table of what runs in what has every rule.
#include <doctest/doctest.h>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "autograd/ops.hpp"
#include "autograd/run_op.hpp"
#include "dpmp/autograd/operation_precision.hpp"
#include "dpmp/autograd/rules/cast.hpp"
#include "support/errors.hpp"
#include "support/source_folder.hpp"

using namespace dpmp;

namespace {
/// What the problem throws with operand `odd` (inputs first, then parameters) in another dtype; "" where it runs.
std::string error_with(Context& ctx, const test::Problem& problem, std::size_t odd, DType dtype, DType other) {
  Tape tape(ctx, problem.samples);
  std::size_t number = 0;
  const auto next = [&] { return number++ == odd ? other : dtype; };
  test::Variables inputs;
  for (const test::Values& v : problem.inputs)
    inputs.push_back(tape.input(Tensor::from(ctx, v.shape, next(), v.values), true));
  std::vector<std::unique_ptr<Parameter>> owned;
  test::Parameters parameters;
  for (const test::Values& v : problem.parameters) {
    const DType d = next();
    owned.push_back(std::make_unique<Parameter>(ctx, "p", Tensor::from(ctx, v.shape, accumulate_dtype(d), v.values), d));
    parameters.push_back(owned.back().get());
  }
  return test::error_of([&] { problem.forward(tape, inputs, parameters); });
}

bool names_an_operation(const std::string& error) {
  for (const OperationPrecision& row : operation_precisions)
    for (const char* end : {":", " (up):", " (down):"})
      if (error.find(std::string(row.name) + end) != std::string::npos) return true;
  return false;
}

/// The names of rules and of the functions that element-wise rules are made of, as the headers spell them.
std::set<std::string> names_in_headers() {
  std::set<std::string> names;
  const std::regex name("string_view name = ([^;]*);"), quoted("\"([a-z0-9_]+)\"");
  const auto read = [&](const std::filesystem::path& file) {
    std::stringstream text;
    text << std::ifstream(file).rdbuf();
    const std::string all = text.str();
    for (std::sregex_iterator at(all.begin(), all.end(), name), end; at != end; ++at) {
      const std::string value = (*at)[1];
      for (std::sregex_iterator q(value.begin(), value.end(), quoted); q != end; ++q) names.insert((*q)[1]);
    }
  };
  const std::filesystem::path include = test::source_folder() / "include/dpmp";
  for (const auto& entry : std::filesystem::directory_iterator(include / "autograd/rules"))
    if (entry.path().extension() == ".hpp") read(entry.path());
  for (const char* functions : {"kernels/activations.hpp", "kernels/unary.hpp"}) read(include / functions);
  return names;
}
}  // namespace

TEST_CASE("every operation refuses operands of several dtypes, and names itself and both dtypes") {
  Context ctx(Device::cpu(), 1);
  const DType dtypes[][2] = {{DType::bf16, DType::f32}, {DType::f32, DType::f16}, {DType::f16, DType::bf16}};
  int mixed = 0;
  for (const test::Op& op : test::op_table())
    for (int round = 0; round < 6; ++round) {
      CAPTURE(op.name);
      CAPTURE(round);
      test::Draw draw{std::uint64_t(round)};
      const test::Problem problem = op.make(draw);
      const std::size_t operands = problem.inputs.size() + problem.parameters.size();
      if (operands < 2) continue;
      for (std::size_t odd = 0; odd < operands; ++odd)
        for (const auto& [dtype, other] : dtypes) {
          CAPTURE(odd);
          const std::string error = error_with(ctx, problem, odd, dtype, other);
          CAPTURE(error);
          CHECK(names_an_operation(error));
          CHECK(error.find(name_of(dtype)) != std::string::npos);
          CHECK(error.find(name_of(other)) != std::string::npos);
          ++mixed;
        }
    }
  CHECK(mixed > 500);
}

TEST_CASE("targets of a loss are in the dtype of the losses, and an error says which") {
  Context ctx(Device::cpu(), 1);
  Tape tape(ctx, 2);
  const Variable x = tape.input(Tensor::zeros(ctx, {2, 3}, DType::bf16));
  const std::string error = test::error_of([&] { mean_squared_error(x, Tensor::zeros(ctx, {2, 3}, DType::bf16)); });
  CAPTURE(error);
  CHECK(error.find("mean_squared_error: a target in f32, got bf16") != std::string::npos);
}

TEST_CASE("the table of what runs in what has every rule once, and nothing else") {
  const std::set<std::string> names = names_in_headers();
  CHECK(names.size() > 40);
  for (const std::string& name : names) {
    CAPTURE(name);
    CHECK(operation_precision(name) != nullptr);
  }
  std::set<std::string> rows;
  for (const OperationPrecision& row : operation_precisions) {
    const std::string name(row.name);
    CAPTURE(name);
    CHECK(rows.insert(name).second);
    CHECK(names.contains(name));
  }
}

TEST_CASE("what the table says of results is what the operations record") {
  Context ctx(Device::cpu(), 1);
  for (const test::Op& op : test::op_table())
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      CAPTURE(op.name);
      test::Draw draw(1);
      const test::Problem problem = op.make(draw);
      Tape tape(ctx, problem.samples);
      test::Variables inputs;
      for (const test::Values& v : problem.inputs) inputs.push_back(tape.input(Tensor::from(ctx, v.shape, dtype, v.values)));
      const test::OwnedParameters parameters(ctx, problem, dtype);
      problem.forward(tape, inputs, parameters.pointers());
      for (const RecordedValue& value : tape.recorded()) {
        if (value.name == "input" || value.name == "cast") continue;
        const std::string name(value.name);
        CAPTURE(name);
        const OperationPrecision* row = operation_precision(value.name);
        REQUIRE(row);
        const bool wide = row->stored.find("result FP32") != std::string_view::npos ||
                          row->stored.find("losses FP32") != std::string_view::npos;
        CHECK(value.dtype == (wide ? DType::f32 : dtype));
      }
    }
}
