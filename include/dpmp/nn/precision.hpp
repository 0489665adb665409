// SPDX-License-Identifier: Apache-2.0
// What a model stores and computes in, by scope: one dtype, islands of FP32 in it, and other dtypes for some layers. Which
// operation then runs in what: autograd/operation_precision.hpp.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/core/dtype.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// The policy of a model or of a scope, a value:
///
///     Precision::bf16().fp32_residual().override("head", DType::f32)
///
/// A layer has one dtype. It stores its weights in it (the masters that the optimiser updates are f32, f64 for f64), casts
/// what comes in to it by a recorded `cast` where that has another, and its result has it, too; what has the dtype already
/// is not touched. The gradient of an activation has the activation's dtype. Nothing else casts: an operation whose operands
/// have several dtypes throws and names them.
///
/// Always wider, inside of the kernels: softmax and attention's probabilities, the statistics of norms, losses, and all
/// sums (f64 models: double).
class Precision {
 public:
  /// This dtype for everything; implicit, so that a dtype is a policy. Throws for i32.
  Precision(DType dtype);
  static Precision f32() { return DType::f32; }
  static Precision bf16() { return DType::bf16; }
  static Precision f16() { return DType::f16; }
  /// Models in f64 need a program with DPMP_F64.
  static Precision f64() { return DType::f64; }

  // Islands: the same policy with f32 in one place of a bf16 or f16 model. They change nothing of f32 and f64.
  /// Logits are the sums of the last product as they are, not rounded to 16 bits: nn::Transformer, Linear::logits. Twice the
  /// memory of what is the largest tensor of a small model.
  Precision fp32_logits(bool on = true) const;
  /// The residual stream between the branches of nn::Blocks; a branch runs in the scope's dtype, its result is cast up and
  /// added. The norms read the stream, so they are in f32, too.
  Precision fp32_residual(bool on = true) const;
  /// Gains, biases, inputs and results of norms.
  Precision fp32_norms(bool on = true) const;

  /// The same islands around another dtype, without the overrides. Throws for i32.
  Precision in(DType dtype) const;
  /// Another dtype, with the islands there are, for the scope whose path matches and for all inside of it. pattern: a path
  /// as parameter names have it, without the last part, where `*` stands for any characters: "block0", "*.attention".
  /// A deeper match counts more, then a later one. A Trainer refuses a pattern that no parameter is in.
  Precision override(std::string_view pattern, DType dtype) const;
  /// Another dtype and other islands. Throws where `precision` has overrides itself.
  Precision override(std::string_view pattern, const Precision& precision) const;

  DType dtype() const { return dtype_; }
  DType logits() const { return fp32_logits_ ? accumulate_dtype(dtype_) : dtype_; }
  DType residual() const { return fp32_residual_ ? accumulate_dtype(dtype_) : dtype_; }
  DType norms() const { return fp32_norms_ || fp32_residual_ ? accumulate_dtype(dtype_) : dtype_; }

  /// This policy at a path: what its overrides make of it. Scope asks.
  Precision at(std::string_view path) const { return descended({}, path); }
  /// The same for the way from one scope's path to that of a scope inside of it.
  Precision descended(std::string_view from, std::string_view to) const;
  /// The patterns of its overrides.
  std::vector<std::string> patterns() const;
  /// "bf16, residual stream f32; block0: f32".
  std::string text() const;
  friend std::ostream& operator<<(std::ostream& out, const Precision& p) { return out << p.text(); }

 private:
  struct Override {
    std::string pattern;
    DType dtype;
    bool islands;  // whether those below count, or those around
    bool logits, residual, norms;
  };
  static bool matches(std::string_view pattern, std::string_view path);
  std::string islands_text() const;
  DType dtype_;
  bool fp32_logits_ = false, fp32_residual_ = false, fp32_norms_ = false;
  std::vector<Override> overrides_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Precision::Precision(DType dtype) : dtype_(dtype) {
  DPMP_CHECK(is_real(dtype), "expected a floating dtype for a model (f32, bf16, f16, f64), got ", dtype);
}

DPMP_KEPT_BODY inline Precision Precision::fp32_logits(bool on) const {
  Precision other = *this;
  other.fp32_logits_ = on;
  return other;
}

DPMP_KEPT_BODY inline Precision Precision::fp32_residual(bool on) const {
  Precision other = *this;
  other.fp32_residual_ = on;
  return other;
}

DPMP_KEPT_BODY inline Precision Precision::fp32_norms(bool on) const {
  Precision other = *this;
  other.fp32_norms_ = on;
  return other;
}

DPMP_KEPT_BODY inline Precision Precision::in(DType dtype) const {
  return Precision(dtype).fp32_logits(fp32_logits_).fp32_residual(fp32_residual_).fp32_norms(fp32_norms_);
}

DPMP_KEPT_BODY inline Precision Precision::override(std::string_view pattern, DType dtype) const {
  DPMP_CHECK(!pattern.empty() && is_real(dtype), "expected a pattern of a path and a floating dtype for it, got '", pattern,
             "' and ", dtype);
  Precision other = *this;
  other.overrides_.push_back({std::string(pattern), dtype, false, false, false, false});
  return other;
}

DPMP_KEPT_BODY inline Precision Precision::override(std::string_view pattern, const Precision& p) const {
  DPMP_CHECK(p.overrides_.empty(), "expected a precision without overrides of its own for '", pattern, "', got ", p);
  Precision other = override(pattern, p.dtype_);
  other.overrides_.back() = {std::string(pattern), p.dtype_, true, p.fp32_logits_, p.fp32_residual_, p.fp32_norms_};
  return other;
}

DPMP_KEPT_BODY inline Precision Precision::descended(std::string_view from, std::string_view to) const {
  Precision here = *this;
  // One part of the path after the other: a scope is inside of all that its path begins with.
  for (std::size_t end = from.empty() ? 0 : from.size() + 1; end <= to.size(); ++end) {
    if (end == 0 ? !to.empty() : end < to.size() && to[end] != '.') continue;
    for (const Override& o : overrides_) {
      if (!matches(o.pattern, to.substr(0, end))) continue;
      here.dtype_ = o.dtype;
      if (!o.islands) continue;
      here.fp32_logits_ = o.logits;
      here.fp32_residual_ = o.residual;
      here.fp32_norms_ = o.norms;
    }
  }
  return here;
}

DPMP_KEPT_BODY inline bool Precision::matches(std::string_view pattern, std::string_view path) {
  if (pattern.empty()) return path.empty();
  if (pattern.front() != '*')
    return !path.empty() && pattern.front() == path.front() && matches(pattern.substr(1), path.substr(1));
  for (std::size_t skipped = 0; skipped <= path.size(); ++skipped)
    if (matches(pattern.substr(1), path.substr(skipped))) return true;
  return false;
}

DPMP_KEPT_BODY inline std::vector<std::string> Precision::patterns() const {
  std::vector<std::string> all;
  for (const Override& o : overrides_) all.push_back(o.pattern);
  return all;
}

DPMP_KEPT_BODY inline std::string Precision::islands_text() const {
  return std::string(fp32_logits_ ? ", logits f32" : "") + (fp32_residual_ ? ", residual stream f32" : "") +
         (fp32_norms_ ? ", norms f32" : "");
}

DPMP_KEPT_BODY inline std::string Precision::text() const {
  std::string text = std::string(name_of(dtype_)) + islands_text();
  for (const Override& o : overrides_) {
    const Precision inner = Precision(o.dtype).fp32_logits(o.logits).fp32_residual(o.residual).fp32_norms(o.norms);
    text += "; " + o.pattern + ": " + inner.text() + (o.islands && inner.islands_text().empty() ? ", no islands" : "");
  }
  return text;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
