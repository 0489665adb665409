// SPDX-License-Identifier: Apache-2.0
// exp, log, sqrt, square, reciprocal: the rule of activation.hpp with other functions. The input is saved.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
// Each is computed in FP32 (double for f64) and rounded once. Nothing is thrown for a value outside of the domain, which is
// private: the result is NaN or infinite, that sample alone is not finite, and private training leaves it out.
Variable exp(const Variable& x);
/// The natural logarithm.
Variable log(const Variable& x);
/// The gradient at 0 is infinite.
Variable sqrt(const Variable& x);
/// x * x.
Variable square(const Variable& x);
/// 1 / x.
Variable reciprocal(const Variable& x);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/kernels/unary.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Variable exp(const Variable& x) { return rules::activation<kernels::Exponential>(x); }
DPMP_KEPT_BODY inline Variable log(const Variable& x) { return rules::activation<kernels::Logarithm>(x); }
DPMP_KEPT_BODY inline Variable sqrt(const Variable& x) { return rules::activation<kernels::SquareRoot>(x); }
DPMP_KEPT_BODY inline Variable square(const Variable& x) { return rules::activation<kernels::Square>(x); }
DPMP_KEPT_BODY inline Variable reciprocal(const Variable& x) { return rules::activation<kernels::Reciprocal>(x); }
}  // namespace dpmp::inline DPMP_ABI
#endif
