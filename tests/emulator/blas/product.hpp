// SPDX-License-Identifier: Apache-2.0
// One matrix product D = epilogue(alpha op(A) op(B) + beta C), with all its arguments checked and copied: what
// cublasLtMatmul and the cublas gemms submit to a stream.
#pragma once
#include <cublasLt.h>

#include <cstdint>

#include "statistics.hpp"

namespace emu::blas {

struct Matrix {
  const void* data = nullptr;
  cudaDataType_t type = CUDA_R_32F;
  std::uint64_t rows = 0, cols = 0;  // as stored, before transposition
  std::int64_t ld = 0;
  bool row_major = false, transposed = false;
  std::int64_t stride = 0;  // elements between matrices of a batch

  /// Elements from the first to the last of one matrix.
  std::int64_t extent() const {
    if (!rows || !cols) return 0;
    return row_major ? std::int64_t(rows - 1) * ld + std::int64_t(cols) : std::int64_t(cols - 1) * ld + std::int64_t(rows);
  }
  std::int64_t at(std::int64_t r, std::int64_t c) const { return row_major ? r * ld + c : c * ld + r; }
};

/// A vector or matrix that the epilogue reads or writes.
struct Operand {
  void* data = nullptr;
  cudaDataType_t type = CUDA_R_32F;
  std::int64_t ld = 0, stride = 0;
};

/// Parts of an epilogue.
struct Epilogue {
  bool known = false;
  bool bias = false, relu = false, gelu = false;
  bool store_aux = false;             // the value before gelu is kept in aux
  bool dgelu = false;                 // multiplied by gelu'(aux)
  bool sum_rows = false;              // bias gradient: bias[i] = sum_j D[i][j]
  bool sum_a = false, sum_b = false;  // bias gradient of an input: sums of op(A) or op(B) over k

  bool uses_bias() const { return bias || sum_rows || sum_a || sum_b; }
  bool uses_aux() const { return store_aux || dgelu; }
};
Epilogue epilogue_of(int code);
/// Unit of the GPU that multiplies inputs of this type: tensor cores, and for f32 only where the caller allows it.
inline Unit unit_of(cudaDataType_t input, cublasComputeType_t compute) {
  if (compute == CUBLAS_COMPUTE_32F_PEDANTIC) return fp32;  // no tensor cores
  if (input == CUDA_R_16BF || compute == CUBLAS_COMPUTE_32F_FAST_16BF) return tensor_bf16;
  if (input == CUDA_R_16F || compute == CUBLAS_COMPUTE_32F_FAST_16F) return tensor_f16;
  return compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? tensor_tf32 : fp32;
}

/// How an element is summed: in double; or in float, in one chain or in two halves, as its block of 8 columns of D and its
/// matrix of the batch decide, so that the same numbers give other bits elsewhere.
enum class SumOrder { exact, split, by_place };

struct Product {
  const char* api = "";
  std::uint64_t m = 0, n = 0, k = 0;
  Matrix a, b, c, d;
  double alpha = 1, beta = 0;
  const float *alpha_on_device = nullptr, *beta_on_device = nullptr;  // both or none
  Epilogue epilogue;
  Operand bias, aux;
  int batch = 1;
  Unit unit = fp32;
  SumOrder order = SumOrder::exact;
};

}  // namespace emu::blas

extern "C" {
/// Submits a Product and owns it from here on. 0, or not 0 after a report.
int emu_blas_submit(cudaStream_t stream, emu::blas::Product* product);
}
