// SPDX-License-Identifier: Apache-2.0
// cublasLtMatmul and its heuristic: which combinations of arguments are accepted. The rules are those of the cuBLAS
// documentation; what it allows and the emulator does not model is refused as not supported, with a report.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>

#include "blas_bridge.hpp"
#include "lt_objects.hpp"
#include "number.hpp"
#include "product.hpp"

namespace emu::blas {
namespace {

constexpr std::uint64_t algorithm_mark = 0x656d75;  // first word of the algorithms that the heuristic hands out
constexpr std::uint64_t full_alignment = 16;        // more is never needed

cublasStatus_t refuse(cublasStatus_t status, const char* why) {
  std::fprintf(stderr, "EMU ERROR: cublasLtMatmul: %s\n", why);
  return status;
}
cublasStatus_t invalid(const char* why) { return refuse(CUBLAS_STATUS_INVALID_VALUE, why); }
cublasStatus_t unsupported(const char* why) { return refuse(CUBLAS_STATUS_NOT_SUPPORTED, why); }

/// The four matrices, and the sizes that follow from them.
struct Problem {
  const Description* description;
  const Layout *a, *b, *c, *d;
  std::uint64_t m = 0, n = 0, k = 0;
};

bool is_32f(cublasComputeType_t t) {
  return t == CUBLAS_COMPUTE_32F || t == CUBLAS_COMPUTE_32F_PEDANTIC || t == CUBLAS_COMPUTE_32F_FAST_TF32 ||
         t == CUBLAS_COMPUTE_32F_FAST_16BF || t == CUBLAS_COMPUTE_32F_FAST_16F;
}

cublasStatus_t check_types(const Problem& p) {
  if (!is_32f(p.description->compute)) return unsupported("compute type (only 32F kinds are modelled)");
  if (p.description->scale != CUDA_R_32F) return unsupported("scale type must be CUDA_R_32F");
  if (p.a->type != p.b->type) return unsupported("A and B types differ");
  if (p.c->type != p.d->type) return unsupported("C and D types differ");
  const int in = p.a->type, out = p.d->type;
  const bool half = in == CUDA_R_16BF || in == CUDA_R_16F;
  if (!(in == CUDA_R_32F && out == CUDA_R_32F) && !(half && (out == in || out == CUDA_R_32F))) {
    return unsupported("combination of A/B and C/D types");
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_shapes(Problem& p) {
  if (p.description->transpose_c != CUBLAS_OP_N) return unsupported("transposed C");
  for (const Layout* l : {p.a, p.b, p.c, p.d}) {
    if (l->order != CUBLASLT_ORDER_COL && l->order != CUBLASLT_ORDER_ROW) return unsupported("matrix order");
    const std::uint64_t line = l->order == CUBLASLT_ORDER_COL ? l->rows : l->cols;
    if (l->ld < std::int64_t(line)) return invalid("leading dimension smaller than the matrix");
    if (l->batch != p.d->batch) return invalid("batch counts differ");
  }
  const bool ta = p.description->transpose_a != CUBLAS_OP_N, tb = p.description->transpose_b != CUBLAS_OP_N;
  p.m = ta ? p.a->cols : p.a->rows;
  p.k = ta ? p.a->rows : p.a->cols;
  p.n = tb ? p.b->rows : p.b->cols;
  const std::uint64_t k_of_b = tb ? p.b->cols : p.b->rows;
  if (p.k != k_of_b || p.m != p.d->rows || p.n != p.d->cols || p.c->rows != p.m || p.c->cols != p.n) {
    return invalid("matrix sizes do not fit");
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_epilogue(const Problem& p) {
  const Description& d = *p.description;
  const Epilogue e = epilogue_of(d.epilogue);
  if (!e.known) return unsupported("epilogue not modelled");
  if (e.uses_bias() && d.bias_type != -1 && d.bias_type != p.d->type) return unsupported("bias data type is not D's");
  if (!e.uses_aux()) return CUBLAS_STATUS_SUCCESS;
  if (d.aux_ld < std::int64_t(p.m) || d.aux_ld % 8) {
    return invalid("epilogue aux leading dimension must be >= rows and divisible by 8");
  }
  if (d.aux_type != -1 && d.aux_type != p.d->type) return unsupported("epilogue aux data type");
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check(Problem& p) {
  if (!p.description || !p.a || !p.b || !p.c || !p.d) return invalid("null descriptor");
  if (cublasStatus_t s = check_types(p)) return s;
  if (cublasStatus_t s = check_shapes(p)) return s;
  return check_epilogue(p);
}

cublasStatus_t check_pointers(const Problem& p, const void* const (&matrices)[4], bool c_unused,
                              const cublasLtMatmulAlgo_t* algorithm) {
  const Layout* layouts[4] = {p.a, p.b, p.c, p.d};
  for (int i = 0; i < 4; i++) {
    if (!matrices[i] && !(i == 2 && c_unused)) return invalid("null matrix");
    std::uint64_t needed = size_of(cudaDataType_t(layouts[i]->type));
    if (algorithm) needed = std::min(full_alignment, std::max(needed, std::uint64_t(algorithm->data[i + 1])));
    if (reinterpret_cast<std::uintptr_t>(matrices[i]) % needed) {
      return unsupported(
          "matrix pointer is less aligned than the algorithm's minimum (16 bytes unless the preference says less)");
    }
  }
  if (matrices[2] && matrices[2] == matrices[3] && (p.c->ld != p.d->ld || p.c->order != p.d->order)) {
    return invalid("in-place C and D have different layouts");
  }
  const Epilogue e = epilogue_of(p.description->epilogue);
  if (e.uses_bias() && !p.description->bias) return invalid("epilogue needs a bias pointer");
  if (e.uses_aux() && (!p.description->aux || reinterpret_cast<std::uintptr_t>(p.description->aux) % full_alignment)) {
    return invalid("epilogue needs a 16-byte aligned aux pointer");
  }
  return CUBLAS_STATUS_SUCCESS;
}

Matrix matrix_of(const void* data, const Layout& l, bool transposed) {
  Matrix x;
  x.data = data;
  x.type = cudaDataType_t(l.type);
  x.rows = l.rows;
  x.cols = l.cols;
  x.ld = l.ld;
  x.row_major = l.order == CUBLASLT_ORDER_ROW;
  x.transposed = transposed;
  x.stride = l.stride;
  return x;
}

std::unique_ptr<Product> product_of(const Problem& p, const void* const (&matrices)[4]) {
  const Description& d = *p.description;
  auto out = std::make_unique<Product>();
  out->api = "cublasLtMatmul";
  out->m = p.m;
  out->n = p.n;
  out->k = p.k;
  out->a = matrix_of(matrices[0], *p.a, d.transpose_a != CUBLAS_OP_N);
  out->b = matrix_of(matrices[1], *p.b, d.transpose_b != CUBLAS_OP_N);
  out->c = matrix_of(matrices[2], *p.c, false);
  out->d = matrix_of(matrices[3], *p.d, false);
  out->epilogue = epilogue_of(d.epilogue);
  out->bias = Operand{d.bias, cudaDataType_t(d.bias_type == -1 ? p.d->type : d.bias_type), 0, d.bias_stride};
  out->aux = Operand{d.aux, cudaDataType_t(d.aux_type == -1 ? p.d->type : d.aux_type), d.aux_ld, d.aux_stride};
  out->batch = p.d->batch;
  out->unit = unit_of(cudaDataType_t(p.a->type), d.compute);
  return out;
}

Problem problem_of(cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                   cublasLtMatrixLayout_t out) {
  const auto layout = [](cublasLtMatrixLayout_t l) { return reinterpret_cast<const Layout*>(l); };
  return Problem{reinterpret_cast<const Description*>(d), layout(a), layout(b), layout(c), layout(out)};
}

}  // namespace
}  // namespace emu::blas

using namespace emu::blas;

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  if (requested < 1 || !results || !count || !preference) return CUBLAS_STATUS_INVALID_VALUE;
  *count = 0;
  Problem problem = problem_of(d, a, b, c, out);
  if (cublasStatus_t s = check(problem)) return s;
  const int epilogue = problem.description->epilogue;
  if (emu_bias_only() && epilogue != CUBLASLT_EPILOGUE_DEFAULT && epilogue != CUBLASLT_EPILOGUE_BIAS) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const auto& p = *reinterpret_cast<const Preference*>(preference);
  const auto offer = [&](SumOrder order) {
    if (*count == requested) return;
    cublasLtMatmulHeuristicResult_t& result = results[(*count)++];
    result = cublasLtMatmulHeuristicResult_t{};
    const std::uint64_t words[] = {algorithm_mark, p.alignment_a, p.alignment_b,
                                   p.alignment_c,  p.alignment_d, std::uint64_t(order)};
    std::copy(std::begin(words), std::end(words), result.algo.data);
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1;
  };
  const int offered = emu_algorithms();  // 0: one, 1: mixed, 2: bad
  if (offered > 0 && p.reduction_mask != CUBLASLT_REDUCTION_SCHEME_NONE) offer(SumOrder::split);
  if (offered > 0) offer(SumOrder::by_place);
  if (offered < 2) offer(SumOrder::exact);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t la, const void* b, cublasLtMatrixLayout_t lb, const void* beta,
                              const void* c, cublasLtMatrixLayout_t lc, void* out, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  int device = 0;
  cudaGetDevice(&device);
  if (reinterpret_cast<const Handle*>(handle)->device != device) return invalid("a handle of another device");
  Problem problem = problem_of(d, la, lb, lc, ld);
  if (cublasStatus_t s = check(problem)) return s;
  if (!alpha || !beta) return invalid("null alpha or beta");
  if (workspace_bytes && !workspace) return invalid("workspace size without workspace");
  if (workspace_bytes && reinterpret_cast<std::uintptr_t>(workspace) % 16) {
    return invalid("workspace is not 16-byte aligned");
  }
  const auto* alpha_f = static_cast<const float*>(alpha);
  const auto* beta_f = static_cast<const float*>(beta);
  const int mode = problem.description->pointer_mode;
  if (mode != CUBLASLT_POINTER_MODE_HOST && mode != CUBLASLT_POINTER_MODE_DEVICE) return unsupported("pointer mode");
  const bool on_host = mode == CUBLASLT_POINTER_MODE_HOST;
  const void* const matrices[4] = {a, b, c, out};
  if (cublasStatus_t s = check_pointers(problem, matrices, on_host && *beta_f == 0, algorithm)) return s;

  std::unique_ptr<Product> product = product_of(problem, matrices);
  if (algorithm) product->order = SumOrder(algorithm->data[5]);
  if (on_host) {
    product->alpha = double(*alpha_f);
    product->beta = double(*beta_f);
  } else {
    product->alpha_on_device = alpha_f;
    product->beta_on_device = beta_f;
  }
  return emu_blas_submit(stream, product.release()) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
