// SPDX-License-Identifier: Apache-2.0
// Contexts on two GPUs, and one context from several host threads: every call finds its own device and leaves the caller's.
#include <doctest/doctest.h>

#include <memory>
#include <thread>

#include "cuda/device_gpt.hpp"
#include "cuda/device_mlp.hpp"
#include "dpmp/dpmp.cuh"
#include "support/errors.hpp"

namespace {
using namespace dpmp;

int devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
int current() {
  int device = -1;
  REQUIRE(cudaGetDevice(&device) == cudaSuccess);
  return device;
}
/// The caller's device is this one until the end of the scope.
struct Current {
  explicit Current(int device) { REQUIRE(cudaSetDevice(device) == cudaSuccess); }
  ~Current() { cudaSetDevice(0); }
};

/// A private run in steps, so that runs can take turns.
class Run {
 public:
  Run(int device, DType dtype) : ctx_(Device::cuda(device), 1), gpt_(ctx_, dtype) {
    test::Rng rng(test::seed(), 31);
    trainer_ = std::make_unique<train::Trainer>(
        ctx_, gpt_.model.parameters(),
        dp::Plan::with_noise_multiplier(
            {.delta = 1e-5, .sampling_rate = 0.5, .steps = 20, .clip_threshold = 0.5, .dataset_size = gpt_.records}, 0.8),
        test::random_keys(rng), gpt_.records,
        train::TrainerOptions{.physical_batch = 4, .learning_rate = optim::LearningRate::constant(0.01)});
  }
  void step() { trainer_->step(gpt_.losses()); }
  std::vector<double> masters() const { return gpt_.masters(); }

 private:
  Context ctx_;
  test::DeviceGpt gpt_;
  std::unique_ptr<train::Trainer> trainer_;
};
}  // namespace

TEST_CASE("two contexts on two GPUs take turns in one thread, whichever device is the current one") {
  if (devices() < 2) {
    MESSAGE("there is one GPU");
    return;
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Run alone(0, dtype);
    for (int step = 0; step < 3; ++step) alone.step();
    for (const int caller : {0, 1}) {
      const Current device(caller);
      Run first(0, dtype), second(1, dtype);
      for (int step = 0; step < 3; ++step) {
        first.step();
        second.step();
        CHECK(current() == caller);
      }
      CHECK(first.masters() == alone.masters());
      CHECK(second.masters() == alone.masters());
      CHECK(current() == caller);
    }
  }
}

TEST_CASE("a context is used from another host thread, whose current device is the first one") {
  const int last = devices() - 1;
  Run here(last, DType::f32), there(last, DType::f32);
  here.step();
  std::thread([&] {
    CHECK(current() == 0);
    there.step();
    CHECK(current() == 0);
  }).join();
  CHECK(here.masters() == there.masters());
}

TEST_CASE("graphs, fills, copies and memory belong to their context's device, not to the caller's") {
  const int last = devices() - 1;
  auto ctx = std::make_unique<Context>(Device::cuda(last), 1);
  const test::DeviceMlp mlp(*ctx, DType::f32);
  const Tensor x = Tensor::full(*ctx, {4, 24}, DType::f32, 0.5);
  Tensor y;
  const auto work = [&] {
    Tape tape(*ctx, 4, TapeMode::inference);
    y = gelu(mlp.first(tape.input(x))).value();
  };
  work();
  const std::vector<double> eager = y.to_doubles();
  y = Tensor();  // its memory is what the graph takes
  {
    CudaGraph graph = CudaGraph::capture(*ctx, work);
    CHECK(current() == 0);
    y.set_zero();
    graph.launch();
    CHECK(y.to_doubles() == eager);
    CHECK(y.clone(*ctx).to_doubles() == eager);
    CHECK(y.rows(1, 3).to_doubles() == std::vector<double>(eager.begin() + 40, eager.begin() + 120));
    y = Tensor();
  }
  CHECK(current() == 0);
  CHECK(test::refuses([&] { Context(Device::cuda(last + 1), 1); }, "expected a CUDA device number below "));
  CHECK(current() == 0);
}
