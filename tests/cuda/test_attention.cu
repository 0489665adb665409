// SPDX-License-Identifier: Apache-2.0
// Attention's CUDA kernels against plain loops in double.
#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "cuda/attention_oracle.hpp"
#include "dpmp/kernels/cuda/attention/backward.cuh"
#include "dpmp/kernels/cuda/attention/forward.cuh"
#include "support/random.hpp"

using namespace dpmp;
using test::AttentionCase;

namespace {
/// n elements on the device and one guard behind them that nothing may write.
template <class T>
class Array {
 public:
  explicit Array(std::size_t n) : size_(n) {
    dpmp::detail::check_cuda(cudaMalloc(&data_, (n + 1) * sizeof(T)), "allocate");
    dpmp::detail::check_cuda(cudaMemset(data_, 0xff, (n + 1) * sizeof(T)), "fill");
  }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    dpmp::detail::check_cuda(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "copy");
  }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> all(size_ + 1), guard(1);
    dpmp::detail::check_cuda(cudaMemcpy(all.data(), data_, (size_ + 1) * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    std::memset(guard.data(), 0xff, sizeof(T));
    CHECK(std::memcmp(&all.back(), guard.data(), sizeof(T)) == 0);
    all.pop_back();
    return all;
  }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

template <class T>
struct Inputs {
  std::vector<T> qkv, output_gradient;
  std::vector<std::int32_t> keep;  // empty: no padding

  /// distance: added to queries and taken from keys, which moves all scores far below 0.
  Inputs(const AttentionCase& c, test::Rng& rng, double distance = 0) {
    for (index_t k = 0; k < c.samples * c.tokens * c.packed(); ++k) {
      const index_t head = k % c.packed() / c.width;
      const double shift = head < c.heads ? distance : head < c.heads + c.key_heads ? -distance : 0;
      qkv.push_back(from_float<T>(float(rng.normal() + shift)));
    }
    for (index_t k = 0; k < c.samples * c.tokens * c.plain(); ++k)
      output_gradient.push_back(from_float<T>(float(rng.normal())));
    if (!c.padded) return;
    // About every third token is padding, and holds what would spoil everything that it gets into.
    for (index_t t = 0; t < c.samples * c.tokens; ++t) keep.push_back(rng.integer(0, 2) != 0);
    if (c.samples > 1) std::fill(keep.begin(), keep.begin() + c.tokens, 0);
    for (index_t t = 0; t < c.samples * c.tokens; ++t)
      if (!keep[std::size_t(t)]) {
        for (index_t k = 0; k < c.packed(); ++k) qkv[std::size_t(t * c.packed() + k)] = poison(k);
        for (index_t k = 0; k < c.plain(); ++k) output_gradient[std::size_t(t * c.plain() + k)] = poison(k);
      }
  }
  static T poison(index_t k) {
    return from_float<T>(k % 2 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity());
  }
};

template <class F>
void run_as_graph(const F& launch) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  dpmp::detail::check_cuda(cudaStreamCreate(&stream), "create a stream");
  dpmp::detail::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin a capture");
  launch(stream);
  dpmp::detail::check_cuda(cudaStreamEndCapture(stream, &graph), "end the capture");
  dpmp::detail::check_cuda(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  dpmp::detail::check_cuda(cudaGraphLaunch(executable, stream), "launch the graph");
  dpmp::detail::check_cuda(cudaStreamSynchronize(stream), "run the graph");
  cudaGraphExecDestroy(executable), cudaGraphDestroy(graph), cudaStreamDestroy(stream);
}

template <class T>
struct Results {
  std::vector<T> output, gradient;
  std::vector<float> log_sum_exp;

  Results(const AttentionCase& c, const Inputs<T>& in, bool in_graph = false) {
    const Array<T> qkv(in.qkv), output_gradient(in.output_gradient);
    const Array<T> out(in.output_gradient.size()), qkv_gradient(in.qkv.size());
    const Array<std::int32_t> keep(in.keep);
    const Array<float> lse(std::size_t(c.samples * c.heads * c.tokens)),
        row_sums(std::size_t(c.samples * c.heads * c.tokens));
    const kernels::AttentionShape shape{c.samples, c.tokens, c.heads, c.key_heads, c.width, c.causal};
    const std::int32_t* mask = in.keep.empty() ? nullptr : keep.data();
    const auto launch = [&](cudaStream_t stream) {
      kernels::attention_forward<T>(stream, {qkv.data(), mask, out.data(), lse.data(), shape});
      kernels::attention_backward<T>(stream, {qkv.data(), mask, out.data(), lse.data(), output_gradient.data(),
                                              qkv_gradient.data(), row_sums.data(), shape});
    };
    if (in_graph)
      run_as_graph(launch);
    else
      launch(nullptr);
    dpmp::detail::check_cuda(cudaDeviceSynchronize(), "run");
    output = out.host(), gradient = qkv_gradient.host(), log_sum_exp = lse.host();
  }
};

template <class T>
void compare(const std::string& what, const AttentionCase& c, const std::vector<T>& got, const test::Bounded& wanted) {
  double worst = 0;  // in units of the bound
  std::size_t place = 0;
  REQUIRE(got.size() == wanted.value.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    const double g = double(to_float(got[k])), w = wanted.value[k];
    const double ratio = g == w ? 0 : std::fabs(g - w) / wanted.bound[k];
    if (!(ratio <= worst)) worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio, place = k;
  }
  INFO(what, ": samples ", c.samples, ", tokens ", c.tokens, ", heads ", c.heads, " / ", c.key_heads, ", width ", c.width,
       ", causal ", c.causal, ", padded ", c.padded, "; worst element ", place, ": got ", double(to_float(got[place])),
       ", expected ", wanted.value[place], " +- ", wanted.bound[place]);
  CHECK(worst <= 1);
}

template <class T>
void check_case(const AttentionCase& c, double distance = 0) {
  test::Rng rng;
  const Inputs<T> in(c, rng, distance);
  const Results<T> got(c, in);
  const test::AttentionOracle<T> wanted(c, in.qkv, in.keep, in.output_gradient);
  if (got.output.empty()) return;
  compare("output", c, got.output, wanted.output);
  compare("log_sum_exp", c, got.log_sum_exp, wanted.log_sum_exp);
  compare("gradient", c, got.gradient, wanted.gradient);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b, std::size_t n) {
  return std::memcmp(a.data(), b.data(), n * sizeof(T)) == 0;
}
}  // namespace

// Every case: forward and backward, against the definition. Padding rows hold NaN and Inf, and where there are two samples
// all of the first one is padding.
TEST_CASE("P8: attention in bf16 is what its definition says, whatever padding holds") {
  for (bool causal : {true, false}) {
    check_case<bf16>({1, 1, 1, 1, 64, causal, false});
    check_case<bf16>({2, 17, 2, 1, 64, causal, true});
    check_case<bf16>({1, 65, 1, 1, 64, causal, false});
    check_case<bf16>({2, 130, 1, 1, 64, causal, true});
    check_case<bf16>({1, 65, 4, 2, 40, causal, true});
    check_case<bf16>({1, 130, 2, 2, 32, causal, true});
    check_case<bf16>({1, 192, 1, 1, 32, causal, false});
  }
}

TEST_CASE("P8: attention in f16 is what its definition says, whatever padding holds") {
  for (bool causal : {true, false}) {
    check_case<f16>({1, 65, 2, 1, 80, causal, true});
    check_case<f16>({1, 130, 1, 1, 128, causal, causal});
  }
}

TEST_CASE("P8: attention in f32 is what its definition says, whatever padding holds") {
  for (bool causal : {true, false}) {
    check_case<float>({1, 1, 1, 1, 32, causal, false});
    check_case<float>({2, 17, 2, 1, 64, causal, true});
    check_case<float>({1, 65, 4, 2, 40, causal, true});
  }
}

TEST_CASE("attention: scores far below 0, so that exp of a hidden key's score overflows") {
  for (bool causal : {true, false}) {
    check_case<bf16>({2, 17, 1, 1, 64, causal, true}, 6);
    check_case<float>({2, 17, 1, 1, 64, causal, true}, 6);
  }
}

TEST_CASE("P15: changing a sample leaves the attention of the others bit-identical") {
  const AttentionCase c{2, 70, 2, 1, 64, true, false};
  test::Rng rng;
  Inputs<bf16> in(c, rng);
  const Results<bf16> before(c, in);
  for (std::size_t k = in.qkv.size() / 2; k < in.qkv.size(); ++k) in.qkv[k] = Inputs<bf16>::poison(index_t(k));
  for (std::size_t k = in.output_gradient.size() / 2; k < in.output_gradient.size(); ++k)
    in.output_gradient[k] = Inputs<bf16>::poison(index_t(k));
  const Results<bf16> after(c, in);
  CHECK(same_bits(before.output, after.output, before.output.size() / 2));
  CHECK(same_bits(before.log_sum_exp, after.log_sum_exp, before.log_sum_exp.size() / 2));
  CHECK(same_bits(before.gradient, after.gradient, before.gradient.size() / 2));
  // What is not finite is not hidden either.
  for (std::size_t k = before.output.size() / 2; k < before.output.size(); ++k) CHECK(std::isnan(to_float(after.output[k])));
}

TEST_CASE("attention can be captured in a CUDA graph, and repeats bit for bit") {
  const AttentionCase c{1, 70, 2, 1, 64, true, true};
  test::Rng rng;
  const Inputs<bf16> in(c, rng);
  const Results<bf16> direct(c, in), captured(c, in, true);
  CHECK(same_bits(direct.output, captured.output, direct.output.size()));
  CHECK(same_bits(direct.log_sum_exp, captured.log_sum_exp, direct.log_sum_exp.size()));
  CHECK(same_bits(direct.gradient, captured.gradient, direct.gradient.size()));
}

TEST_CASE("attention: nothing to do is no launch, and what the kernels cannot run is refused") {
  check_case<bf16>({0, 5, 2, 1, 64, true, false});
  check_case<bf16>({3, 0, 2, 1, 64, true, false});
  const auto forward = [](kernels::AttentionShape shape, const bf16* qkv = nullptr) {
    kernels::attention_forward<bf16>(nullptr, {qkv, nullptr, nullptr, nullptr, shape});
  };
  CHECK_THROWS_AS(forward({1, 5, 2, 1, 12, true}), Error);
  CHECK_THROWS_AS(forward({1, 5, 2, 1, 136, true}), Error);
  CHECK_THROWS_AS(forward({1, 5, 3, 2, 64, true}), Error);
  alignas(16) const bf16 some[16] = {};
  CHECK_THROWS_AS(forward({1, 5, 2, 1, 64, true}, some + 1), Error);
}
