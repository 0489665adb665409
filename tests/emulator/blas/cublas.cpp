// SPDX-License-Identifier: Apache-2.0
// The small part of cublas that most programs use: handles and gemms, by way of the product of cublasLt.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "blas_bridge.hpp"
#include "product.hpp"

namespace emu::blas {
namespace {

struct Handle {
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
};

Handle* handle_of(cublasHandle_t h) { return reinterpret_cast<Handle*>(h); }

cublasStatus_t refuse(cublasStatus_t status, const char* api, const char* why) {
  std::fprintf(stderr, "EMU ERROR: %s: %s\n", api, why);
  return status;
}

/// One operand of a gemm, column major.
struct Argument {
  const void* data;
  cudaDataType_t type;
  std::int64_t ld, stride;
};

struct Shape {
  bool transpose_a, transpose_b;
  std::int64_t m, n, k;
  int batch = 1;
};

Matrix matrix_of(const Argument& x, std::int64_t rows, std::int64_t cols, bool transposed) {
  Matrix out;
  out.data = x.data;
  out.type = x.type;
  out.rows = std::uint64_t(transposed ? cols : rows);
  out.cols = std::uint64_t(transposed ? rows : cols);
  out.ld = x.ld;
  out.transposed = transposed;
  out.stride = x.stride;
  return out;
}

bool is_modelled(cudaDataType_t t) { return t == CUDA_R_32F || t == CUDA_R_16BF || t == CUDA_R_16F; }

cublasStatus_t gemm(cublasHandle_t handle, const char* api, const Shape& s, const void* alpha, const Argument& a,
                    const Argument& b, const void* beta, const Argument& c,
                    cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
  const Handle* h = handle_of(handle);
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  const std::int64_t one = 1;
  if (s.m < 0 || s.n < 0 || s.k < 0 || a.ld < std::max(one, s.transpose_a ? s.k : s.m) ||
      b.ld < std::max(one, s.transpose_b ? s.n : s.k) || c.ld < std::max(one, s.m)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, api, "bad dimensions");
  }
  if (!s.m || !s.n) return CUBLAS_STATUS_SUCCESS;
  if (a.type != b.type || !is_modelled(a.type) || !is_modelled(c.type) || (c.type != a.type && c.type != CUDA_R_32F)) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, api, "type combination");
  }
  auto p = std::make_unique<Product>();
  p->api = api;
  p->m = std::uint64_t(s.m);
  p->n = std::uint64_t(s.n);
  p->k = std::uint64_t(s.k);
  p->a = matrix_of(a, s.m, s.k, s.transpose_a);
  p->b = matrix_of(b, s.k, s.n, s.transpose_b);
  p->c = p->d = matrix_of(c, s.m, s.n, false);
  p->batch = s.batch;
  const bool by_mode = compute == CUBLAS_COMPUTE_32F && h->math == CUBLAS_TF32_TENSOR_OP_MATH;
  p->unit = unit_of(a.type, by_mode ? CUBLAS_COMPUTE_32F_FAST_TF32 : compute);
  const auto* alpha_f = static_cast<const float*>(alpha);
  const auto* beta_f = static_cast<const float*>(beta);
  if (h->pointer_mode == CUBLAS_POINTER_MODE_HOST) {
    p->alpha = double(*alpha_f);
    p->beta = double(*beta_f);
  } else {
    p->alpha_on_device = alpha_f;
    p->beta_on_device = beta_f;
  }
  return emu_blas_submit(h->stream, p.release()) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_compute(cublasComputeType_t t, const char* api) {
  switch (t) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_16F: return CUBLAS_STATUS_SUCCESS;
    default: return refuse(CUBLAS_STATUS_NOT_SUPPORTED, api, "compute type");
  }
}

Argument f32(const float* p, std::int64_t ld, std::int64_t stride = 0) { return Argument{p, CUDA_R_32F, ld, stride}; }
Shape shape(cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, int batch = 1) {
  return Shape{ta != CUBLAS_OP_N, tb != CUBLAS_OP_N, m, n, k, batch};
}

}  // namespace
}  // namespace emu::blas

using namespace emu::blas;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* out) {
  if (!out) return CUBLAS_STATUS_INVALID_VALUE;
  *out = reinterpret_cast<cublasHandle_t>(new Handle());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
  delete handle_of(h);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* v) {
  *v = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
  handle_of(h)->stream = s;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t h, cudaStream_t* s) {
  *s = handle_of(h)->stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) {
  handle_of(h)->math = m;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* m) {
  *m = handle_of(h)->math;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t m) {
  handle_of(h)->pointer_mode = m;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t* m) {
  *m = handle_of(h)->pointer_mode;
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusName(cublasStatus_t s) { return cublasLtGetStatusName(s); }
const char* cublasGetStatusString(cublasStatus_t s) { return cublasLtGetStatusName(s); }

cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta,
                              float* c, int ldc) {
  return gemm(h, "cublasSgemm", shape(ta, tb, m, n, k), alpha, f32(a, lda), f32(b, ldb), beta, f32(c, ldc));
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                         const float* alpha, const float* a, int lda, long long sa, const float* b, int ldb,
                                         long long sb, const float* beta, float* c, int ldc, long long sc, int batch) {
  return gemm(h, "cublasSgemmStridedBatched", shape(ta, tb, m, n, k, batch), alpha, f32(a, lda, sa), f32(b, ldb, sb), beta,
              f32(c, ldc, sc));
}
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void* alpha, const void* a, cudaDataType at, int lda, const void* b, cudaDataType bt,
                            int ldb, const void* beta, void* c, cudaDataType ct, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
  if (cublasStatus_t s = check_compute(compute, "cublasGemmEx")) return s;
  return gemm(h, "cublasGemmEx", shape(ta, tb, m, n, k), alpha, {a, at, lda, 0}, {b, bt, ldb, 0}, beta, {c, ct, ldc, 0},
              compute);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType at, int lda, long long sa,
                                          const void* b, cudaDataType bt, int ldb, long long sb, const void* beta, void* c,
                                          cudaDataType ct, int ldc, long long sc, int batch, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
  if (cublasStatus_t s = check_compute(compute, "cublasGemmStridedBatchedEx")) return s;
  return gemm(h, "cublasGemmStridedBatchedEx", shape(ta, tb, m, n, k, batch), alpha, {a, at, lda, sa}, {b, bt, ldb, sb},
              beta, {c, ct, ldc, sc}, compute);
}
cublasStatus_t cublasSgemv_v2(cublasHandle_t h, cublasOperation_t t, int m, int n, const float* alpha, const float* a,
                              int lda, const float* x, int incx, const float* beta, float* y, int incy) {
  if (incx != 1 || incy != 1) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "cublasSgemv", "increments other than 1");
  const int rows = t == CUBLAS_OP_N ? m : n, cols = t == CUBLAS_OP_N ? n : m;
  return gemm(h, "cublasSgemv", shape(t, CUBLAS_OP_N, rows, 1, cols), alpha, f32(a, lda), f32(x, std::max(cols, 1)), beta,
              f32(y, std::max(rows, 1)));
}

int emu_unmodelled_cublas(const char* api) {
  return refuse(CUBLAS_STATUS_NOT_SUPPORTED, api, "this call is not modelled by the emulator");
}

}  // extern "C"
