// SPDX-License-Identifier: Apache-2.0
// Which operation runs in what: the one place that says so, for all that a tape records. Dtypes come from nn/precision.hpp.
#pragma once
#include <array>
#include <string_view>

#include "dpmp/core/dtype.hpp"

namespace dpmp::inline DPMP_ABI {
/// Operands and results are stored in S, the dtype of what the operation is made from; so is the gradient of each operand,
/// rounded once. "-": nothing is computed, or nothing summed. In an f64 model "FP32" is double.
struct OperationPrecision {
  std::string_view name;      // as RecordedValue has it
  std::string_view stored;    // S, or what differs from it
  std::string_view computed;  // one element's formula
  std::string_view sums;      // of the forward pass, and of the gradients that are not per-sample gradients
};

/// By kind. Per-sample gradients and sums over samples are in docs/numerics.md.
inline constexpr std::array operation_precisions = {
    // Products: exact products of 16-bit numbers, added up in FP32, the epilogue (bias, GELU) before the one rounding.
    OperationPrecision{"linear", "S", "FP32", "FP32"},
    OperationPrecision{"wide_linear", "S, result FP32", "FP32", "FP32"},
    OperationPrecision{"gelu_feed_forward", "S", "FP32", "FP32"},
    OperationPrecision{"matmul", "S", "FP32", "FP32"},
    OperationPrecision{"conv2d", "S", "FP32", "FP32"},
    // Softmax and attention's probabilities are never summed in S.
    OperationPrecision{"attention", "S, log-sum-exp FP32", "FP32", "FP32"},
    OperationPrecision{"softmax", "S", "FP32", "double"},
    // Statistics of norms are FP32 whatever S is.
    OperationPrecision{"layer_norm", "S, statistics FP32", "FP32", "FP32"},
    OperationPrecision{"rms_norm", "S, statistics FP32", "FP32", "FP32"},
    OperationPrecision{"group_norm", "S, statistics FP32", "FP32", "FP32"},
    // Losses are FP32 whatever S is.
    OperationPrecision{"cross_entropy", "S, losses FP32", "FP32", "double"},
    OperationPrecision{"linear_cross_entropy", "S, logits and losses FP32", "FP32", "double, products FP32"},
    OperationPrecision{"mean_squared_error", "S, targets and losses FP32", "FP32", "double"},
    // Element by element.
    OperationPrecision{"add", "S", "FP32", "-"},
    OperationPrecision{"subtract", "S", "FP32", "-"},
    OperationPrecision{"multiply", "S", "FP32", "-"},
    OperationPrecision{"divide", "S", "FP32", "-"},
    OperationPrecision{"scale", "S", "FP32", "-"},
    OperationPrecision{"shift", "S", "FP32", "-"},
    OperationPrecision{"exp", "S", "FP32", "-"},
    OperationPrecision{"log", "S", "FP32", "-"},
    OperationPrecision{"sqrt", "S", "FP32", "-"},
    OperationPrecision{"square", "S", "FP32", "-"},
    OperationPrecision{"reciprocal", "S", "FP32", "-"},
    OperationPrecision{"relu", "S", "FP32", "-"},
    OperationPrecision{"tanh", "S", "FP32", "-"},
    OperationPrecision{"sigmoid", "S", "FP32", "-"},
    OperationPrecision{"silu", "S", "FP32", "-"},
    OperationPrecision{"gelu", "S", "FP32", "-"},
    OperationPrecision{"gelu_tanh", "S", "FP32", "-"},
    OperationPrecision{"swiglu", "S", "FP32", "-"},
    OperationPrecision{"dropout", "S", "FP32", "-"},
    OperationPrecision{"rope", "S", "FP32", "-"},
    OperationPrecision{"position_embedding", "S", "FP32", "-"},
    // Sums over other axes than a product's.
    OperationPrecision{"sum", "S", "FP32", "double or two FP32"},
    OperationPrecision{"mean", "S", "FP32", "double or two FP32"},
    OperationPrecision{"average_pool2d", "S", "FP32", "two FP32"},
    OperationPrecision{"max_pool2d", "S", "-", "FP32"},
    OperationPrecision{"broadcast_to", "S", "-", "double or two FP32"},
    OperationPrecision{"gather", "S", "-", "FP32"},
    OperationPrecision{"unfold2d", "S", "-", "FP32"},
    // Copies.
    OperationPrecision{"cast", "from one dtype to another", "-", "-"},
    OperationPrecision{"embedding", "S", "-", "-"},
    OperationPrecision{"parameter", "S", "-", "-"},
    OperationPrecision{"reshape", "S", "-", "-"},
    OperationPrecision{"transpose", "S", "-", "-"},
    OperationPrecision{"concat", "S", "-", "-"},
    OperationPrecision{"pad", "S", "-", "-"},
    OperationPrecision{"slice", "S", "-", "-"},
    OperationPrecision{"where", "S", "-", "-"},
    OperationPrecision{"stop_gradient", "S", "-", "-"},
};

/// The row of an operation; null for one that the library does not have.
inline const OperationPrecision* operation_precision(std::string_view name) {
  for (const OperationPrecision& row : operation_precisions)
    if (row.name == name) return &row;
  return nullptr;
}
}  // namespace dpmp::inline DPMP_ABI
