// SPDX-License-Identifier: Apache-2.0
// What the bits of a run's sums depend on in addition to the records and the weights. A checkpoint is continued with the
// same noise only where all of it is the same: with anything changed, the difference of two continuations would have no
// noise in it.
#pragma once
#include <sstream>
#include <string>

#include "dpmp/core/siphash.hpp"
#include "dpmp/gemm/interface.hpp"
#include "dpmp/train/trainer_options.hpp"
#include "dpmp/version.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// One fact a line, public all of them. options.data_fingerprint must be set. steps: those of the plan, whose learning rates
/// are compared one by one.
std::string run_fingerprint(Context& ctx, std::span<Parameter* const> parameters, const per_sample::Groups& groups,
                            const optim::Optimiser& optimiser, const TrainerOptions& options, index_t steps);

/// The lines of y that are not those of x, one after the other; empty for equal texts.
std::string changed_lines(const std::string& x, const std::string& y);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline std::string run_fingerprint(Context& ctx, std::span<Parameter* const> parameters,
                                                  const per_sample::Groups& groups, const optim::Optimiser& optimiser,
                                                  const TrainerOptions& options, index_t steps) {
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
      << '\n'
      << "learning rate: " << options.learning_rate.fingerprint(steps) << '\n'
      << "rule: ";
  if (const auto* sgd = std::get_if<optim::Sgd>(&options.rule)) {
    out << "sgd, " << sgd->momentum << ", " << sgd->weight_decay << '\n';
  } else {
    const auto& a = std::get<optim::AdamW>(options.rule);
    out << "adamw, " << a.beta1 << ", " << a.beta2 << ", " << a.epsilon << ", " << a.weight_decay << '\n';
  }
  TextStream model;
  model.precision(17);
  for (const Parameter* p : parameters)
    model << p->name() << ' ' << p->dtype() << p->shape() << ' ' << p->trainable() << ' ' << groups.of(*p) << ' '
          << optimiser.decays(*p) << ' ' << optimiser.rate_factor(*p) << '\n';
  const std::string text = model.str();
  out << "parameters: " << siphash24(0, 0, std::as_bytes(std::span(text.data(), text.size()))) << '\n'
      << "data: " << *options.data_fingerprint << '\n';
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
}  // namespace dpmp::inline DPMP_ABI::train
#endif
