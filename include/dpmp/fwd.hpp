// SPDX-License-Identifier: Apache-2.0
// Forward declarations: for headers that only name the types.
#pragma once
#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
class Error;
class Shape;
class Context;
class Tensor;
class Parameter;
struct ParameterSite;
class GradientSink;
class Variable;
class Tape;
namespace nn {
class Parameters;
class Transformer;
}  // namespace nn
namespace dp {
class Plan;
class StreamKeys;
}  // namespace dp
namespace train {
class PrivateTrainer;
class PlainTrainer;
}  // namespace train
}  // namespace dpmp::inline DPMP_ABI
