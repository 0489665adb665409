// SPDX-License-Identifier: Apache-2.0
// The tape: records rules in the order of the forward pass and walks them backwards, handing parameter sites to a sink.
// Axis 0 of every recorded value is the sample axis; a value that does not keep it cannot be recorded.
#pragma once
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "dpmp/autograd/backward_pass.hpp"
#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/autograd/checkpointed_part.hpp"
#include "dpmp/autograd/held_rule.hpp"
#include "dpmp/autograd/parameter_uses.hpp"
#include "dpmp/autograd/recorded_value.hpp"
#include "dpmp/autograd/sample_identities.hpp"
#include "dpmp/autograd/slot_gradients.hpp"
#include "dpmp/core/function_ref.hpp"
#include "dpmp/runtime/profiler_range.hpp"
#include "dpmp/tensor/elementwise.hpp"

namespace dpmp::inline DPMP_ABI {
/// Whether a tape keeps what a backward pass needs.
enum class TapeMode : std::uint8_t { training, inference };
/// Whether an error may depend on what a record says. confidential: a token id that no table has makes its own sample NaN,
/// on every device, and nothing is thrown or named. open: it is refused, with the id, its sample and position; a GPU is
/// waited for.
enum class RecordsAre : std::uint8_t { confidential, open };
/// What a backward pass leaves of a tape. release: each step's saved tensors are freed as soon as it is done. keep: all of
/// them stay, so that the very same pass can be walked again, bit for bit.
enum class AfterWalk : std::uint8_t { release, keep };

class Tape {
 public:
  /// samples: extent of axis 0 of everything on this tape (0 is legal).
  Tape(Context& ctx, index_t samples, TapeMode mode = TapeMode::training, RecordsAre records = RecordsAre::confidential);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  Context& ctx() const { return ctx_; }
  index_t samples() const { return samples_; }
  TapeMode mode() const { return mode_; }
  RecordsAre records() const { return records_; }
  /// What dropout on this tape is keyed by: trainers set it (TrainerOptions::identity); null where nobody did.
  const SampleRandomness* randomness() const { return randomness_ ? &*randomness_ : nullptr; }
  void key_randomness(SampleRandomness randomness) { randomness_ = std::move(randomness); }
  /// What is kept of checkpointed parts on this tape, whatever the model says; trainers set it
  /// (TrainerOptions::checkpointing).
  void set_checkpointing(std::optional<Checkpointing> how) { checkpointing_ = how; }
  /// The same, or a model's own choice where nothing was set; none on a tape for inference.
  Checkpointing checkpointing(Checkpointing of_the_model) const {
    return mode_ == TapeMode::inference ? Checkpointing::none : checkpointing_.value_or(of_the_model);
  }
  /// What is computed again in each walk.
  const RecomputedWork& recomputed() const { return recomputed_; }
  /// Everything recorded so far, in order: what must not depend on the records (train/fixed_program.hpp).
  const std::vector<RecordedValue>& recorded() const { return recorded_; }

  /// Is told of every input and every result in the order of the forward pass, with the name of the operation ("input"):
  /// for checks that look inside of a pass. The values may be overwritten later: read them now.
  using Observer = std::function<void(std::string_view operation, const Tensor& value)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  /// A value without a history. needs_gradient: gradient_of() will answer after the backward pass.
  Variable input(const Tensor& value, bool needs_gradient = false);

  /// Records the result of an operation. Rule: `name` (std::string_view), backward(BackwardPass&, const Tensor& gradient)
  /// const, and, if it uses parameters, parameters() -> std::vector<Parameter*>: all that backward may emit a site of. A
  /// loss may have largest_gradients() (autograd/loss_scale.hpp). needs_gradient: some input or some trainable parameter of
  /// the rule wants a gradient.
  template <class Rule>
  Variable record(const Tensor& value, bool needs_gradient, Rule rule) {
    const bool keep = needs_gradient && mode_ == TapeMode::training;
    return record(Rule::name, value, HeldRule(keep ? detail::HeldRule::hold<Rule>(std::move(rule)) : nullptr));
  }
  /// checkpointed() (checkpointing.hpp): run(), which records, now and in every walk.
  template <class Run>
  auto record_part(Run run, bool keeps_products) {
    auto part = std::make_unique<CheckpointedPart>(keeps_products);
    OpenPart open(*this, *part, false);
    auto result = run();
    part->record = [run = std::move(run)] { run(); };
    open.close(std::move(part));
    return result;
  }
  /// The result of an operation whose backward does not need it, written by compute(result), a matrix product. Where the
  /// operation is recorded again it may be what it was before, or not be computed because nobody will look at it.
  Tensor product(const Shape& shape, DType dtype, FunctionRef<void(const Tensor&)> compute);
  /// For products that are not the operation's result: Tensor(), or what remember() was told in the same place before.
  Tensor recall();
  void remember(const Tensor& value) { remember(value, false); }
  /// Throws unless the variables were recorded here.
  template <class... V>
  static Tape& common(const Variable& first, const V&... others) {
    DPMP_CHECK(((&others.tape() == &first.tape()) && ...), "expected variables of one tape, got several tapes");
    return first.tape();
  }
  bool needs_gradient(const Variable& v) const { return gradients_.needed(v.slot_); }

  /// Walks back from per-sample losses [B] (f32, f64 for an f64 model). weights [B], the losses' dtype: factors of the
  /// losses (a mask of 0 and 1; all 1 when not given). A tape is walked once, or again after a walk that kept it.
  void backward(const Variable& losses, GradientSink& sink, const Tensor& weights = Tensor(),
                AfterWalk after = AfterWalk::release);
  /// Gradient of an input that asked for it; zeros when the losses do not depend on it.
  Tensor gradient_of(const Variable& v) const;

 private:
  friend class BackwardPass;
  friend class LossProbe;
  using HeldRule = detail::HeldRulePointer;
  struct Step {
    index_t slot;  // of the rule's result
    HeldRule rule;
    std::unique_ptr<CheckpointedPart> part;  // in the place of a rule: steps to record again
  };
  /// While it lives, steps are those of a part.
  class OpenPart {
   public:
    /// again: the values get the slots that they had before.
    OpenPart(Tape& tape, CheckpointedPart& part, bool again);
    ~OpenPart();
    OpenPart(const OpenPart&) = delete;
    OpenPart& operator=(const OpenPart&) = delete;
    /// The first time: the steps so far are forgotten, the part takes their place.
    void close(std::unique_ptr<CheckpointedPart> part);

   private:
    Tape& tape_;
    std::vector<Step> steps_;  // before those of the part
    CheckpointedPart* outer_;
    std::optional<std::size_t> recalled_;
  };
  /// Slots that are handed out again.
  struct SlotsAgain {
    index_t next, end;
  };

  /// The same for a rule that is held; null: nothing is kept for a backward pass.
  Variable record(std::string_view name, const Tensor& value, HeldRule rule);
  void walk(BackwardPass& pass, std::vector<Step>& steps, bool release);
  std::vector<Step> record_again(CheckpointedPart& part);
  static std::vector<Parameter*> parameters_of(const std::vector<Step>& steps);

  void tell(std::string_view operation, const Tensor& value) {
    if (observer_ && !again_) observer_(operation, value);
  }
  index_t next_slot() const { return again_ ? again_->next : index_t(recorded_.size()); }
  Variable add_slot(std::string_view name, const Tensor& value, bool needs_gradient, bool leaf);
  static constexpr const char* different_part =
      "expected a checkpointed part to record every time what it recorded first, got ";
  void check_recorded_again(index_t slot, const RecordedValue& value, bool needs_gradient) const;
  void remember(const Tensor& value, bool result);

  Context& ctx_;
  index_t samples_;
  std::optional<SampleRandomness> randomness_;
  std::optional<Checkpointing> checkpointing_;
  RecomputedWork recomputed_;
  TapeMode mode_;
  RecordsAre records_;
  bool walked_ = false, released_ = false;
  Observer observer_;
  std::vector<RecordedValue> recorded_;
  SlotGradients gradients_;
  std::vector<Step> steps_;
  // The innermost part that is recorded now, and how many of its products were asked for again (none: it is the first time).
  CheckpointedPart* part_ = nullptr;
  std::optional<std::size_t> recalled_;
  std::optional<SlotsAgain> again_;
  ParameterUses uses_;  // in the walk that goes on
};

inline bool BackwardPass::needs(const GradientSlot& input) const { return tape_.gradients_.needed(input.index); }

inline bool BackwardPass::releases() const { return tape_.released_; }
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Tape::Tape(Context& ctx, index_t samples, TapeMode mode, RecordsAre records)
    : ctx_(ctx), samples_(samples), mode_(mode), records_(records) {
  DPMP_CHECK(samples >= 0, "expected a number of samples >= 0, got ", samples);
}

DPMP_KEPT_BODY inline Variable Tape::input(const Tensor& value, bool needs_gradient) {
  check_device("an input of the tape", value, ctx_);
  const Variable v = add_slot("input", value, needs_gradient, needs_gradient);
  tell("input", value);
  return v;
}

DPMP_KEPT_BODY inline Variable Tape::record(std::string_view name, const Tensor& value, HeldRule rule) {
  DPMP_CHECK(value.shape().rank() > 0 && value.shape().front() == samples_, name,
             ": expected a result with the sample axis (", samples_, " samples) first, got ", value.shape(),
             ": an operation that mixes samples has no per-sample gradients");
  DPMP_CHECK(value.device() == ctx_.device(), name, ": expected a result on ", ctx_.device(), ", got one on ",
             value.device());
  value.label_memory(name);
  const Variable v = add_slot(name, value, rule != nullptr, false);
  if (rule) steps_.push_back({v.slot_, std::move(rule), nullptr});
  tell(name, value);
  return v;
}

DPMP_KEPT_BODY inline void Tape::backward(const Variable& losses, GradientSink& sink, const Tensor& weights,
                                          AfterWalk after) {
  DPMP_CHECK(mode_ == TapeMode::training, "expected a tape in training mode for a backward pass, got one for inference");
  DPMP_CHECK(!released_, "expected a tape that was not walked yet: record the forward pass again");
  DPMP_CHECK(&losses.tape() == this, "expected losses that were recorded on this tape, got another tape's");
  check_shape("per-sample losses", losses.value(), {samples_});
  Tensor seed = weights.defined() ? weights : Tensor::full(ctx_, {samples_}, losses.dtype(), 1);
  check_shape("loss weights", seed, {samples_});
  check_dtype("loss weights", seed, losses.dtype());
  check_device("loss weights", seed, ctx_);
  DPMP_CHECK(!part_, "expected a backward pass after the checkpointed part was recorded, got one inside of it");
  walked_ = true;
  released_ = after == AfterWalk::release;
  gradients_.start(losses.slot_, std::move(seed));
  uses_ = {};
  uses_.add(parameters_of(steps_));
  const ProfilerRange whole(ctx_, "backward");
  BackwardPass pass(ctx_, *this, sink);
  walk(pass, steps_, released_);
  gradients_.finish(ctx_);
  sink.end(ctx_);
}

DPMP_KEPT_BODY inline void Tape::walk(BackwardPass& pass, std::vector<Step>& steps, bool release) {
  for (index_t k = index_t(steps.size()) - 1; k >= 0; --k) {
    Step& step = steps[std::size_t(k)];
    if (step.part) {
      std::vector<Step> again = record_again(*step.part);
      if (release) steps.pop_back();
      walk(pass, again, true);
      continue;
    }
    // Taken out of its slot, so that a rule may pass the same buffer on.
    const Tensor gradient = gradients_.collect(ctx_, step.slot);
    const std::vector<Parameter*> declared = step.rule->parameters();
    pass.declared_ = &declared;
    pass.rule_ = step.rule->name();
    if (gradient.defined()) {
      const ProfilerRange of_rule(ctx_, pass.rule_);
      step.rule->backward(pass, gradient);
    }
    if (release) steps.pop_back();
    // The walk goes from the last step to the first, so a parameter's last use is its first one in the forward pass.
    for (Parameter* p : declared)
      if (p && p->trainable() && uses_.last(*p)) pass.sink_.finish(ctx_, *p);
  }
}

DPMP_KEPT_BODY inline Tensor BackwardPass::take(const GradientSlot& input) { return tape_.gradients_.take(input.index); }

DPMP_KEPT_BODY inline void BackwardPass::accumulate(const GradientSlot& input, const Tensor& gradient) {
  if (!needs(input)) return;
  check_shape("a gradient", gradient, input.shape);
  check_dtype("a gradient", gradient, input.dtype);
  tape_.gradients_.give(ctx, input.index, gradient);
}

DPMP_KEPT_BODY inline void BackwardPass::emit(const ParameterSite& site) {
  check_declared(*site.parameter);
  if (site.bias) check_declared(*site.bias);
  const bool weight = site.parameter->trainable(), bias = site.bias && site.bias->trainable();
  if (weight && bias && takes_biases_ && tape_.uses_.once(*site.parameter) && tape_.uses_.once(*site.bias))
    return sink_.accept(ctx, site);
  if (weight) {
    ParameterSite alone = site;
    alone.bias = nullptr;
    sink_.accept(ctx, alone);
  }
  if (bias) sink_.accept(ctx, bias_site(ctx, *site.bias, site.b));
}

DPMP_KEPT_BODY inline Tensor Tape::gradient_of(const Variable& v) const {
  DPMP_CHECK(&v.tape() == this, "expected an input of this tape, got another tape's");
  DPMP_CHECK(walked_ && gradients_.leaf(v.slot_), "expected an input that needs a gradient, after a backward pass");
  const Tensor& gradient = gradients_.of_leaf(v.slot_);
  return gradient.defined() ? gradient : Tensor::zeros(ctx_, v.shape(), v.dtype());
}

DPMP_KEPT_BODY inline Variable Tape::add_slot(std::string_view name, const Tensor& value, bool needs_gradient, bool leaf) {
  DPMP_CHECK(value.shape().rank() > 0 && value.shape().front() == samples_, "expected a value with the sample axis (",
             samples_, " samples) first, got ", value.shape());
  Variable v;
  v.tape_ = this;
  v.slot_ = next_slot();
  v.value_ = value;
  const RecordedValue recorded{name, value.shape(), value.dtype()};
  if (again_) {
    check_recorded_again(again_->next++, recorded, needs_gradient);
  } else {
    gradients_.add(value.dtype(), needs_gradient, leaf);
    recorded_.push_back(recorded);
  }
  return v;
}

DPMP_KEPT_BODY inline Tensor Tape::product(const Shape& shape, DType dtype, FunctionRef<void(const Tensor&)> compute) {
  // The last value of a part that is recorded again: what follows has used it already.
  if (again_ && again_->next + 1 == again_->end) return Tensor::empty(ctx_, shape, dtype);
  Tensor result = recall();
  if (result.defined()) {
    DPMP_CHECK(result.shape() == shape && result.dtype() == dtype, different_part, "a product of another shape or dtype");
    return result;
  }
  result = Tensor::empty(ctx_, shape, dtype);
  compute(result);
  remember(result, true);
  return result;
}

DPMP_KEPT_BODY inline Tensor Tape::recall() {
  if (!recalled_ || !part_->keeps_products) return Tensor();
  DPMP_CHECK(*recalled_ < part_->products.size(), different_part, "more products");
  Tensor& value = part_->products[(*recalled_)++].value;
  return released_ ? std::exchange(value, Tensor()) : value;
}

DPMP_KEPT_BODY inline void Tape::remember(const Tensor& value, bool result) {
  if (part_ && part_->keeps_products && !recalled_) part_->products.push_back({value, next_slot(), result});
}

DPMP_KEPT_BODY inline Tape::OpenPart::OpenPart(Tape& tape, CheckpointedPart& part, bool again)
    : tape_(tape),
      steps_(std::exchange(tape.steps_, {})),
      outer_(std::exchange(tape.part_, &part)),
      recalled_(std::exchange(tape.recalled_, again ? std::optional<std::size_t>(0) : std::nullopt)) {
  if (again)
    tape.again_ = SlotsAgain{part.begin, part.end};
  else
    part.begin = tape.next_slot();
}

DPMP_KEPT_BODY inline Tape::OpenPart::~OpenPart() {
  if (tape_.recalled_) tape_.again_.reset();
  tape_.steps_ = std::move(steps_);
  tape_.part_ = outer_;
  tape_.recalled_ = recalled_;
}

DPMP_KEPT_BODY inline void Tape::OpenPart::close(std::unique_ptr<CheckpointedPart> part) {
  part->end = tape_.next_slot();
  part->parameters = parameters_of(tape_.steps_);
  auto& products = part->products;
  if (!products.empty() && products.back().result && products.back().slot + 1 == part->end) products.pop_back();
  tape_.recomputed_.add(*part, tape_.recorded_);
  if (!tape_.steps_.empty()) steps_.push_back({-1, nullptr, std::move(part)});
}

DPMP_KEPT_BODY inline std::vector<Tape::Step> Tape::record_again(CheckpointedPart& part) {
  const ProfilerRange range(ctx_, "recompute");
  OpenPart open(*this, part, true);
  part.record();
  DPMP_CHECK(again_->next == again_->end, different_part, "fewer operations");
  DPMP_CHECK(parameters_of(steps_) == part.parameters, different_part, "other parameters");
  return std::move(steps_);
}

DPMP_KEPT_BODY inline void Tape::check_recorded_again(index_t slot, const RecordedValue& value, bool needs_gradient) const {
  DPMP_CHECK(slot < again_->end, different_part, "more operations");
  const RecordedValue& wanted = recorded_[std::size_t(slot)];
  std::string got = difference(wanted, value);
  if (got.empty() && needs_gradient != gradients_.needed(slot)) got = "one with other trained parameters or inputs";
  DPMP_CHECK(got.empty(), different_part, got, " in the place of ", wanted.name);
}

DPMP_KEPT_BODY inline std::vector<Parameter*> Tape::parameters_of(const std::vector<Step>& steps) {
  std::vector<Parameter*> all;
  for (const Step& step : steps) {
    const std::vector<Parameter*> named = step.part ? step.part->parameters : step.rule->parameters();
    all.insert(all.end(), named.begin(), named.end());
  }
  return all;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
