// SPDX-License-Identifier: Apache-2.0
// Creation, destruction and attributes of cublasLt's handles and descriptors.
#include "lt_objects.hpp"

#include <cstdio>
#include <cstring>

using emu::blas::Description;
using emu::blas::Handle;
using emu::blas::Layout;
using emu::blas::Preference;

namespace {

template <class T>
cublasStatus_t put(T& field, const void* value, std::size_t bytes) {
  if (!value || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t get(const T& field, void* value, std::size_t bytes, std::size_t* written) {
  if (written) *written = sizeof(T);
  if (bytes == 0 && written) return CUBLAS_STATUS_SUCCESS;
  if (!value || bytes < sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &field, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t unknown(const char* api, int attribute) {
  std::fprintf(stderr, "EMU ERROR: %s: attribute %d is not modelled\n", api, attribute);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

/// Calls use(field) with the field of an attribute.
template <class F>
cublasStatus_t with_field(Description& d, int attribute, const char* api, F use) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return use(d.compute);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return use(d.scale);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return use(d.pointer_mode);
    case CUBLASLT_MATMUL_DESC_TRANSA: return use(d.transpose_a);
    case CUBLASLT_MATMUL_DESC_TRANSB: return use(d.transpose_b);
    case CUBLASLT_MATMUL_DESC_TRANSC: return use(d.transpose_c);
    case CUBLASLT_MATMUL_DESC_FILL_MODE: return use(d.fill);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return use(d.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return use(d.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: return use(d.bias_stride);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return use(d.aux);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return use(d.aux_ld);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE: return use(d.aux_stride);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return use(d.bias_type);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: return use(d.aux_type);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET: return use(d.multiprocessors);
    default: return unknown(api, attribute);
  }
}

template <class F>
cublasStatus_t with_field(Layout& l, int attribute, const char* api, F use) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return use(l.type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return use(l.order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return use(l.rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return use(l.cols);
    case CUBLASLT_MATRIX_LAYOUT_LD: return use(l.ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return use(l.batch);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return use(l.stride);
    default: return unknown(api, attribute);
  }
}

template <class F>
cublasStatus_t with_field(Preference& p, int attribute, const char* api, F use) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE: return use(p.search_mode);
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return use(p.workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return use(p.reduction_mask);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return use(p.alignment_a);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return use(p.alignment_b);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return use(p.alignment_c);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return use(p.alignment_d);
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT: return use(p.waves);
    case CUBLASLT_MATMUL_PREF_IMPL_MASK: return use(p.implementation_mask);
    default: return unknown(api, attribute);
  }
}

template <class Object, class Opaque>
cublasStatus_t set(Opaque object, int attribute, const void* value, std::size_t bytes, const char* api) {
  if (!object) return CUBLAS_STATUS_INVALID_VALUE;
  return with_field(*reinterpret_cast<Object*>(object), attribute, api, [&](auto& f) { return put(f, value, bytes); });
}

template <class Object, class Opaque>
cublasStatus_t query(Opaque object, int attribute, void* value, std::size_t bytes, std::size_t* written, const char* api) {
  if (!object) return CUBLAS_STATUS_INVALID_VALUE;
  return with_field(*reinterpret_cast<Object*>(object), attribute, api,
                    [&](auto& f) { return get(f, value, bytes, written); });
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* out) {
  if (!out) return CUBLAS_STATUS_INVALID_VALUE;
  auto* handle = new Handle();
  cudaGetDevice(&handle->device);
  *out = reinterpret_cast<cublasLtHandle_t>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
  delete reinterpret_cast<Handle*>(h);
  return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }

const char* cublasLtGetStatusName(cublasStatus_t s) {
  switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_EXECUTION_FAILED";
  }
}
const char* cublasLtGetStatusString(cublasStatus_t s) { return cublasLtGetStatusName(s); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* out, cublasComputeType_t compute, cudaDataType_t scale) {
  if (!out) return CUBLAS_STATUS_INVALID_VALUE;
  *out = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete reinterpret_cast<Description*>(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void* value,
                                              size_t bytes) {
  return set<Description>(d, int(a), value, bytes, "cublasLtMatmulDescSetAttribute");
}
cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, void* value,
                                              size_t bytes, size_t* written) {
  return query<Description>(d, int(a), value, bytes, written, "cublasLtMatmulDescGetAttribute");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* out, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
  if (!out) return CUBLAS_STATUS_INVALID_VALUE;
  auto* l = new Layout();
  l->type = type;
  l->rows = rows;
  l->cols = cols;
  l->ld = ld;
  *out = reinterpret_cast<cublasLtMatrixLayout_t>(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  delete reinterpret_cast<Layout*>(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a,
                                                const void* value, size_t bytes) {
  return set<Layout>(l, int(a), value, bytes, "cublasLtMatrixLayoutSetAttribute");
}
cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a, void* value,
                                                size_t bytes, size_t* written) {
  return query<Layout>(l, int(a), value, bytes, written, "cublasLtMatrixLayoutGetAttribute");
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* out) {
  if (!out) return CUBLAS_STATUS_INVALID_VALUE;
  *out = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  delete reinterpret_cast<Preference*>(p);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a,
                                                    const void* value, size_t bytes) {
  return set<Preference>(p, int(a), value, bytes, "cublasLtMatmulPreferenceSetAttribute");
}
cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a,
                                                    void* value, size_t bytes, size_t* written) {
  return query<Preference>(p, int(a), value, bytes, written, "cublasLtMatmulPreferenceGetAttribute");
}

int emu_unmodelled_lt(const char* api) {
  std::fprintf(stderr, "EMU ERROR: %s: this call is not modelled by the emulator\n", api);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // extern "C"
