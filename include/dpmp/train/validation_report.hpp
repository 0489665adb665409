// SPDX-License-Identifier: Apache-2.0
// What a private step will do with each parameter, before training: its form, how its norm is taken, what is kept, what that
// costs, and the noise on it. Public facts only.
#pragma once
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "dpmp/autograd/loss_scale.hpp"
#include "dpmp/autograd/operation_precision.hpp"
#include "dpmp/autograd/tape.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "dpmp/per_sample/groups.hpp"

namespace dpmp::inline DPMP_ABI::train {
struct ValidationRow {
  const Parameter* parameter = nullptr;
  bool used = false;  // the losses depend on it, and it is trainable
  std::string form = "-";
  index_t tokens = 0;  // rows a sample over all uses
  per_sample::NormPlan plan = {};
  index_t group = 0;
  double clip_threshold = 0;   // C of the group
  double noise_deviation = 0;  // on every element of the sum; 0 for a frozen parameter
};

/// Results of one operation in one dtype.
struct OperationCount {
  std::string_view name;
  DType dtype = DType::f32;
  index_t count = 0;
};

class ValidationReport {
 public:
  ValidationReport(std::span<Parameter* const> parameters, const per_sample::Groups& groups, const dp::StepPlan& numbers,
                   index_t samples, const LossScaling& loss_scaling = {});
  void set(const Parameter& p, const per_sample::SiteShape& shape, const per_sample::NormPlan& plan);
  const std::vector<ValidationRow>& rows() const { return rows_; }
  /// Counts what a pass recorded, inputs apart, in the order in which they first appear.
  void set_operations(std::span<const RecordedValue> recorded);
  const std::vector<OperationCount>& operations() const { return operations_; }
  /// What was chosen to fit a memory budget, and from what (MemoryChoice::text).
  void set_memory(std::string text) { memory_ = std::move(text); }
  /// Bytes kept between norms and clipped sums, all groups together.
  index_t kept_bytes() const;

  /// A table, one parameter a line, and the totals; the choice for a memory budget; a table of the operations by dtype, with
  /// what they are computed in.
  std::string text() const;

 private:
  static std::string fixed(double x);
  static std::string millions(double x) { return fixed(x / 1e6); }
  std::string operations_text() const;
  std::vector<ValidationRow> rows_;
  std::vector<OperationCount> operations_;
  index_t samples_, group_count_;
  LossScaling loss_scaling_;
  std::string memory_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline ValidationReport::ValidationReport(std::span<Parameter* const> parameters,
                                                         const per_sample::Groups& groups, const dp::StepPlan& numbers,
                                                         index_t samples, const LossScaling& loss_scaling)
    : samples_(samples), group_count_(groups.count()), loss_scaling_(loss_scaling) {
  bool any = false;
  for (const Parameter* p : parameters) {
    ValidationRow row{.parameter = p, .group = groups.of(*p)};
    row.clip_threshold = numbers.groups[std::size_t(row.group)].clip_threshold();
    if (p->trainable()) row.noise_deviation = numbers.noise_standard_deviation;
    any = any || p->trainable();
    rows_.push_back(row);
  }
  DPMP_CHECK(any, "expected at least one trainable parameter, got ", parameters.size(), " parameters, all of them frozen");
}

DPMP_KEPT_BODY inline void ValidationReport::set(const Parameter& p, const per_sample::SiteShape& shape,
                                                 const per_sample::NormPlan& plan) {
  for (ValidationRow& row : rows_) {
    if (row.parameter != &p) continue;
    row.used = true;
    row.form = shape.vector         ? "vector"
               : shape.one_hot_only ? "one-hot rows"
               : shape.any_one_hot  ? "outer product + one-hot rows"
                                    : "outer product";
    row.tokens = shape.tokens;
    row.plan = plan;
  }
}

DPMP_KEPT_BODY inline index_t ValidationReport::kept_bytes() const {
  index_t bytes = 0;
  for (const ValidationRow& row : rows_) bytes += row.plan.kept_bytes;
  return bytes;
}

DPMP_KEPT_BODY inline std::string ValidationReport::text() const {
  TextStream out;
  std::size_t name_width = 9;
  for (const ValidationRow& row : rows_) name_width = std::max(name_width, row.parameter->name().size());
  const auto cell = [&](std::size_t width, const auto& value) { out << std::left << std::setw(int(width) + 2) << value; };
  const auto line = [&](const auto&... values) {
    std::size_t k = 0;
    const std::size_t widths[] = {name_width, 14, 28, 6, 11, 8, 21, 12, 10, 5, 9, 9};
    (cell(widths[k++], values), ...);
    out << '\n';
  };
  line("parameter", "shape", "form", "rows", "norm", "slack %", "kept", "cost/sample", "kept MB", "group", "C", "noise");
  for (const ValidationRow& r : rows_) {
    const std::string shape = dpmp::detail::concat(r.parameter->shape());
    if (!r.parameter->trainable())
      line(r.parameter->name(), shape, "frozen", "-", "-", "-", "-", "-", "-", "-", "-", "none");
    else if (!r.used)
      line(r.parameter->name(), shape, "not used: noise only", "-", "-", "-", "-", "-", "-", r.group, r.clip_threshold,
           r.noise_deviation);
    else
      line(r.parameter->name(), shape, r.form, r.tokens, per_sample::name_of(r.plan.norm), fixed(100 * r.plan.slack),
           per_sample::name_of(r.plan.keep), millions(r.plan.cost), millions(double(r.plan.kept_bytes)), r.group,
           r.clip_threshold, r.noise_deviation);
  }
  for (const ValidationRow& r : rows_)
    if (r.plan.slack > per_sample::largest_slack)
      out << "warning: the norm of " << r.parameter->name() << " by " << per_sample::name_of(r.plan.norm) << " is certified "
          << fixed(100 * r.plan.slack) << " % above the exact one for orthogonal tokens: its gradients "
          << "are clipped by so much more than they must be, and the noise stays\n";
  out << rows_.size() << " parameters, " << group_count_ << " clipping group" << (group_count_ == 1 ? "" : "s") << ", "
      << samples_
      << " slots a physical batch; slack: what certifying the norm costs; cost: million multiply-adds for norm and "
         "clipped sum; kept at most "
      << millions(double(kept_bytes())) << " MB between them; loss scaling: " << loss_scaling_.text() << '\n';
  return out.str() + memory_ + operations_text();
}

DPMP_KEPT_BODY inline void ValidationReport::set_operations(std::span<const RecordedValue> recorded) {
  for (const RecordedValue& value : recorded) {
    if (value.name == "input") continue;
    const auto same = [&](const OperationCount& o) { return o.name == value.name && o.dtype == value.dtype; };
    const auto at = std::find_if(operations_.begin(), operations_.end(), same);
    if (at == operations_.end())
      operations_.push_back({value.name, value.dtype, 1});
    else
      ++at->count;
  }
}

DPMP_KEPT_BODY inline std::string ValidationReport::operations_text() const {
  if (operations_.empty()) return "";
  TextStream out;
  const auto line = [&](const auto& name, const auto& result, const auto& count, const auto& stored, const auto& computed,
                        const auto& sums) {
    out << std::left << std::setw(20) << name << std::setw(8) << result << std::setw(7) << count << std::setw(29) << stored
        << std::setw(13) << computed << sums << '\n';
  };
  out << "operations by dtype (S: the dtype of the operands):\n";
  line("operation", "result", "count", "stored in", "computed in", "sums in");
  index_t all = 0, casts = 0;
  for (const OperationCount& o : operations_) {
    all += o.count;
    if (o.name == "cast") casts += o.count;
    const OperationPrecision* p = operation_precision(o.name);
    const auto wide = [&](std::string_view text) {
      return o.dtype == DType::f64 && text.ends_with("FP32") ? std::string_view("double") : text;
    };
    if (p)
      line(o.name, name_of(o.dtype), o.count, p->stored, wide(p->computed), wide(p->sums));
    else
      line(o.name, name_of(o.dtype), o.count, "an operation of your own", "-", "-");
  }
  out << all << " operations, " << casts << " of them casts\n";
  return out.str();
}

DPMP_KEPT_BODY inline std::string ValidationReport::fixed(double x) {
  TextStream out;
  out << std::fixed << std::setprecision(3) << x;
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
