// SPDX-License-Identifier: Apache-2.0
// Products by oneDNN 2.6 or 3.x: FP32 through its sgemm, bf16 through its matmul primitives. The only file that includes
// oneDNN.
#pragma once
#include "dpmp/gemm/blocked_product.hpp"
#include "dpmp/gemm/openmp_scope.hpp"
#include "dpmp/gemm/position_probe.hpp"
#include "dpmp/gemm/product.hpp"

#if defined(DPMP_WITH_ONEDNN) && DPMP_WITH_ONEDNN
#include <array>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <unordered_map>

namespace dpmp::inline DPMP_ABI::detail {
/// A leaf of run_blocked for FP32.
struct OnednnLeaf {
  static void multiply(const Product<float>& p) {
    const OpenMpScope one(1);
    const dnnl::status status =
        dnnl::sgemm(p.a_transposed ? 'T' : 'N', p.b_transposed ? 'T' : 'N', p.m, p.n, p.k, float(p.alpha), p.a, p.a_stride,
                    p.b, p.b_stride, p.accumulate ? 1.0f : 0.0f, p.c, p.c_stride);
    DPMP_CHECK(status == dnnl::status::success, "expected oneDNN's sgemm to accept ", p.m, " x ", p.n, " x ", p.k,
               ", got status ", int(status));
  }
};

/// Every fact that a matmul primitive is made for. Pointers and alpha are given at each call.
struct MatmulKey {
  index_t batch, m, n, k, a_row, a_batch, b_row, b_batch, out_row, out_batch;
  int threads;
  bool a_transposed, b_transposed, f32_output, bias, scaled, sum;
  bool operator==(const MatmulKey&) const = default;

  struct Hash {
    std::size_t operator()(const MatmulKey& x) const {
      std::uint64_t h = 0;
      const index_t flags =
          x.a_transposed | x.b_transposed << 1 | x.f32_output << 2 | x.bias << 3 | x.scaled << 4 | x.sum << 5;
      for (index_t v : {x.batch, x.m, x.n, x.k, x.a_row, x.a_batch, x.b_row, x.b_batch, x.out_row, x.out_batch,
                        index_t(x.threads), flags})
        h = (h ^ std::uint64_t(v)) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
      return std::size_t(h);
    }
  };
};

/// out = alpha * op(a) op(b) (+ bias) (+ out) for bf16 operands, ready to run. Not both alpha and bias.
class Matmul {
 public:
  Matmul(const MatmulKey& x, const dnnl::engine& engine) {
    using Type = dnnl::memory::data_type;
    const bool batched = x.batch > 1;
    const auto matrix = [&](Type type, index_t rows, index_t columns, index_t stride, index_t batch_stride,
                            bool transposed) {
      dnnl::memory::dims dims{rows, columns}, strides{stride, 1};
      if (transposed) std::swap(strides[0], strides[1]);
      if (batched) {
        const bool shared = batch_stride == 0;
        dims.insert(dims.begin(), shared ? 1 : x.batch);
        strides.insert(strides.begin(), shared ? rows * columns * stride : batch_stride);
      }
      return dnnl::memory::desc(dims, type, strides);
    };
    const auto a = matrix(Type::bf16, x.m, x.k, x.a_row, x.a_batch, x.a_transposed);
    const auto b = matrix(Type::bf16, x.k, x.n, x.b_row, x.b_batch, x.b_transposed);
    const auto out = matrix(x.f32_output ? Type::f32 : Type::bf16, x.m, x.n, x.out_row, x.out_batch, false);
    const auto bias = matrix(Type::bf16, 1, x.n, x.n, 0, false), scale = matrix(Type::f32, 1, 1, 1, 0, false);
    dnnl::post_ops after;
    // A multiplication by a run-time scalar: a run-time output scale would cost the brgemm (AMX) implementation (2.6), and
    // oneDNN 3 has none.
    if (x.scaled) after.append_binary(dnnl::algorithm::binary_mul, scale);
    if (x.sum) after.append_sum(1.0f);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(after);
#if DNNL_VERSION_MAJOR >= 3
    const auto description = x.bias ? dnnl::matmul::primitive_desc(engine, a, b, bias, out, attributes)
                                    : dnnl::matmul::primitive_desc(engine, a, b, out, attributes);
#else
    const auto operation = x.bias ? dnnl::matmul::desc(a, b, bias, out) : dnnl::matmul::desc(a, b, out);
    const dnnl::matmul::primitive_desc description(operation, attributes, engine);
#endif
    // For layouts that no fast kernel takes, oneDNN falls back on loops a thousand times slower (seen with 2.6).
    usable_ = std::string_view(description.impl_info_str()).substr(0, 3) != "ref";
    primitive_ = dnnl::matmul(description);
    add(a_, DNNL_ARG_SRC, a, engine);
    add(b_, DNNL_ARG_WEIGHTS, b, engine);
    add(out_, DNNL_ARG_DST, out, engine);
    if (x.scaled) add(scale_, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, scale, engine);
    if (x.bias) add(bias_, DNNL_ARG_BIAS, bias, engine);
  }
  bool usable() const { return usable_; }
  /// Whether rows come out alike wherever they stand; `probe` finds out, once.
  template <class Probe>
  bool position_free(const Probe& probe) {
    if (!position_free_) position_free_ = probe();
    return *position_free_;
  }
  void run(dnnl::stream& stream, const void* a, const void* b, const void* bias, void* out, float alpha) {
    a_.set_data_handle(const_cast<void*>(a));
    b_.set_data_handle(const_cast<void*>(b));
    out_.set_data_handle(out);
    if (bias_) bias_.set_data_handle(const_cast<void*>(bias));
    if (scale_) scale_.set_data_handle(&alpha);
    // The C function, because the C++ one allocates for its arguments.
    dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive_.get(), stream.get(), arguments_, arguments_list_.data()),
                            "could not execute a matmul");
    stream.wait();
  }

 private:
  void add(dnnl::memory& memory, int argument, const dnnl::memory::desc& description, const dnnl::engine& engine) {
    memory = dnnl::memory(description, engine, nullptr);
    arguments_list_[std::size_t(arguments_++)] = {argument, memory.get()};
  }
  bool usable_ = false;
  std::optional<bool> position_free_;
  dnnl::matmul primitive_;
  dnnl::memory a_, b_, out_, bias_, scale_;
  std::array<dnnl_exec_arg_t, 5> arguments_list_{};
  int arguments_ = 0;
};

/// The primitives of one thread: made once for each key (about 1 ms), found again without a lock.
class MatmulCache {
 public:
  static MatmulCache& of_this_thread() {
    static thread_local MatmulCache cache;
    return cache;
  }
  Matmul& get(const MatmulKey& key) {
    if (const auto found = made_.find(key); found != made_.end()) return found->second;
    // Far more than a model has; keeps a program of ever new shapes from growing without end.
    if (made_.size() >= 4096) made_.clear();
    return made_.try_emplace(key, key, engine_).first->second;
  }
  dnnl::stream& stream() { return stream_; }

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<MatmulKey, Matmul, MatmulKey::Hash> made_;
};

/// bf16 operands on oneDNN's matmul.
template <class Out>
class OnednnBf16 {
 public:
  OnednnBf16(const Workers& workers, const GemmSpec& spec) : workers_(workers), s_(spec), finish_{spec} {}

  /// False, with nothing done, where oneDNN has no fast and right kernel for this.
  bool run() const {
    // oneDNN scales after it adds the bias, and adding it after a scale as a post-operation is wrong for batches in 2.6.
    if (s_.bias && s_.alpha != 1.0f) return false;
    // Batches that are not outermost (packed heads) lose the fast kernels, and a batch must be that of an operand: one
    // product for each matrix then.
    const bool shared = s_.batch > 1 && s_.a.batch_stride == 0 && s_.b.batch_stride == 0;
    // A product whose rows are squared is read again at once, while the cache has it: one for each matrix, too.
    const bool whole = !shared && !s_.row_squares &&
                       batch_outermost(s_.batch, s_.a.batch_stride, s_.a.transposed ? s_.k : s_.m, s_.a.row_stride) &&
                       batch_outermost(s_.batch, s_.b.batch_stride, s_.b.transposed ? s_.n : s_.k, s_.b.row_stride) &&
                       batch_outermost(s_.batch, s_.out.batch_stride, s_.m, s_.out.row_stride);
    const bool spread = !whole && s_.batch >= workers_.threads;
    const bool add_first = s_.residual && s_.activation == GemmActivation::none;
    // The product must not be written over a residual that is still to be read.
    const bool aside = s_.residual == s_.out.data && s_.activation != GemmActivation::none && !s_.activation_input;
    const bool sum = s_.accumulate || add_first;
    {
      const OpenMpScope scope(spread ? 1 : workers_.threads);
      const MatmulKey kind = key(whole, aside, sum, scope.threads());
      Matmul& matmul = MatmulCache::of_this_thread().get(kind);
      if (!matmul.usable()) return false;
      if (s_.position_free && !matmul.position_free([&] { return probe(matmul, kind); })) return false;
    }
    if (add_first && s_.residual != s_.out.data)
      each_row([&](index_t i, index_t r) {
        std::memcpy(finish_.output(i, r), finish_.row(i, r).residual, std::size_t(s_.n) * sizeof(Out));
      });
    const Scratch scratch(workers_.context, aside ? padded_bytes(s_.batch * s_.m * s_.n, sizeof(Out)) : 0);
    Out* target = aside                 ? reinterpret_cast<Out*>(scratch.data())
                  : s_.activation_input ? finish_.row(0, 0).saved
                                        : finish_.output(0, 0);
    const index_t target_row = aside ? s_.n : s_.out.row_stride, target_batch = aside ? s_.m * s_.n : s_.out.batch_stride;
    const auto multiply = [&](index_t i) {
      const OpenMpScope scope(spread ? 1 : workers_.threads);
      MatmulCache& cache = MatmulCache::of_this_thread();
      cache.get(key(whole, aside, sum, scope.threads()))
          .run(cache.stream(), static_cast<const bf16*>(s_.a.data) + i * s_.a.batch_stride,
               static_cast<const bf16*>(s_.b.data) + i * s_.b.batch_stride, s_.bias, target + i * target_batch,
               float(s_.alpha));
    };
    if (whole)
      multiply(0);
    else if (spread)
      workers_.for_chunks(s_.batch, [&](int, index_t begin, index_t end) {
        for (index_t i = begin; i < end; ++i) {
          multiply(i);
          if (s_.row_squares) square_rows<Out>(s_, i, 0, s_.m);
        }
      });
    else
      for (index_t i = 0; i < s_.batch; ++i) multiply(i);
    if (s_.row_squares && !spread) square_all_rows<Out>(workers_, s_);
    if (s_.activation != GemmActivation::none)
      each_row([&](index_t i, index_t r) { finish_.finish_activation(target + i * target_batch + r * target_row, i, r); });
    return true;
  }

 private:
  MatmulKey key(bool whole, bool aside, bool sum, int threads) const {
    const bool batched = whole && s_.batch > 1;
    MatmulKey x{};
    x.batch = batched ? s_.batch : 1;
    x.m = s_.m, x.n = s_.n, x.k = s_.k;
    x.a_row = s_.a.row_stride, x.b_row = s_.b.row_stride, x.out_row = aside ? s_.n : s_.out.row_stride;
    if (batched)
      x.a_batch = s_.a.batch_stride, x.b_batch = s_.b.batch_stride, x.out_batch = aside ? s_.m * s_.n : s_.out.batch_stride;
    x.threads = threads;
    x.a_transposed = s_.a.transposed, x.b_transposed = s_.b.transposed;
    x.f32_output = std::is_same_v<Out, float>;
    x.bias = s_.bias, x.scaled = s_.alpha != 1.0f, x.sum = sum;
    return x;
  }
  bool probe(Matmul& matmul, const MatmulKey& kind) const {
    GemmSpec s = s_;
    s.batch = kind.batch;
    s.out.row_stride = kind.out_row, s.out.batch_stride = kind.out_batch;
    const std::vector<bf16> bias(static_cast<std::size_t>(s.n));
    return is_position_free<bf16, Out>(s, [&](const GemmSpec& x) {
      matmul.run(MatmulCache::of_this_thread().stream(), x.a.data, x.b.data, bias.data(), x.out.data, float(x.alpha));
    });
  }
  /// f(batch, row) for every row of the output.
  template <class F>
  void each_row(const F& f) const {
    workers_.for_chunks(s_.batch * s_.m, [&](int, index_t begin, index_t end) {
      for (index_t r = begin; r < end; ++r) f(r / s_.m, r % s_.m);
    });
  }
  const Workers& workers_;
  const GemmSpec& s_;
  Epilogue<bf16, Out> finish_;
};

inline bool onednn_isa_includes(unsigned bits) { return (unsigned(dnnl_get_effective_cpu_isa()) & bits) == bits; }

/// Whether this CPU multiplies bf16 faster than FP32. AMX does, and AVX512-BF16 where it does twice the work of an FP32
/// instruction in its time, as AMD's. Intel's has one port where FP32 has two, and the same peak (measured on a Xeon: 80
/// GFLOP/s, and 100 to 150 by our panels, which multiply in FP32).
inline bool onednn_has_bf16() {
  static const bool has = [] {
#if defined(__x86_64__) || defined(__i386__)
    const bool intel = __builtin_cpu_is("intel") != 0;
#else
    const bool intel = false;
#endif
    return onednn_isa_includes(intel ? dnnl_cpu_isa_avx512_core_amx : dnnl_cpu_isa_avx512_core_bf16);
  }();
  return has;
}

/// False, with nothing done, where this is no product of bf16 numbers, the CPU has no units for them, or oneDNN has no right
/// and, if asked for, position-free kernel for it.
inline bool run_onednn_bf16(const Workers& workers, const GemmSpec& s) {
  const bool has_units = onednn_isa_includes(dnnl_cpu_isa_avx512_core_bf16);
  if (s.a.dtype != DType::bf16 || s.k == 0 || s.out.dtype == DType::f64 || !has_units) return false;
  try {
    return s.out.dtype == DType::bf16 ? OnednnBf16<bf16>(workers, s).run() : OnednnBf16<float>(workers, s).run();
  } catch (const dnnl::error& e) {
    throw Error(concat("expected oneDNN to multiply ", s.m, " x ", s.n, " x ", s.k, " in bf16, got: ", e.what()));
  }
}

/// By oneDNN whatever it costs, where the rows stand or not: for comparisons.
inline void run_onednn(const Workers& workers, const GemmSpec& spec) {
  GemmSpec s = spec;
  s.position_free = false;
  if (run_onednn_bf16(workers, s)) return;
  run_blocked<OnednnLeaf>(workers, s);
  square_all_rows(workers, s);
}

inline std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return concat("oneDNN ", v->major, '.', v->minor, '.', v->patch);
}
inline std::string_view onednn_isa() {
  if (onednn_isa_includes(dnnl_cpu_isa_avx512_core_amx)) return "AMX";
  if (onednn_isa_includes(dnnl_cpu_isa_avx512_core_bf16)) return "AVX512-BF16";
  if (onednn_isa_includes(dnnl_cpu_isa_avx512_core)) return "AVX512";
  if (onednn_isa_includes(dnnl_cpu_isa_avx2)) return "AVX2";
  return "less than AVX2";
}
}  // namespace dpmp::inline DPMP_ABI::detail
#endif
