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

#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/autograd/sample_identities.hpp"
#include "dpmp/autograd/site.hpp"
#include "dpmp/runtime/profiler_range.hpp"
#include "dpmp/tensor/elementwise.hpp"

namespace dpmp::inline DPMP_ABI {
class Tape;
class BackwardPass;

/// Where the gradient of a variable is gathered. What a rule keeps of an input whose value its backward does not need.
struct GradientSlot {
  index_t index = -1;
  Shape shape;
  DType dtype = DType::f32;
};

/// A value on a tape. Cheap to copy; the tensor lives as long as a Variable or a rule that saved it.
class Variable {
 public:
  Variable() = default;
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }
  Tape& tape() const {
    DPMP_CHECK(tape_, "expected a recorded variable, got an empty one");
    return *tape_;
  }
  GradientSlot slot() const { return {slot_, shape(), dtype()}; }

 private:
  friend class Tape;
  Tape* tape_ = nullptr;
  index_t slot_ = -1;
  Tensor value_;
};

/// What a rule may do while the tape is walked backwards.
class BackwardPass {
 public:
  Context& ctx;
  /// Whether anybody wants the gradient of this input; a rule may leave it out otherwise.
  bool needs(const GradientSlot& input) const;
  /// Whether the tape lets go of what a rule saved as soon as the rule is done: then the rule may overwrite what nobody
  /// shares.
  bool releases() const;
  /// Adds to the gradient of an input. Shape and dtype must be the input's. Shares in 16 bits are added up in FP32 and
  /// rounded once, however often a value is used.
  void accumulate(const GradientSlot& input, const Tensor& gradient);
  /// Takes away what another rule gave to the gradient of an input (Tensor(): nothing, or more than one share in 16 bits,
  /// which stay), for a rule that adds it to its own share while it computes that, and hands in the total.
  Tensor take(const GradientSlot& input);
  /// Hands over one use of a parameter that the rule's parameters() names, or with site.bias of two. Frozen parameters are
  /// dropped here. A bias comes along with its weight where the sink takes biases, and both are trained and have this one
  /// use on the tape: what was recorded decides it, before the walk. Otherwise it becomes a site of its own.
  void emit(const ParameterSite& site);

 private:
  friend class Tape;
  void check_declared(const Parameter& p) const {
    DPMP_CHECK(std::find(declared_->begin(), declared_->end(), &p) != declared_->end(), rule_,
               ": expected a site of a parameter that the rule's parameters() names, got one of ", p.name());
  }
  BackwardPass(Context& context, Tape& tape, GradientSink& sink)
      : ctx(context), tape_(tape), sink_(sink), takes_biases_(sink.takes_biases(context)) {}
  Tape& tape_;
  GradientSink& sink_;
  bool takes_biases_;
  const std::vector<Parameter*>* declared_ = nullptr;  // by the rule that is running
  std::string_view rule_;
};

/// Whether a tape keeps what a backward pass needs.
enum class TapeMode : std::uint8_t { training, inference };
/// Whether an error may depend on what a record says. confidential: a token id that no table has makes its own sample NaN,
/// on every device, and nothing is thrown or named. open: it is refused, with the id, its sample and position; a GPU is
/// waited for.
enum class RecordsAre : std::uint8_t { confidential, open };
/// A value as it was recorded: by which operation ("input" for none), of which shape and dtype.
struct RecordedValue {
  std::string_view name;
  Shape shape;
  DType dtype = DType::f32;
};
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
  /// Everything recorded so far, in order: what must not depend on the records (train/fixed_program.hpp).
  const std::vector<RecordedValue>& recorded() const { return recorded_; }

  /// Is told of every input and every result in the order of the forward pass, with the name of the operation ("input"):
  /// for checks that look inside of a pass. The values may be overwritten later: read them now.
  using Observer = std::function<void(std::string_view operation, const Tensor& value)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  /// A value without a history. needs_gradient: gradient_of() will answer after the backward pass.
  Variable input(const Tensor& value, bool needs_gradient = false);

  /// Records the result of an operation. Rule: `name` (std::string_view), backward(BackwardPass&, const Tensor& gradient)
  /// const, and, if it uses parameters, parameters() -> std::vector<Parameter*>: all that backward may emit a site of.
  /// needs_gradient: some input or some trainable parameter of the rule wants a gradient.
  template <class Rule>
  Variable record(const Tensor& value, bool needs_gradient, Rule rule) {
    DPMP_CHECK(value.shape().rank() > 0 && value.shape().front() == samples_, Rule::name,
               ": expected a result with the sample axis (", samples_, " samples) first, got ", value.shape(),
               ": an operation that mixes samples has no per-sample gradients");
    DPMP_CHECK(value.device() == ctx_.device(), Rule::name, ": expected a result on ", ctx_.device(), ", got one on ",
               value.device());
    const bool keep = needs_gradient && mode_ == TapeMode::training;
    value.label_memory(Rule::name);
    const Variable v = add_slot(Rule::name, value, keep, false);
    if (keep) steps_.push_back({v.slot_, std::make_unique<Holder<Rule>>(std::move(rule)), {}});
    if (observer_) observer_(Rule::name, value);
    return v;
  }
  /// Throws unless the variables were recorded here.
  template <class... V>
  static Tape& common(const Variable& first, const V&... others) {
    DPMP_CHECK(((&others.tape() == &first.tape()) && ...), "expected variables of one tape, got several tapes");
    return first.tape();
  }
  bool needs_gradient(const Variable& v) const { return slots_[std::size_t(v.slot_)].needs_gradient; }

  /// Walks back from per-sample losses [B] (f32, f64 for an f64 model). weights [B], the losses' dtype: factors of the
  /// losses (a mask of 0 and 1; all 1 when not given). A tape is walked once, or again after a walk that kept it.
  void backward(const Variable& losses, GradientSink& sink, const Tensor& weights = Tensor(),
                AfterWalk after = AfterWalk::release);
  /// Gradient of an input that asked for it; zeros when the losses do not depend on it.
  Tensor gradient_of(const Variable& v) const;

 private:
  friend class BackwardPass;
  struct RuleBase {
    virtual ~RuleBase() = default;
    virtual void backward(BackwardPass& pass, const Tensor& gradient) const = 0;
    virtual std::vector<Parameter*> parameters() const = 0;
    virtual std::string_view name() const = 0;
  };
  template <class Rule>
  struct Holder final : RuleBase {
    explicit Holder(Rule&& r) : rule(std::move(r)) {}
    void backward(BackwardPass& pass, const Tensor& gradient) const override { rule.backward(pass, gradient); }
    std::vector<Parameter*> parameters() const override {
      if constexpr (requires { rule.parameters(); })
        return rule.parameters();
      else
        return {};
    }
    std::string_view name() const override { return Rule::name; }
    Rule rule;
  };
  struct Slot {
    // What was given so far. In 16 bits a second share waits: two are added and rounded at once where the sum is asked for;
    // with a third one `gradient` becomes their sum in FP32.
    Tensor gradient, second;
    index_t shares = 0;
    bool needs_gradient = false, leaf = false;
  };
  struct Step {
    index_t slot;
    std::unique_ptr<RuleBase> rule;
    std::vector<Parameter*> finishes;  // parameters of which this step has the last use, in the order of the walk
  };

  /// The walk goes from the last step to the first, so a parameter's last use is its first one in the forward pass.
  void find_uses();
  bool used_once(const Parameter& p) const {
    return std::find(used_again_.begin(), used_again_.end(), &p) == used_again_.end();
  }

  Variable add_slot(std::string_view name, const Tensor& value, bool needs_gradient, bool leaf);
  void give(index_t slot, const Tensor& share);
  /// To the sum of a slot that has two 16-bit shares, or a sum in FP32 already.
  void add_in_fp32(Slot& slot, const Tensor& share);
  /// The sum of the shares (Tensor(): there are none), which leaves the slot.
  Tensor collect(index_t slot);

  Context& ctx_;
  index_t samples_;
  std::optional<SampleRandomness> randomness_;
  TapeMode mode_;
  RecordsAre records_;
  bool walked_ = false, released_ = false;
  Observer observer_;
  std::vector<Slot> slots_;
  std::vector<Step> steps_;
  std::vector<const Parameter*> used_again_;  // trainable parameters with more than one use
  std::vector<RecordedValue> recorded_;
};

inline bool BackwardPass::needs(const GradientSlot& input) const {
  return tape_.slots_[std::size_t(input.index)].needs_gradient;
}

inline bool BackwardPass::releases() const { return tape_.released_; }
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/elementwise.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Tape::Tape(Context& ctx, index_t samples, TapeMode mode, RecordsAre records)
    : ctx_(ctx), samples_(samples), mode_(mode), records_(records) {
  DPMP_CHECK(samples >= 0, "expected a number of samples >= 0, got ", samples);
}

DPMP_KEPT_BODY inline Variable Tape::input(const Tensor& value, bool needs_gradient) {
  check_device("an input of the tape", value, ctx_);
  const Variable v = add_slot("input", value, needs_gradient, needs_gradient);
  if (observer_) observer_("input", value);
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
  walked_ = true;
  released_ = after == AfterWalk::release;
  for (Slot& slot : slots_) slot.gradient = slot.second = Tensor(), slot.shares = 0;
  slots_[std::size_t(losses.slot_)].gradient = std::move(seed);
  find_uses();
  const ProfilerRange whole(ctx_, "backward");
  BackwardPass pass(ctx_, *this, sink);
  for (index_t k = index_t(steps_.size()) - 1; k >= 0; --k) {
    Step& step = steps_[std::size_t(k)];
    // Taken out of its slot, so that a rule may pass the same buffer on.
    const Tensor gradient = collect(step.slot);
    const std::vector<Parameter*> declared = step.rule->parameters();
    pass.declared_ = &declared;
    pass.rule_ = step.rule->name();
    if (gradient.defined()) {
      const ProfilerRange of_rule(ctx_, pass.rule_);
      step.rule->backward(pass, gradient);
    }
    const std::vector<Parameter*> finished = std::move(step.finishes);
    if (released_) steps_.pop_back();
    for (Parameter* p : finished) sink.finish(ctx_, *p);
  }
  for (index_t k = 0; k < index_t(slots_.size()); ++k)
    if (slots_[std::size_t(k)].leaf) slots_[std::size_t(k)].gradient = collect(k);
  sink.end(ctx_);
}

DPMP_KEPT_BODY inline Tensor BackwardPass::take(const GradientSlot& input) {
  Tape::Slot& slot = tape_.slots_[std::size_t(input.index)];
  // A total that was handed in is a share that was rounded: it is not taken again.
  if (size_of(input.dtype) == 2 && slot.shares > 1) return Tensor();
  return std::exchange(slot.gradient, Tensor());
}

DPMP_KEPT_BODY inline void BackwardPass::accumulate(const GradientSlot& input, const Tensor& gradient) {
  if (!needs(input)) return;
  check_shape("a gradient", gradient, input.shape);
  check_dtype("a gradient", gradient, input.dtype);
  tape_.give(input.index, gradient);
}

DPMP_KEPT_BODY inline void Tape::give(index_t index, const Tensor& share) {
  Slot& slot = slots_[std::size_t(index)];
  const bool narrow = size_of(share.dtype()) == 2;
  ++slot.shares;
  if (!slot.gradient.defined()) {
    slot.gradient = share;
  } else if (narrow && (slot.second.defined() || slot.gradient.dtype() != share.dtype())) {
    add_in_fp32(slot, share);
  } else {
    slot.second = share;
    if (!narrow) slot.gradient = collect(index);
  }
}

DPMP_KEPT_BODY inline void Tape::add_in_fp32(Slot& slot, const Tensor& share) {
  const Tensor sum = slot.second.defined() ? Tensor::empty(ctx_, share.shape(), DType::f32) : slot.gradient;
  dispatch_real(share.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2) {
      if (slot.second.defined())
        launch_library_elements(
            ctx_, share.numel(),
            kernels::SumOfThree<T>{slot.gradient.data<T>(), slot.second.data<T>(), share.data<T>(), sum.data<float>()});
      else
        launch_library_elements(ctx_, share.numel(), kernels::AddTo<T>{share.data<T>(), sum.data<float>()});
    }
  });
  slot.gradient = sum;
  slot.second = Tensor();
}

DPMP_KEPT_BODY inline Tensor Tape::collect(index_t index) {
  Slot& slot = slots_[std::size_t(index)];
  const Tensor first = std::exchange(slot.gradient, Tensor()), second = std::exchange(slot.second, Tensor());
  const DType dtype = recorded_[std::size_t(index)].dtype;
  const bool in_fp32 = first.defined() && first.dtype() != dtype;
  if (!in_fp32 && !second.defined()) return first;
  // A shared buffer may be a kept site's or another slot's gradient: then the sum needs a place of its own.
  const Tensor sum = !in_fp32 && !first.shared()    ? first
                     : !in_fp32 && !second.shared() ? second
                                                    : Tensor::empty(ctx_, first.shape(), dtype);
  dispatch_real(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2)
      if (in_fp32)
        return launch_library_elements(ctx_, sum.numel(), kernels::Cast<float, T>{first.data<float>(), sum.data<T>()});
    launch_library_elements(ctx_, sum.numel(), kernels::Add<T>{first.data<T>(), second.data<T>(), sum.data<T>()});
  });
  return sum;
}

DPMP_KEPT_BODY inline void BackwardPass::emit(const ParameterSite& site) {
  check_declared(*site.parameter);
  if (site.bias) check_declared(*site.bias);
  const bool weight = site.parameter->trainable(), bias = site.bias && site.bias->trainable();
  if (weight && bias && takes_biases_ && tape_.used_once(*site.parameter) && tape_.used_once(*site.bias))
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
  const Slot& slot = slots_[std::size_t(v.slot_)];
  DPMP_CHECK(walked_ && slot.leaf, "expected an input that needs a gradient, after a backward pass");
  return slot.gradient.defined() ? slot.gradient : Tensor::zeros(ctx_, v.shape(), v.dtype());
}

DPMP_KEPT_BODY inline void Tape::find_uses() {
  std::vector<Parameter*> seen;
  used_again_.clear();
  for (Step& step : steps_) {
    step.finishes.clear();
    for (Parameter* p : step.rule->parameters()) {
      if (!p || !p->trainable()) continue;
      if (std::find(seen.begin(), seen.end(), p) == seen.end()) {
        seen.push_back(p);
        step.finishes.push_back(p);
      } else if (used_once(*p)) {
        used_again_.push_back(p);
      }
    }
  }
}

DPMP_KEPT_BODY inline Variable Tape::add_slot(std::string_view name, const Tensor& value, bool needs_gradient, bool leaf) {
  DPMP_CHECK(value.shape().rank() > 0 && value.shape().front() == samples_, "expected a value with the sample axis (",
             samples_, " samples) first, got ", value.shape());
  Variable v;
  v.tape_ = this;
  v.slot_ = index_t(slots_.size());
  v.value_ = value;
  slots_.push_back({{}, {}, 0, needs_gradient, leaf});
  recorded_.push_back({name, value.shape(), value.dtype()});
  return v;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
