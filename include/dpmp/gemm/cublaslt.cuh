// SPDX-License-Identifier: Apache-2.0
// Matrix products on a GPU by cuBLASLt: FP32 sums (f64 in double), no TF32. A row-major product is the column-major product
// of the transposes, b first. The algorithm that the library's heuristic gives for a shape is asked for once and kept, so a
// step repeats the very same kernels.
#pragma once
#include <cublasLt.h>

#include <array>
#include <map>
#include <memory>

#include "dpmp/gemm/interface.hpp"
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

/// What an epilogue reads or writes beside the output.
inline const void* auxiliary(const GemmSpec& s) { return s.slope_at ? s.slope_at : s.activation_input; }
/// Whether cuBLASLt has an epilogue for the spec's activation: it knows one GELU, adds a residual before it, and asks for
/// aligned rows of 16-bit numbers beside the output.
inline bool has_lt_epilogue(const GemmSpec& s) {
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

/// Everything that cuBLASLt has to know of one kind of product but its addresses.
struct LtPlan {
  LtOwned<cublasLtMatmulDescOpaque_t> product;
  LtOwned<cublasLtMatrixLayoutOpaque_t> a, b, c, out;
  cublasLtMatmulHeuristicResult_t heuristic{};
};

/// One library handle, its workspace and the plans of a context; lives in Backend::gemm_state.
class LtState {
 public:
  explicit LtState(Context& ctx) : workspace_(ctx.allocate(workspace_bytes)) {
    cublasLtHandle_t handle = nullptr;
    DPMP_CHECK(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS, "expected cuBLASLt to start, got a failure");
    handle_.reset(handle);
  }
  static LtState& of(Context& ctx) {
    std::shared_ptr<void>& state = ctx.backend().gemm_state;
    if (!state) state = std::make_shared<LtState>(ctx);
    return *static_cast<LtState*>(state.get());
  }

  /// s: k > 0, nothing empty, has_lt_epilogue.
  void run(cudaStream_t stream, const GemmSpec& s) {
    const void* addend = s.accumulate ? s.out.data : s.residual;
    LtPlan& plan = plan_of(s);
    set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, s.bias, s);
    set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, auxiliary(s), s);
    const float alpha = s.alpha, beta = addend ? 1.0f : 0.0f;
    const double wide_alpha = s.alpha, wide_beta = beta;
    const bool wide = s.a.dtype == DType::f64;
    check_lt(
        cublasLtMatmul(handle_.get(), plan.product.get(), wide ? static_cast<const void*>(&wide_alpha) : &alpha, s.b.data,
                       plan.a.get(), s.a.data, plan.b.get(), wide ? static_cast<const void*>(&wide_beta) : &beta,
                       addend ? addend : s.out.data, plan.c.get(), s.out.data, plan.out.get(), &plan.heuristic.algo,
                       workspace_.data(), std::size_t(workspace_bytes), stream),
        "multiply", s);
  }

 private:
  static constexpr index_t workspace_bytes = index_t(32) << 20;
  using Key = std::array<index_t, 25>;

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
            index_t(s.activation),
            s.activation_input != nullptr,
            s.slope_at != nullptr,
            s.residual != nullptr,
            s.residual_row_stride,
            s.residual_batch_stride,
            alignment_of(s.a.data),
            alignment_of(s.b.data),
            alignment_of(s.out.data)};
  }
  template <class T>
  static void set(LtPlan& plan, cublasLtMatmulDescAttributes_t attribute, const T& value, const GemmSpec& s) {
    check_lt(cublasLtMatmulDescSetAttribute(plan.product.get(), attribute, &value, sizeof value), "describe a product", s);
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
    if (s.slope_at) return CUBLASLT_EPILOGUE_DGELU;
    if (s.activation == GemmActivation::gelu_tanh) {
      if (s.activation_input) return s.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
      return s.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    }
    return s.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }

  LtPlan& plan_of(const GemmSpec& s) {
    const auto [it, is_new] = plans_.try_emplace(key_of(s));
    if (is_new) try {
        make(it->second, s);
      } catch (...) {
        plans_.erase(it);
        throw;
      }
    return it->second;
  }
  void make(LtPlan& plan, const GemmSpec& s) {
    const bool wide = s.a.dtype == DType::f64;
    cublasLtMatmulDesc_t product = nullptr;
    check_lt(
        cublasLtMatmulDescCreate(&product, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, wide ? CUDA_R_64F : CUDA_R_32F),
        "describe a product", s);
    plan.product.reset(product);
    set(plan, CUBLASLT_MATMUL_DESC_TRANSA, s.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, s);
    set(plan, CUBLASLT_MATMUL_DESC_TRANSB, s.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, s);
    set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(s), s);
    if (s.bias) {
      set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, lt_type(s.a.dtype), s);
      set(plan, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, index_t(0), s);
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
    int found = 0;
    check_lt(cublasLtMatmulAlgoGetHeuristic(handle_.get(), product, plan.a.get(), plan.b.get(), plan.c.get(), plan.out.get(),
                                            made, 1, &plan.heuristic, &found),
             "find an algorithm", s);
    DPMP_CHECK(found > 0, "expected cuBLASLt to have an algorithm for ", shape_text(s), ", got none");
  }

  LtOwned<cublasLtContext> handle_;
  Buffer workspace_;
  std::map<Key, LtPlan> plans_;
};

/// Row r: output = A(input) + residual, rows `stride` apart.
template <class T>
struct ActivateRows {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;
  const T* residual;
  T* output;
  index_t rows, width, input_stride, input_batch_stride, residual_stride, residual_batch_stride, output_stride,
      output_batch_stride;
  GemmActivation activation;
  template <class Team>
  __device__ __forceinline__ void operator()(const Team& team, index_t index) const {
    const index_t batch = index / rows, row = index % rows;
    kernels::ActivateAndAddResidual<T>{input + batch * input_batch_stride + row * input_stride,
                                       residual ? residual + batch * residual_batch_stride + row * residual_stride : nullptr,
                                       output + batch * output_batch_stride + row * output_stride, width,
                                       activation}(team, row);
  }
};

/// Row r: output = output * A'(slope_at).
template <class T>
struct ScaleRowsBySlope {
  using Real = compute_t<T>;
  using Storage = T;
  const T* slope_at;
  T* output;
  index_t rows, width, row_stride, batch_stride;
  GemmActivation activation;
  template <class Team>
  __device__ __forceinline__ void operator()(const Team& team, index_t index) const {
    const index_t at = index / rows * batch_stride + index % rows * row_stride;
    kernels::ScaleBySlope<T, T>{output + at, slope_at + at, output + at, width, activation}(team, index);
  }
};

/// Row r of a product of length 0: output = A(bias) + residual, as kernels::GemmEpilogue of sums that are 0.
template <class In, class Out>
struct EmptyProductRows {
  using Real = compute_t<Out>;
  using Storage = Out;
  GemmSpec s;
  template <class Team>
  __device__ __forceinline__ void operator()(const Team& team, index_t index) const {
    const index_t batch = index / s.m, row = index % s.m, at_out = batch * s.out.batch_stride + row * s.out.row_stride,
                  at_residual = batch * s.residual_batch_stride + row * s.residual_row_stride;
    const auto* bias = static_cast<const In*>(s.bias);
    const auto* residual = static_cast<const Out*>(s.residual);
    auto* saved = static_cast<Out*>(s.activation_input);
    const auto* slope_at = static_cast<const Out*>(s.slope_at);
    team.for_each(s.n, [&](auto at) {
      typename Team::Pack x{};
      if (bias) x = at.load(bias);
      if (slope_at)
        x = x * kernels::activation_slope(s.activation, at.load(slope_at + at_out));
      else if (s.activation != GemmActivation::none) {
        x = x.template rounded<Out>();
        if (saved) at.store(saved + at_out, x);
        x = kernels::activate(s.activation, x);
      }
      if (residual) x = x + at.load(residual + at_residual);
      at.store(static_cast<Out*>(s.out.data) + at_out, x);
    });
  }
};

template <class Context_>
void gemm_on_cuda(Context_& ctx, const GemmSpec& spec) {
  GemmSpec s = spec;
  if (s.k == 0)  // an empty sum (or alpha = 0), which cuBLASLt does not take; gemm() keeps those that accumulate
    return dispatch_real(s.a.dtype, [&](auto tag) {
      using In = typename decltype(tag)::type;
      if (s.out.dtype == s.a.dtype)
        launch_rows(ctx, s.batch * s.m, s.n, EmptyProductRows<In, In>{s});
      else
        launch_rows(ctx, s.batch * s.m, s.n, EmptyProductRows<In, compute_t<In>>{s});
    });
  if (has_lt_epilogue(s)) return LtState::of(ctx).run(stream_of(ctx), s);
  // What cuBLASLt cannot do is left to a kernel behind the product.
  // The product must not be written over a residual that is still to be read.
  const bool aside = s.residual == s.out.data && !s.activation_input;
  const index_t span = (s.batch - 1) * s.out.batch_stride + (s.m - 1) * s.out.row_stride + s.n;
  const Buffer scratch = ctx.allocate(aside ? span * size_of(s.out.dtype) : 0);
  if (aside) s.out.data = scratch.data();
  s.activation = GemmActivation::none;
  s.residual = s.slope_at = nullptr;
  if (s.activation_input) s.out.data = s.activation_input;
  s.activation_input = nullptr;
  LtState::of(ctx).run(stream_of(ctx), s);
  dispatch_real(spec.out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (spec.slope_at)
      launch_rows(ctx, spec.batch * spec.m, spec.n,
                  ScaleRowsBySlope<T>{static_cast<const T*>(spec.slope_at), static_cast<T*>(spec.out.data), spec.m, spec.n,
                                      spec.out.row_stride, spec.out.batch_stride, spec.activation});
    else
      launch_rows(ctx, spec.batch * spec.m, spec.n,
                  ActivateRows<T>{static_cast<const T*>(s.out.data), static_cast<const T*>(spec.residual),
                                  static_cast<T*>(spec.out.data), spec.m, spec.n, spec.out.row_stride, spec.out.batch_stride,
                                  spec.residual_row_stride, spec.residual_batch_stride, spec.out.row_stride,
                                  spec.out.batch_stride, spec.activation});
  });
}
// gemm() itself may be compiled in a unit that knows nothing of CUDA: this one must offer what that one calls.
template void gemm_on_cuda<Context>(Context&, const GemmSpec&);
}  // namespace dpmp::inline DPMP_ABI::detail
