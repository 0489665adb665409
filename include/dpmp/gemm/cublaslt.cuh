// SPDX-License-Identifier: Apache-2.0
// Matrix products on a GPU by cuBLASLt: FP32 sums (f64 in double), no TF32. A row-major product is the column-major product
// of the transposes, b first. The library's heuristic is asked for a shape's algorithms once; the first of them whose rows
// were seen not to depend on their place is kept, so a step repeats the very same kernels. Where none is, a plain kernel
// multiplies.
#pragma once
#include <cublasLt.h>

#include <array>
#include <map>
#include <memory>

#include "dpmp/gemm/interface.hpp"
#include "dpmp/gemm/plain_product.cuh"
#include "dpmp/gemm/position_probe.cuh"
#include "dpmp/runtime/launch_cuda.cuh"

namespace dpmp::inline DPMP_ABI::detail {
inline std::string shape_text(const GemmSpec& s) {
  return concat(s.batch, " x [", s.m, " x ", s.n, " x ", s.k, "], ", s.a.dtype, " -> ", s.out.dtype,
                s.a.transposed ? ", a transposed" : "", s.b.transposed ? ", b transposed" : "");
}
inline void check_lt(cublasStatus_t status, std::string_view what, const GemmSpec& spec) {
  DPMP_CHECK(status == CUBLAS_STATUS_SUCCESS, "expected cuBLASLt to ", what, " for ", shape_text(spec), ", got ",
             cublasLtGetStatusName(status));
}
inline cudaDataType_t lt_type(DType dtype) {
  switch (dtype) {
    case DType::bf16: return CUDA_R_16BF;
    case DType::f16: return CUDA_R_16F;
    case DType::f64: return CUDA_R_64F;
    default: return CUDA_R_32F;
  }
}
/// Largest power of two up to 256 that divides an address: heuristics need to know what a pointer promises.
inline std::uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return std::uint32_t(std::min<std::uintptr_t>(256, address == 0 ? 256 : address & (~address + 1)));
}

/// What an epilogue reads or writes in addition to the output.
inline const void* auxiliary(const GemmSpec& s) { return s.slope_at ? s.slope_at : s.activation_input; }
/// The vector that an epilogue adds or writes.
inline const void* vector_of(const GemmSpec& s) { return s.row_sums ? s.row_sums : s.bias; }
/// Whether the documentation of cuBLASLt has an epilogue for all that the spec asks for: it knows one GELU, adds a residual
/// before it, asks for aligned rows of 16-bit numbers in addition to the output, and for a bias in the output's dtype.
inline bool has_lt_epilogue(const GemmSpec& s) {
  if (s.bias && s.out.dtype != s.a.dtype) return false;
  if (s.activation == GemmActivation::none) return true;
  if (s.activation != GemmActivation::gelu_tanh || s.residual) return false;
  return !auxiliary(s) || (size_of(s.out.dtype) == 2 && s.out.row_stride % 8 == 0 && s.out.batch_stride % 8 == 0 &&
                           alignment_of(auxiliary(s)) >= 16);
}

struct LtDelete {
  void operator()(cublasLtContext* p) const { cublasLtDestroy(p); }
  void operator()(cublasLtMatmulDescOpaque_t* p) const { cublasLtMatmulDescDestroy(p); }
  void operator()(cublasLtMatrixLayoutOpaque_t* p) const { cublasLtMatrixLayoutDestroy(p); }
  void operator()(cublasLtMatmulPreferenceOpaque_t* p) const { cublasLtMatmulPreferenceDestroy(p); }
};
template <class T>
using LtOwned = std::unique_ptr<T, LtDelete>;

/// Everything that cuBLASLt has to know of one kind of product but its addresses. `found`: whether it has an algorithm, one
/// that is position-free where the spec asks for that.
struct LtPlan {
  LtOwned<cublasLtMatmulDescOpaque_t> product;
  LtOwned<cublasLtMatrixLayoutOpaque_t> a, b, c, out;
  cublasLtMatmulHeuristicResult_t heuristic{};
  bool found = false;
};

/// One library handle, its workspace and the plans of a context; lives in Backend::gemm_state.
class LtState {
 public:
  /// The handle belongs to the device that is current: the context's.
  explicit LtState(Context& ctx) : device_(ctx.device().index), workspace_(ctx.allocate(workspace_bytes)) {
    const DeviceScope scope(device_);
    cublasLtHandle_t handle = nullptr;
    DPMP_CHECK(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS, "expected cuBLASLt to start, got a failure");
    handle_.reset(handle);
  }
  ~LtState() {
    const DeviceScope scope(device_);
    plans_.clear();
    handle_.reset();
  }
  static LtState& of(Context& ctx) {
    std::shared_ptr<void>& state = ctx.backend().gemm_state;
    if (!state) state = std::make_shared<LtState>(ctx);
    return *static_cast<LtState*>(state.get());
  }

  /// Whether cuBLASLt does all of it. s: k > 0, nothing empty. The first time that a kind of product is met, its algorithms
  /// are tried, on memory that is given back.
  bool takes(Context& ctx, const GemmSpec& s) { return has_lt_epilogue(s) && plan_of(ctx, s).found; }
  /// s: what takes() said yes to.
  void run(Context& ctx, const GemmSpec& s) {
    LtPlan& plan = plan_of(ctx, s);
    check_lt(multiply(stream_of(ctx), plan, plan.heuristic.algo, s), "multiply", s);
  }

 private:
  static constexpr index_t workspace_bytes = index_t(32) << 20;
  static constexpr int most_algorithms = 16;
  using Key = std::array<index_t, 28>;

  cublasStatus_t multiply(cudaStream_t stream, LtPlan& plan, const cublasLtMatmulAlgo_t& algorithm, const GemmSpec& s) {
    const void* addend = s.accumulate ? s.out.data : s.residual;
    point(plan, s);
    const float alpha = float(s.alpha), beta = addend ? 1.0f : 0.0f;
    const double wide_alpha = s.alpha, wide_beta = beta;
    const bool wide = s.a.dtype == DType::f64;
    return cublasLtMatmul(handle_.get(), plan.product.get(), wide ? static_cast<const void*>(&wide_alpha) : &alpha, s.b.data,
                          plan.a.get(), s.a.data, plan.b.get(), wide ? static_cast<const void*>(&wide_beta) : &beta,
                          addend ? addend : s.out.data, plan.c.get(), s.out.data, plan.out.get(), &algorithm,
                          workspace_.data(), std::size_t(workspace_bytes), stream);
  }

  static Key key_of(const GemmSpec& s) {
    return {s.m,
            s.n,
            s.k,
            s.batch,
            index_t(s.a.dtype),
            index_t(s.out.dtype),
            s.a.row_stride,
            s.a.batch_stride,
            s.a.transposed,
            s.b.row_stride,
            s.b.batch_stride,
            s.b.transposed,
            s.out.row_stride,
            s.out.batch_stride,
            s.accumulate,
            s.bias != nullptr,
            s.row_sums != nullptr,
            index_t(s.activation),
            s.activation_input != nullptr,
            s.slope_at != nullptr,
            s.residual != nullptr,
            s.residual_row_stride,
            s.residual_batch_stride,
            alignment_of(s.a.data),
            alignment_of(s.b.data),
            alignment_of(s.out.data),
            alignment_of(vector_of(s)),
            s.position_free};
  }
  template <class T>
  static void set(LtPlan& plan, cublasLtMatmulDescAttributes_t attribute, const T& value, const GemmSpec& s) {
    check_lt(cublasLtMatmulDescSetAttribute(plan.product.get(), attribute, &value, sizeof value), "describe a product", s);
  }
  static void point(LtPlan& plan, const GemmSpec& s) {
    set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector_of(s), s);
    set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, auxiliary(s), s);
  }
  /// A row-major matrix [rows, columns] is a column-major one [columns, rows].
  static LtOwned<cublasLtMatrixLayoutOpaque_t> layout(const GemmSpec& s, DType dtype, index_t rows, index_t columns,
                                                      index_t row_stride, index_t batch_stride) {
    cublasLtMatrixLayout_t made = nullptr;
    check_lt(cublasLtMatrixLayoutCreate(&made, lt_type(dtype), std::uint64_t(columns), std::uint64_t(rows), row_stride),
             "describe a matrix", s);
    LtOwned<cublasLtMatrixLayoutOpaque_t> owned(made);
    const std::int32_t batch = std::int32_t(s.batch);
    check_lt(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
             "take a batch", s);
    check_lt(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                                              sizeof batch_stride),
             "take a batch stride", s);
    return owned;
  }
  static cublasLtEpilogue_t epilogue_of(const GemmSpec& s) {
    if (s.row_sums) return CUBLASLT_EPILOGUE_BGRADB;
    if (s.slope_at) return CUBLASLT_EPILOGUE_DGELU;
    if (s.activation == GemmActivation::gelu_tanh) {
      if (s.activation_input) return s.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
      return s.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    }
    return s.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }

  LtPlan& plan_of(Context& ctx, const GemmSpec& s) {
    const auto [it, is_new] = plans_.try_emplace(key_of(s));
    if (is_new) try {
        make(ctx, it->second, s);
      } catch (...) {
        plans_.erase(it);
        throw;
      }
    return it->second;
  }
  void make(Context& ctx, LtPlan& plan, const GemmSpec& s) {
    const bool wide = s.a.dtype == DType::f64;
    cublasLtMatmulDesc_t product = nullptr;
    check_lt(
        cublasLtMatmulDescCreate(&product, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, wide ? CUDA_R_64F : CUDA_R_32F),
        "describe a product", s);
    plan.product.reset(product);
    set(plan, CUBLASLT_MATMUL_DESC_TRANSA, s.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, s);
    set(plan, CUBLASLT_MATMUL_DESC_TRANSB, s.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, s);
    set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(s), s);
    if (vector_of(s)) {
      set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, lt_type(s.out.dtype), s);
      set(plan, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, s.row_sums ? s.m : index_t(0), s);
    }
    if (auxiliary(s)) {
      set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, s.out.row_stride, s);
      set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, s.out.batch_stride, s);
    }
    plan.a = s.b.transposed ? layout(s, s.b.dtype, s.n, s.k, s.b.row_stride, s.b.batch_stride)
                            : layout(s, s.b.dtype, s.k, s.n, s.b.row_stride, s.b.batch_stride);
    plan.b = s.a.transposed ? layout(s, s.a.dtype, s.k, s.m, s.a.row_stride, s.a.batch_stride)
                            : layout(s, s.a.dtype, s.m, s.k, s.a.row_stride, s.a.batch_stride);
    plan.out = layout(s, s.out.dtype, s.m, s.n, s.out.row_stride, s.out.batch_stride);
    plan.c = s.residual ? layout(s, s.out.dtype, s.m, s.n, s.residual_row_stride, s.residual_batch_stride)
                        : layout(s, s.out.dtype, s.m, s.n, s.out.row_stride, s.out.batch_stride);

    cublasLtMatmulPreference_t made = nullptr;
    check_lt(cublasLtMatmulPreferenceCreate(&made), "make a preference", s);
    const LtOwned<cublasLtMatmulPreferenceOpaque_t> preference(made);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check_lt(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof value), "take a preference", s);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t(workspace_bytes));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(s.b.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(s.a.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(s.residual ? s.residual : s.out.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(s.out.data));
    // Sums that are split over blocks and joined afterwards may be split otherwise elsewhere in the output.
    if (s.position_free) prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE));
    point(plan, s);  // the heuristic looks at how the vector is aligned
    cublasLtMatmulHeuristicResult_t offered[most_algorithms] = {};
    int count = 0;
    const bool probes = PositionProbe::needed(s);
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_.get(), product, plan.a.get(), plan.b.get(), plan.c.get(), plan.out.get(),
                                       made, probes ? most_algorithms : 1, offered, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_lt(status, "find an algorithm", s);
    if (count == 0) return;
    if (!probes) {
      plan.heuristic = offered[0];
      plan.found = true;
      return;
    }
    PositionProbe probe(ctx, s);
    for (int k = 0; k < count && !plan.found; ++k) {
      if (offered[k].state != CUBLAS_STATUS_SUCCESS) continue;
      plan.heuristic = offered[k];
      plan.found = probe.passes([&](const GemmSpec& trial) {
        check_lt(multiply(stream_of(ctx), plan, offered[k].algo, trial), "try an algorithm", s);
      });
    }
  }

  int device_;
  LtOwned<cublasLtContext> handle_;
  Buffer workspace_;
  std::map<Key, LtPlan> plans_;
};

/// Row r of all products: what is left to do with its sum, laid out like the output; null: a product of length 0.
template <class In, class Out>
struct FinishRows {
  using Real = compute_t<Out>;
  using Storage = Out;
  GemmSpec s;
  const Out* sums;
  template <class Team>
  __device__ __forceinline__ void operator()(const Team& team, index_t index) const {
    const index_t batch = index / s.m, row = index % s.m, at = batch * s.out.batch_stride + row * s.out.row_stride;
    epilogue_of_row<Out, In, Out>(s, sums ? sums + at : nullptr, static_cast<const In*>(s.bias), batch, row)(team, row);
  }
};
inline void finish_rows(Context& ctx, const GemmSpec& s, const void* sums) {
  dispatch_stored(s.a.dtype, [&](auto tag) {
    using In = typename decltype(tag)::type;
    using Wide = compute_t<In>;
    if (s.out.dtype == s.a.dtype)
      launch_library_rows_on_cuda(ctx, s.batch * s.m, s.n, FinishRows<In, In>{s, static_cast<const In*>(sums)});
    else
      launch_library_rows_on_cuda(ctx, s.batch * s.m, s.n, FinishRows<In, Wide>{s, static_cast<const Wide*>(sums)});
  });
}

template <class Context_>
void gemm_on_cuda(Context_& ctx, const GemmSpec& spec) {
  const DeviceScope scope(ctx.device().index);
  GemmSpec s = spec;
  if (s.row_sums && (s.n == 0 || s.k == 0 || !LtState::of(ctx).takes(ctx, s))) {
    sum_rows_of_a(ctx, s);
    s.row_sums = nullptr;
  }
  if (s.n == 0) return;
  // An empty sum (or alpha = 0), which cuBLASLt does not take; gemm() keeps those that accumulate.
  if (s.k == 0) return finish_rows(ctx, s, nullptr);
  LtState& library = LtState::of(ctx);
  if (library.takes(ctx, s)) return library.run(ctx, s);
  // What cuBLASLt cannot do is done by a kernel after the product, which must not be written over a residual that is still
  // to be read.
  const bool aside = s.residual == s.out.data && !s.activation_input;
  const index_t span = (s.batch - 1) * s.out.batch_stride + (s.m - 1) * s.out.row_stride + s.n;
  const Buffer scratch = ctx.allocate(aside ? span * size_of(s.out.dtype) : 0);
  GemmSpec product = s;
  product.out.data = aside ? scratch.data() : s.activation_input ? s.activation_input : s.out.data;
  product.activation = GemmActivation::none;
  product.residual = product.slope_at = nullptr;
  product.activation_input = nullptr;
  (s.out.dtype == s.a.dtype ? s.bias : product.bias) = nullptr;  // added by the product, or after it
  if (library.takes(ctx, product)) {
    library.run(ctx, product);
  } else if (s.activation == GemmActivation::none && !s.slope_at && !s.activation_input) {
    return plain_product(stream_of(ctx), spec);  // adds a bias and a residual before it rounds
  } else {
    plain_product(stream_of(ctx), product);
  }
  if (s.has_epilogue() || s.slope_at) finish_rows(ctx, s, product.out.data);
}
// gemm() itself may be compiled in a unit that knows nothing of CUDA: this one must offer what that one calls.
template void gemm_on_cuda<Context>(Context&, const GemmSpec&);
}  // namespace dpmp::inline DPMP_ABI::detail
