// SPDX-License-Identifier: Apache-2.0
// Noise, update and low-precision copy in one pass on a CUDA device against the same functor on the host, whose numbers are
// checked against plain loops in tests/optim; replay of a captured graph.
#include <doctest/doctest.h>

#include <cmath>
#include <deque>

#include "dpmp/optim/fused_update.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/launch_cuda.cuh"
#include "dpmp/tensor/tensor.hpp"
#include "support/difference.hpp"
#include "support/noise.hpp"
#include "support/random.hpp"

using namespace dpmp;
using optim::detail::FusedNumbers;
using optim::detail::FusedUpdate;

namespace {
template <class T>
using Adam = FusedUpdate<kernels::AdamWUpdate<compute_t<T>>, T>;
template <class T>
using SgdOf = FusedUpdate<kernels::SgdUpdate<compute_t<T>>, T>;

/// One parameter of n elements in the memory of a context, `shift` elements after where arrays are aligned.
template <class Update>
struct State {
  using R = typename Update::Real;
  using T = std::remove_pointer_t<decltype(Update::copy)>;
  State(Context& context, index_t n, index_t shift, index_t index = 3) : ctx(context), size(n), first(shift), place(index) {
    test::Rng rng(test::seed(), std::uint64_t(5 + index));
    const auto tensor = [&](DType dtype, double std) {
      std::vector<double> values(std::size_t(n + shift + 1));
      for (double& v : values) v = std::fabs(rng.normal(std));
      return Tensor::from(ctx, {n + shift + 1}, dtype, values);
    };
    sum = tensor(DType::f64, 2), weight = tensor(dtype_of<R>, 0.5), copy = tensor(dtype_of<T>, 1);
    moments[0] = tensor(dtype_of<R>, 0.1), moments[1] = tensor(dtype_of<R>, 0.1);
    numbers = Tensor::zeros(ctx, {index_t(sizeof(FusedNumbers) / 8)}, DType::f64);
  }
  Update update(bool noisy) const {
    const auto* now = static_cast<const FusedNumbers*>(numbers.raw());
    Key256 key;
    for (int k = 0; k < 8; ++k) key.words[std::size_t(k)] = std::uint32_t(test::seed() >> k) * 2654435761u;
    Update u{size,
             sum.data<double>() + first,
             weight.data<R>() + first,
             copy.data<T>() + first,
             {},
             &now->update,
             noisy ? dp::ParameterNoise(key, &now->noise, place) : dp::ParameterNoise()};
    if constexpr (requires { u.rule.velocity; })
      u.rule = {moments[0].data<R>() + first, R(0.9), R(0.1), R(0.5)};
    else
      u.rule = {moments[0].data<R>() + first,
                moments[1].data<R>() + first,
                R(0.9),
                R(0.1),
                R(0.99),
                R(0.01),
                R(1e-6),
                R(0.5),
                R(0.25)};
    return u;
  }
  void begin(int step) {
    const FusedNumbers now{{0.3 + step, 0.02, 1.5, 0.001}, dp::NoiseOfStep(7 + step, 0.5 + step)};
    numbers.copy_from_host(&now);
  }
  /// Everything an update may write, and the guard after each array.
  std::vector<double> all() const {
    std::vector<double> values;
    for (const Tensor& t : {weight, copy, moments[0], moments[1], sum})
      for (double v : t.to_doubles()) values.push_back(v);
    return values;
  }
  Context& ctx;
  index_t size, first, place;
  Tensor sum, weight, copy, moments[2], numbers;
};

/// Both devices compute with a handful of roundings of compute_t; the copy has one of T more.
template <class Update>
void compare(const State<Update>& want, const State<Update>& got) {
  const index_t n = want.size, shift = want.first;
  CAPTURE(n);
  CAPTURE(shift);
  const double u = unit_roundoff(dtype_of<typename Update::Real>),
               stored = unit_roundoff(dtype_of<typename State<Update>::T>);
  const std::vector<double> a = want.all(), b = got.all();
  const std::size_t array = std::size_t(n + shift + 1);
  double worst = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const std::size_t j = k % array;
    const bool touched = k / array != 4 && j >= std::size_t(shift) && j + 1 < array;
    if (!touched || (k / array == 3 && !requires { got.update(true).rule.second; }))
      CHECK(a[k] == b[k]);
    else
      worst = std::max(worst, std::fabs(a[k] - b[k]) / (200 * u * (std::fabs(a[k]) + 1) + 2.5 * stored * std::fabs(a[k])));
  }
  CHECK(worst <= 1);
}

/// Two steps of parameters of these sizes, all at once.
template <class Update>
void check(const std::vector<index_t>& sizes, index_t shift, bool noisy) {
  Context host(Device::cpu(), 1), device(Device::cuda(0));
  std::deque<State<Update>> want, got;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    want.emplace_back(host, sizes[k], shift, index_t(k));
    got.emplace_back(device, sizes[k], shift, index_t(k));
  }
  for (int step = 0; step < 2; ++step)
    for (auto* states : {&want, &got}) {
      std::vector<Update> updates;
      for (State<Update>& state : *states) {
        state.begin(step);
        updates.push_back(state.update(noisy));
      }
      optim::detail::launch_updates<Update>((*states)[0].ctx, updates);
    }
  for (std::size_t k = 0; k < sizes.size(); ++k) compare(want[k], got[k]);
}
template <class Update>
void update_one(State<Update>& state) {
  const Update update = state.update(true);
  optim::detail::launch_updates<Update>(state.ctx, {&update, 1});
}
}  // namespace

TEST_CASE("P21: noise on the device: every element gets the normal that is its own, and nothing after them is written") {
  Context device(Device::cuda(0));
  test::Rng rng(test::seed(), 6);
  Key256 key;
  for (auto& word : key.words) word = std::uint32_t(rng.bits());
  for (index_t n : {1, 2, 31, 33, 127, 128, 129, 256, 2053})
    for (index_t shift : {0, 1}) {
      CAPTURE(n);
      CAPTURE(shift);
      const Tensor sum = Tensor::zeros(device, {n + shift + 1}, DType::f64);
      dp::add_gaussian_noise(device, sum.data<double>() + shift, n, 1.0, {key, 12}, 7);
      const std::vector<double> got = sum.to_doubles(),
                                want = test::normals_by_hand(key, dp::noise_nonce(12, 7), std::size_t(n));
      for (std::size_t j = 0; j < want.size(); ++j)
        CHECK(std::fabs(got[j + std::size_t(shift)] - want[j]) <= test::normal_error + 0x1p-21);
      CHECK((got.back() == 0 && (shift == 0 || got.front() == 0)));
    }
}

TEST_CASE("P21: an update on the device draws the host's noise and agrees to rounding") {
  check<Adam<bf16>>({1, 8, 37, 2053}, 0, true);
  check<Adam<bf16>>({45}, 1, true);
  check<Adam<bf16>>({100}, 0, false);
  check<SgdOf<float>>({7, 300}, 0, true);
  check<SgdOf<double>>({139}, 0, true);
}

TEST_CASE("moments in bf16 are rounded by the host's words: the same bits where FP32 arithmetic is exact") {
  // Sums are multiples of 2^-6 in [-2, 2] and both betas 1/2: all moments, squares too, have fewer than 24 bits.
  using Rounded = FusedUpdate<kernels::RoundedAdamWUpdate, bf16>;
  Context host(Device::cpu(), 1), device(Device::cuda(0));
  for (const index_t n : {1, 45, 2053}) {
    CAPTURE(n);
    std::vector<double> values[2];
    for (Context* ctx : {&host, &device}) {
      test::Rng rng(test::seed(), 31);
      std::vector<double> drawn(static_cast<std::size_t>(n));
      for (double& v : drawn) v = double(rng.integer(-128, 128)) / 64;
      const Tensor sum = Tensor::from(*ctx, {n}, DType::f64, drawn), weight = Tensor::zeros(*ctx, {n}, DType::f32),
                   copy = Tensor::zeros(*ctx, {n}, DType::bf16), first = Tensor::zeros(*ctx, {n}, DType::bf16),
                   second = Tensor::zeros(*ctx, {n}, DType::bf16);
      Tensor numbers = Tensor::zeros(*ctx, {index_t(sizeof(FusedNumbers) / 8)}, DType::f64);
      for (std::uint64_t step = 1; step <= 3; ++step) {
        const FusedNumbers now{{1, 0.01, 1, 0, step}, {}};
        numbers.copy_from_host(&now);
        const Rounded update{n,
                             sum.data<double>(),
                             weight.data<float>(),
                             copy.data<bf16>(),
                             {{first.data<bf16>(), second.data<bf16>(), 0.5f, 0.5f, 0.5f, 0.5f, 1e-6f}, {77, 2}},
                             &static_cast<const FusedNumbers*>(numbers.raw())->update,
                             dp::ParameterNoise()};
        optim::detail::launch_updates<Rounded>(*ctx, {&update, 1});
      }
      for (const Tensor& t : {first, second})
        for (const double v : t.to_doubles()) values[ctx == &device].push_back(v);
    }
    CHECK(test::difference(values[0], values[1]) == "");
  }
}

TEST_CASE("updates of more parameters than a launch takes, some of them empty") {
  test::Rng rng(test::seed(), 8);
  std::vector<index_t> sizes;
  for (index_t k = 0; k < 2 * LaunchJobs<Adam<bf16>>::most + 3; ++k)
    sizes.push_back(std::max<index_t>(0, rng.integer(-50, 300)));
  check<Adam<bf16>>(sizes, 0, true);
  check<SgdOf<float>>(sizes, 0, false);
}

TEST_CASE("a captured update follows the numbers that are put into memory before each launch") {
  Context device(Device::cuda(0));
  State<Adam<bf16>> direct(device, 500, 0), replayed(device, 500, 0);
  const auto stream = static_cast<cudaStream_t>(device.backend().stream());
  cudaGraph_t graph{};
  cudaGraphExec_t exec{};
  replayed.begin(0);
  dpmp::detail::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  update_one(replayed);
  dpmp::detail::check_cuda(cudaStreamEndCapture(stream, &graph), "end the capture");
  dpmp::detail::check_cuda(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  for (int step = 0; step < 3; ++step) {
    direct.begin(step), replayed.begin(step);
    update_one(direct);
    dpmp::detail::check_cuda(cudaGraphLaunch(exec, stream), "launch the graph");
    CHECK(test::difference(direct.all(), replayed.all()) == "");
  }
  dpmp::detail::check_cuda(cudaGraphExecDestroy(exec), "destroy");
  dpmp::detail::check_cuda(cudaGraphDestroy(graph), "destroy");
}
