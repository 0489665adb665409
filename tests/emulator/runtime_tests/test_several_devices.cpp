// SPDX-License-Identifier: Apache-2.0
// Several devices: each thread has a current one, to which memory, streams and events belong.
#include <doctest/doctest.h>

#include <thread>

#include "api.hpp"
#include "captured.hpp"
#include "memory.hpp"

namespace {
struct OnDevice {
  explicit OnDevice(int device) { REQUIRE(cudaSetDevice(device) == cudaSuccess); }
  ~OnDevice() { cudaSetDevice(0); }
};
int current() {
  int device = -1;
  CHECK(cudaGetDevice(&device) == cudaSuccess);
  return device;
}
}  // namespace

TEST_CASE("every thread has a current device of its own, the first one at its start") {
  int count = 0;
  CHECK(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(count == 2);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(cudaSetDevice(-1) == cudaErrorInvalidDevice);
  const OnDevice second(1);
  CHECK(current() == 1);
  int of_another = -1;
  std::thread([&] { of_another = current(); }).join();
  CHECK(of_another == 0);
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1) == cudaSuccess);
  CHECK(value == 32);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 2) == cudaErrorInvalidDevice);
}

TEST_CASE("a stream takes launches while its device is the current one, and says which one that is") {
  cudaStream_t stream = nullptr;
  {
    const OnDevice second(1);
    CHECK(cudaStreamCreate(&stream) == cudaSuccess);
    CHECK(emu::refuse_other_device(stream, "kernel") == cudaSuccess);
  }
  int device = -1;
  CHECK(cudaStreamGetDevice(stream, &device) == cudaSuccess);
  CHECK(device == 1);
  const std::string report =
      captured([&] { CHECK(emu::refuse_other_device(stream, "kernel") == cudaErrorInvalidResourceHandle); });
  CHECK(contains(report, "its stream is of device 1, the current device is 0"));
  CHECK(emu::refuse_other_device(nullptr, "kernel") == cudaSuccess);
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreate(&event) == cudaSuccess);
  const std::string mixed = captured([&] { CHECK(cudaEventRecord(event, stream) == cudaErrorInvalidResourceHandle); });
  CHECK(contains(mixed, "the event is of device 0, its stream of device 1"));
  CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

TEST_CASE("memory belongs to the device that was current when it was asked for") {
  void *first = nullptr, *second = nullptr;
  CHECK(cudaMalloc(&first, 64) == cudaSuccess);
  {
    const OnDevice other(1);
    CHECK(cudaMalloc(&second, 64) == cudaSuccess);
  }
  const auto device_of = [](void* p) {
    cudaPointerAttributes facts;
    CHECK(cudaPointerGetAttributes(&facts, p) == cudaSuccess);
    return facts.device;
  };
  CHECK(device_of(first) == 0);
  CHECK(device_of(second) == 1);
  emu::Bounds bounds;
  CHECK(emu::host_range(reinterpret_cast<std::uint64_t>(second), 64, nullptr, &bounds) != nullptr);
  CHECK(bounds.device == 1);
  CHECK(cudaFree(first) == cudaSuccess);
  CHECK(cudaFree(second) == cudaSuccess);
}
