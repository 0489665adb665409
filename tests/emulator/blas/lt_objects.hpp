// SPDX-License-Identifier: Apache-2.0
// Descriptors of cublasLt as the emulator keeps them.
#pragma once
#include <cublasLt.h>

#include <cstdint>

namespace emu::blas {

struct Handle {
  int device = 0;  // it was made while this one was current, and works for it alone
};

struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N, transpose_c = CUBLAS_OP_N;
  std::int32_t fill = CUBLAS_FILL_MODE_FULL, epilogue = CUBLASLT_EPILOGUE_DEFAULT, multiprocessors = 0;
  void *bias = nullptr, *aux = nullptr;
  std::int64_t bias_stride = 0, aux_ld = 0, aux_stride = 0;
  std::int32_t bias_type = -1, aux_type = -1;  // -1: the type of D
};

struct Layout {
  std::int32_t type = CUDA_R_32F, order = CUBLASLT_ORDER_COL;
  std::uint64_t rows = 0, cols = 0;
  std::int64_t ld = 0;
  std::int32_t batch = 1;
  std::int64_t stride = 0;
};

struct Preference {
  std::uint32_t search_mode = 0, reduction_mask = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint64_t workspace = 0, implementation_mask = 0;
  std::uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
  float waves = 0;
};

}  // namespace emu::blas
