// SPDX-License-Identifier: Apache-2.0
// A family of operations through every combination of strategy, clip rule, dtype, mask and empty or one-token shape, against
// triple loops in double on the stored operands. The tables of docs/support.md are made from what ran here: with
// DPMP_UPDATE_DOCS=1 a table is written, otherwise the two must agree.
#pragma once
#include <doctest/doctest.h>

#include <array>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "autograd/run_op.hpp"
#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/per_sample/sum_sink.hpp"
#include "support/oracle.hpp"
#include "support/source_folder.hpp"

namespace test {
using dpmp::DType;
using dpmp::dp::ClipRule;
using dpmp::dp::FlatClipping;

/// A column of the table.
struct StrategyCase {
  const char* name;
  std::vector<dpmp::per_sample::StrategyOptions> options;
  bool grouped = false;
};
inline const std::vector<StrategyCase>& strategy_cases() {
  using enum dpmp::per_sample::Strategy;
  using dpmp::per_sample::NormChoice;
  static const std::vector<StrategyCase> cases{
      {"auto", {{}, {.byte_budget = 0}, {.byte_budget = 600}}},
      {"book-keeping",
       {{.strategy = book_keeping},
        {.strategy = book_keeping, .norms = NormChoice::gram},
        {.strategy = book_keeping, .norms = NormChoice::instantiate}}},
      {"two-pass", {{.strategy = two_pass}, {.strategy = two_pass, .norms = NormChoice::gram}}},
      {"materialised", {{.strategy = materialised}}},
      {"per group", {{}, {.strategy = two_pass}}, true}};
  return cases;
}
inline std::vector<ClipRule> clip_rules() {
  return {ClipRule::abadi(), ClipRule::automatic(0.05), ClipRule::normalise(), ClipRule::global(4),
          ClipRule::custom("square root", [](double n) { return 1 / std::sqrt(n); })};
}

/// What was seen of one operation in one dtype.
struct Support {
  std::set<std::string> forms;
  std::array<bool, 5> strategies{true, true, true, true, true};
  bool plain = true;
  index_t empty_batches = 0, single_tokens = 0, outer_products = 0;
};

/// Something with parameters whose losses can be recorded again and again.
struct Model {
  virtual ~Model() = default;
  virtual index_t samples() const = 0;
  virtual const Parameters& parameters() const = 0;
  /// Per-sample losses.
  virtual dpmp::Variable record(dpmp::Tape& tape) const = 0;
};
/// A row of the table. make returns null for a row without parameters.
struct FamilyCase {
  std::string name;
  std::function<std::unique_ptr<Model>(dpmp::Context&, Draw&, DType)> make;
};

/// An operation of the op table with weighted outputs as losses.
class OpModel final : public Model {
 public:
  OpModel(dpmp::Context& ctx, Problem problem, DType dtype)
      : ctx_(ctx), problem_(std::move(problem)), dtype_(dtype), parameters_(ctx, problem_, dtype) {}
  index_t samples() const override { return problem_.samples; }
  const Parameters& parameters() const override { return parameters_.pointers(); }
  dpmp::Variable record(dpmp::Tape& tape) const override {
    Variables inputs;
    for (const Values& v : problem_.inputs)
      inputs.push_back(tape.input(dpmp::Tensor::from(ctx_, v.shape, dtype_, v.values), true));
    const auto forward = [&](dpmp::Tape& t, const Variables& x) { return problem_.forward(t, x, parameters()); };
    return dpmp::detail::gradient_check_losses(tape, inputs, forward, {.weight = output_weight});
  }

 private:
  dpmp::Context& ctx_;
  Problem problem_;
  DType dtype_;
  OwnedParameters parameters_;
};
inline std::vector<FamilyCase> cases_of(const std::vector<Op>& ops) {
  std::vector<FamilyCase> cases;
  for (const Op& op : ops)
    cases.push_back({op.name, [op](dpmp::Context& ctx, Draw& draw, DType dtype) -> std::unique_ptr<Model> {
                       auto model = std::make_unique<OpModel>(ctx, op.make(draw), dtype);
                       if (model->parameters().empty()) return nullptr;
                       return model;
                     }});
  return cases;
}

/// One model: every strategy and rule, some samples masked.
class FamilyProblem {
 public:
  FamilyProblem(dpmp::Context& ctx, const Model& model) : ctx_(ctx), model_(model), samples_(model.samples()) {
    for (index_t i = 0; i < samples_; ++i) mask_.push_back(std::uint8_t(i % 3 != 1));
    read_operands();
  }

  void run(Support& support) {
    support.empty_batches += samples_ == 0;
    for (const auto& [parameter, sites] : sites_)
      for (const dpmp::ParameterSite& s : sites) {
        support.forms.insert(s.form == dpmp::SiteForm::vector ? "vector" : s.one_hot() ? "one-hot rows" : "outer product");
        support.outer_products += s.form != dpmp::SiteForm::vector;
        support.single_tokens += s.form != dpmp::SiteForm::vector && s.b.shape()[1] == 1;
      }
    support.plain = support.plain && plain_sum_agrees();
    for (std::size_t k = 0; k < strategy_cases().size(); ++k)
      for (const auto& options : strategy_cases()[k].options)
        for (const ClipRule& rule : clip_rules()) {
          const bool agrees = strategy_agrees(options, rule, strategy_cases()[k].grouped);
          support.strategies[k] = support.strategies[k] && agrees;
        }
  }

 private:
  using Gradients = std::vector<std::vector<double>>;  // [samples][numel] of one parameter
  static constexpr double threshold = 0.37;

  /// The stored operands of a walk, and per-sample gradients from them by triple loops.
  void read_operands() {
    struct Sites final : dpmp::GradientSink {
      std::map<const dpmp::Parameter*, dpmp::per_sample::SiteList> of;
      void accept(dpmp::Context&, const dpmp::ParameterSite& site) override { of[site.parameter].push_back(site); }
    } sink;
    dpmp::Tape tape(ctx_, samples_);
    tape.backward(model_.record(tape), sink);
    sites_ = std::move(sink.of);
    for (const auto& [parameter, sites] : sites_) {
      Gradients& gradients = exact_[parameter];
      for (index_t i = 0; i < samples_; ++i) {
        gradients.push_back(oracle_gradient(sites, i));
        // What rounding is proportional to: S, or the norm of a stored vector.
        double scale = norm(gradients.back());
        for (const dpmp::ParameterSite& s : sites)
          scale += s.form == dpmp::SiteForm::vector ? norm(s.b.rows(i, i + 1).to_doubles())
                                                    : dpmp::per_sample::RowNorms(ctx_, {s}).product_sum(i);
        scale_[parameter].push_back(scale);
      }
    }
  }
  bool close(const dpmp::per_sample::GradientSums& sums, const dpmp::Parameter* p,
             const std::vector<double>& factors) const {
    std::vector<double> expected(std::size_t(p->numel()), 0.0);
    double scale = 1e-30;
    const auto found = exact_.find(p);
    if (found != exact_.end())
      for (std::size_t i = 0; i < found->second.size(); ++i) {
        scale += factors[i] * scale_.at(p)[i];
        for (std::size_t j = 0; j < expected.size(); ++j) expected[j] += factors[i] * found->second[i][j];
      }
    return distance(sums.of(*p).to_doubles(), expected) <= 1e-5 * scale;
  }
  bool plain_sum_agrees() const {
    dpmp::per_sample::GradientSums sums(ctx_, model_.parameters());
    dpmp::per_sample::SumSink sink(sums);
    dpmp::Tape tape(ctx_, samples_);
    tape.backward(model_.record(tape), sink);
    bool agrees = true;
    for (const dpmp::Parameter* p : sums.parameters())
      agrees = agrees && close(sums, p, std::vector<double>(std::size_t(samples_), 1.0));
    return agrees;
  }
  /// Norms within rounding of the exact ones and certified, factors of the rule, sums of these factors, and, sample by
  /// sample, the one criterion: what is released has a float64 norm of at most C.
  bool strategy_agrees(const dpmp::per_sample::StrategyOptions& options, const ClipRule& rule, bool grouped) const {
    using dpmp::per_sample::Groups;
    const Groups groups = grouped ? Groups::by_parameter(model_.parameters()) : Groups::flat(model_.parameters());
    bool agrees = true;
    // All samples that are not masked, then one of them alone, another one each time.
    std::vector<index_t> walks{-1};
    if (samples_ > 0) walks.push_back(turn_++ % samples_);
    for (const index_t alone : walks) {
      std::vector<std::vector<double>> factors(std::size_t(groups.count()));
      const auto clip = [&](index_t g, const dpmp::per_sample::NormBounds& norms) {
        std::vector<std::uint8_t> ok = norms.finite();
        for (std::size_t i = 0; i < ok.size(); ++i) {
          agrees = agrees && ok[i];  // nothing here overflows
          ok[i] = std::uint8_t(ok[i] & mask_[i] & std::uint8_t(alone < 0 || index_t(i) == alone));
        }
        std::vector<float> c(ok.size());
        FlatClipping(threshold, rule).factors(norms.upper(), ok, c);
        factors[std::size_t(g)].assign(c.begin(), c.end());
        agrees = agrees && norms_agree(groups, g, norms);
        return c;
      };
      dpmp::per_sample::ClippedSumSink sink(groups, options);
      dpmp::per_sample::GradientSums sums(ctx_, model_.parameters());
      dpmp::Tape tape(ctx_, samples_);
      const dpmp::Variable losses = model_.record(tape);
      dpmp::per_sample::clipped_backward(tape, losses, dpmp::Tensor(), sink, clip, sums);
      std::vector<double> squares(std::size_t(groups.count()), 0.0);
      for (const dpmp::Parameter* p : sums.parameters()) {
        agrees = agrees && close(sums, p, factors[std::size_t(groups.of(*p))]);
        const double n = norm(sums.of(*p).to_doubles());
        squares[std::size_t(groups.of(*p))] += n * n;
      }
      if (alone >= 0)
        for (double s : squares) agrees = agrees && std::sqrt(s) <= threshold;
    }
    return agrees;
  }
  bool norms_agree(const dpmp::per_sample::Groups& groups, index_t g, const dpmp::per_sample::NormBounds& norms) const {
    bool agrees = true;
    for (index_t i = 0; i < samples_; ++i) {
      // What is released is bounded (below, sample by sample); sums over up to 60 tokens in FP32 may put it below the exact
      // gradient. The floor pays for what a certificate adds for underflow, up to some 10^7 w, where all gradients are
      // zeros.
      double squared = 0, scale = 1e-26;
      for (const auto& [parameter, gradients] : exact_) {
        if (groups.of(*parameter) != g) continue;
        const double n = norm(gradients[std::size_t(i)]), s = scale_.at(parameter)[std::size_t(i)];
        squared += n * n;
        scale += s * s;
      }
      agrees = agrees && std::fabs(norms.norm(i) * norms.norm(i) - squared) <= 1e-5 * scale &&
               norms.upper(i) >= std::sqrt(squared) - 64 * 0x1p-24 * std::sqrt(scale) &&
               norms.upper(i) * norms.upper(i) <= squared + 1e-4 * scale;
    }
    return agrees;
  }

  dpmp::Context& ctx_;
  const Model& model_;
  index_t samples_;
  std::vector<std::uint8_t> mask_;
  mutable index_t turn_ = 0;
  std::map<const dpmp::Parameter*, dpmp::per_sample::SiteList> sites_;
  std::map<const dpmp::Parameter*, Gradients> exact_;
  std::map<const dpmp::Parameter*, std::vector<double>> scale_;
};

/// Runs a family and compares its table with that of docs/support.md, or writes it there.
inline void check_family(const std::string& family, const std::vector<FamilyCase>& cases) {
  dpmp::Context ctx(dpmp::Device::cpu(), 2);
  std::ostringstream table;
  table << "| operation | parameter form | f32 | bf16 | f16 |";
  for (const StrategyCase& c : strategy_cases()) table << ' ' << c.name << " |";
  table << " plain sum |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
  std::uint64_t stream = 0;
  index_t empty_batches = 0, single_tokens = 0, outer_products = 0;
  std::string without_parameters;
  for (const FamilyCase& row : cases) {
    CAPTURE(row.name);
    if (Draw probe(stream); !row.make(ctx, probe, DType::f32)) {
      without_parameters += (without_parameters.empty() ? "" : ", ") + row.name;
      continue;
    }
    std::set<std::string> forms;
    std::array<bool, 5> strategies{true, true, true, true, true};
    bool plain = true;
    std::string dtypes;
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      Support support;
      for (int k = 0; k < 8; ++k) {
        // An empty batch and single tokens are there whatever is drawn, where the operation has them.
        Draw draw(++stream, 1, {.samples = k == 0 ? 0 : -1, .tokens = k == 1 ? 1 : -1});
        const std::unique_ptr<Model> model = row.make(ctx, draw, dtype);
        FamilyProblem(ctx, *model).run(support);
      }
      bool all = support.plain;
      for (std::size_t k = 0; k < strategies.size(); ++k) {
        CAPTURE(name_of(dtype));
        CAPTURE(strategy_cases()[k].name);
        CHECK(support.strategies[k]);
        strategies[k] = strategies[k] && support.strategies[k];
        all = all && support.strategies[k];
      }
      CHECK(support.plain);
      plain = plain && support.plain;
      dtypes += all ? " yes |" : " no |";
      forms.insert(support.forms.begin(), support.forms.end());
      empty_batches += support.empty_batches;
      single_tokens += support.single_tokens;
      outer_products += support.outer_products;
    }
    std::string form;
    for (const std::string& f : forms) form += (form.empty() ? "" : ", ") + f;
    table << "| " << row.name << " | " << form << " |" << dtypes;
    for (const bool ok : strategies) table << (ok ? " yes |" : " no |");
    table << (plain ? " yes |\n" : " no |\n");
  }
  if (!without_parameters.empty()) table << "\nWithout parameters: " << without_parameters << ".\n";
  CHECK(empty_batches > 0);
  CHECK((single_tokens > 0 || outer_products == 0));

  const std::string begin = "<!-- support table, " + family + ": begin -->\n",
                    end = "<!-- support table, " + family + ": end -->";
  const auto path = source_folder() / "docs" / "support.md";
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::string page = text.str();
  const auto first = page.find(begin), last = page.find(end);
  REQUIRE(first != std::string::npos);
  REQUIRE(last != std::string::npos);
  const auto from = first + begin.size();
  if (std::getenv("DPMP_UPDATE_DOCS")) {
    std::ofstream(path) << page.replace(from, last - from, table.str());
    return;
  }
  CHECK(page.substr(from, last - from) == table.str());
}
}  // namespace test
