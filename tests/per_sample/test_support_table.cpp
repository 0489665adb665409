// SPDX-License-Identifier: Apache-2.0
// The support table of the README, from what really ran: every op, dtype and gradient sink against triple loops in double.
// Run with DPMP_UPDATE_DOCS=1 to write the table into the README; otherwise the two must agree.
#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "autograd/run_op.hpp"
#include "dpmp/per_sample/sinks.hpp"
#include "support/oracle.hpp"

namespace {
using namespace dpmp;

struct Support {
  std::set<std::string> forms;
  bool agrees = true;
};

/// Records the problem once a sink and compares norms and weighted sums with the oracle on the stored operands.
void compare(Context& ctx, const test::Problem& problem, DType dtype, Support& support) {
  const test::OwnedParameters parameters(ctx, problem, dtype);
  const auto backward = [&](GradientSink& sink) {
    Tape tape(ctx, problem.samples);
    test::Variables inputs;
    for (const test::Values& v : problem.inputs)
      inputs.push_back(tape.input(Tensor::from(ctx, v.shape, dtype, v.values), true));
    const auto forward = [&](Tape& t, const test::Variables& x) { return problem.forward(t, x, parameters.pointers()); };
    tape.backward(dpmp::detail::gradient_check_losses(tape, inputs, forward, {.weight = test::output_weight}), sink);
  };
  per_sample::BookKeepingSink book;
  per_sample::MaterialisedSink materialised;
  per_sample::GradientSums sums(ctx, parameters.pointers());
  per_sample::SumSink plain(sums);
  for (GradientSink* sink :
       {static_cast<GradientSink*>(&book), static_cast<GradientSink*>(&materialised), static_cast<GradientSink*>(&plain)})
    backward(*sink);
  std::vector<float> factors(std::size_t(problem.samples));
  for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = 0.25f + 0.5f * float(i % 2);
  for (const auto& sites : book.lists()) {
    for (const ParameterSite& s : sites)
      support.forms.insert(s.form == SiteForm::vector ? "vector" : s.one_hot() ? "one-hot rows" : "outer product");
    const std::size_t n = std::size_t(sites[0].parameter->numel());
    std::vector<double> total(n, 0.0), weighted(n, 0.0);
    double scale = 1e-30;  // sum over samples of what rounding is proportional to
    for (index_t i = 0; i < problem.samples; ++i) {
      const std::vector<double> g = test::oracle_gradient(sites, i);
      scale += test::norm(g);
      if (sites[0].form == SiteForm::outer_product) scale += per_sample::RowNorms(ctx, sites).product_sum(sites, i);
      for (std::size_t j = 0; j < n; ++j) total[j] += g[j], weighted[j] += double(factors[std::size_t(i)]) * g[j];
    }
    const auto close = [&](const Tensor& x, const std::vector<double>& y) {
      return test::distance(x.to_doubles(), y) <= 1e-5 * scale;
    };
    support.agrees = support.agrees && close(sums.of(*sites[0].parameter), total);
    for (const per_sample::PerSampleSink* sink :
         {static_cast<per_sample::PerSampleSink*>(&book), static_cast<per_sample::PerSampleSink*>(&materialised)}) {
      per_sample::GradientSums w(ctx, parameters.pointers());
      sink->weighted_sum(ctx, factors, w);
      support.agrees = support.agrees && close(w.of(*sites[0].parameter), weighted);
    }
  }
  const per_sample::NormBounds a = book.norms(ctx, problem.samples), b = materialised.norms(ctx, problem.samples);
  for (index_t i = 0; i < problem.samples; ++i)
    support.agrees = support.agrees && a.norm(i) <= b.upper(i) * (1 + 1e-5) && b.norm(i) <= a.upper(i) * (1 + 1e-5);
}

std::string table(Context& ctx) {
  std::ostringstream out;
  out << "| operation | parameter form | cpu: f32 | bf16 | f16 | cuda | book-keeping | materialised | plain sum "
         "|\n|---|---|---|---|---|---|---|---|---|\n";
  std::uint64_t stream = 0;
  for (const test::Op& op : test::op_table()) {
    Support all;
    std::vector<std::string> cells;
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      Support support;
      test::Draw draw(++stream);
      for (int k = 0; k < 12; ++k) compare(ctx, op.make(draw), dtype, support);
      cells.push_back(support.agrees ? "yes" : "no");
      CAPTURE(op.name);
      CAPTURE(name_of(dtype));
      CHECK(support.agrees);
      all.forms.insert(support.forms.begin(), support.forms.end());
      all.agrees = all.agrees && support.agrees;
    }
    std::string forms;
    for (const std::string& f : all.forms) forms += (forms.empty() ? "" : ", ") + f;
    const std::string sinks = forms.empty() ? "-" : all.agrees ? "yes" : "no";
    out << "| " << op.name << " | " << (forms.empty() ? "none" : forms) << " | " << cells[0] << " | " << cells[1] << " | "
        << cells[2] << " | no | " << sinks << " | " << sinks << " | " << sinks << " |\n";
  }
  return out.str();
}
}  // namespace

TEST_CASE("P13: every op, dtype and sink agrees with the oracle, and the README says so") {
  Context ctx(Device::cpu(), 2);
  const std::string begin = "<!-- support table: begin -->\n", end = "<!-- support table: end -->",
                    path = std::string(DPMP_TEST_DATA) + "/../README.md";
  const std::string generated = table(ctx);
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::string readme = text.str();
  const auto first = readme.find(begin), last = readme.find(end);
  REQUIRE(first != std::string::npos);
  REQUIRE(last != std::string::npos);
  const auto from = first + begin.size();
  if (std::getenv("DPMP_UPDATE_DOCS")) {
    std::ofstream(path) << readme.replace(from, last - from, generated);
    return;
  }
  CHECK(readme.substr(from, last - from) == generated);
}

TEST_CASE("the README's first program is examples/quickstart.cpp") {
  std::ostringstream readme, program;
  readme << std::ifstream(std::string(DPMP_TEST_DATA) + "/../README.md").rdbuf();
  program << std::ifstream(std::string(DPMP_TEST_DATA) + "/../examples/quickstart.cpp").rdbuf();
  const std::string shown = program.str().substr(program.str().find('\n') + 1);  // without the licence line
  REQUIRE(shown.size() > 500);
  CHECK(readme.str().find("```cpp\n" + shown + "```") != std::string::npos);
}
