// SPDX-License-Identifier: Apache-2.0
// What a run's bits depend on in addition to the records and the weights, in two texts. The description is of the model and
// its optimiser: a checkpoint fits no other. The fingerprint is of all around them: a checkpoint is continued with the same
// noise only where it is the same, since with anything changed the difference of two continuations would have no noise in
// it.
#pragma once
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "dpmp/gemm/interface.hpp"
#include "dpmp/train/trainer_options.hpp"
#include "dpmp/version.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// One fact a line, public all of them. options.data_fingerprint must be set. steps: those of the plan, whose learning rates
/// are compared one by one.
std::string run_fingerprint(Context& ctx, const TrainerOptions& options, index_t steps);

/// The optimiser's kind and settings, the model's precision (nn::Parameters::precision_text), then a line for each
/// parameter: name, dtype that it was made in, shape, clipping group, its weight decay and its factor of the learning rate.
/// Which of them are trained may change from step to step and is not in it.
std::string run_description(std::span<Parameter* const> parameters, const std::string& precision,
                            const per_sample::Groups& groups, const optim::OptimiserState& optimiser);

/// The lines of y that are not those of x, one after the other; empty for equal texts.
std::string changed_lines(const std::string& x, const std::string& y);
/// For people: the lines that only one of two descriptions has, of each at most eight; empty for equal texts.
std::string difference_of_descriptions(const std::string& checkpoint, const std::string& here);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
namespace detail {
/// What runs of earlier versions did not have, where it is not what they did.
inline std::string gradients_text(const per_sample::StrategyOptions& strategy) {
  return strategy.gradient_bytes
             ? dpmp::detail::concat(", gradients of at most ", *strategy.gradient_bytes, " bytes a sample")
             : "";
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string run_fingerprint(Context& ctx, const TrainerOptions& options, index_t steps) {
  DPMP_CHECK(options.data_fingerprint.has_value(), "expected a data_fingerprint, got none");
  TextStream out;
  out.precision(17);
  out << "library: dpmp " << DPMP_VERSION_STRING << ", " << __VERSION__ << '\n'
      << "device: " << (ctx.on_cuda() ? "cuda" : "cpu") << ", " << ctx.backend().multiprocessors() << " multiprocessors, "
      << ctx.threads() << " threads\n"
      << "kernels: " << name_of(unit_isa) << ", " << name_of(best_isa()) << (DPMP_HOST_ISA_LEAN ? " in part\n" : "\n")
      << "products: " << gemm_backend_info(ctx) << '\n'
      << "physical batch: " << options.physical_batch << '\n'
      << "strategy: " << per_sample::name_of(options.strategy.strategy) << ", norms " << int(options.strategy.norms)
      << ", gradients " << int(options.strategy.gradients) << ", budget " << options.strategy.byte_budget.value_or(-1)
      << detail::gradients_text(options.strategy) << '\n'
      << (options.memory_budget ? dpmp::detail::concat("memory budget: ", *options.memory_budget, '\n') : "")
      << "loss scaling: " << options.loss_scaling.value_or(LossScaling()).text() << '\n'
      << "learning rate: " << options.learning_rate.fingerprint(steps) << '\n'
      << "data: " << *options.data_fingerprint << '\n';
  if (!options.user_of_record.empty())
    out << "users: " << siphash24(0, 0, std::as_bytes(std::span(options.user_of_record))) << '\n';
  return out.str();
}

DPMP_KEPT_BODY inline std::string run_description(std::span<Parameter* const> parameters, const std::string& precision,
                                                  const per_sample::Groups& groups, const optim::OptimiserState& optimiser) {
  TextStream out;
  out.precision(17);
  const double weight_decay = optim::weight_decay_of(optimiser.optimiser());
  out << "optimiser: " << optim::optimiser_text(optimiser.optimiser()) << '\n';
  out << "precision: " << precision << '\n';
  for (const Parameter* p : parameters)
    out << p->name() << ": " << p->made_in() << p->shape() << ", clipping group " << groups.of(*p) << ", weight decay "
        << (optimiser.decays(*p) ? weight_decay : 0) << ", learning rate times " << optimiser.rate_factor(*p) << '\n';
  return out.str();
}

DPMP_KEPT_BODY inline std::string changed_lines(const std::string& x, const std::string& y) {
  std::istringstream old_lines(x), new_lines(y);
  std::string changed;
  for (std::string a, b; std::getline(new_lines, b); a.clear()) {
    std::getline(old_lines, a);
    if (a != b) changed += (changed.empty() ? "" : "; ") + b;
  }
  return changed;
}

DPMP_KEPT_BODY inline std::string difference_of_descriptions(const std::string& checkpoint, const std::string& here) {
  if (checkpoint == here) return "";
  const auto lines_of = [](const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  };
  const std::vector<std::string> then = lines_of(checkpoint), now = lines_of(here);
  std::string difference;
  const auto list = [&](const char* title, const std::vector<std::string>& lines, const std::vector<std::string>& others) {
    const std::set<std::string> known(others.begin(), others.end());
    std::size_t only = 0;
    for (const std::string& line : lines)
      if (!known.contains(line) && ++only <= 8) difference += "\n  " + std::string(title) + line;
    if (only > 8) difference += "\n  " + std::string(title) + "and " + std::to_string(only - 8) + " more";
  };
  list("checkpoint: ", then, now);
  list("here: ", now, then);
  return difference.empty() ? "\n  the same parameters in another order" : difference;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
