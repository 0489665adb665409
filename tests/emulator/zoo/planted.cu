// SPDX-License-Identifier: Apache-2.0
// Planted bugs, each beside its repaired twin (Bug = false), which must raise no report. check_zoo.py holds the table of
// what must be found.   usage: planted NAME bug|right
#include <cassert>
#include <cstring>

#include "device_array.hpp"
#include "tensor_core.cuh"

namespace {

__device__ float* shared_neighbour(float* s) { return s + (threadIdx.x + 33) % blockDim.x; }

template <bool Bug>
__global__ void missing_barrier(float* out) {
  __shared__ float s[64];
  s[threadIdx.x] = float(threadIdx.x);
  if (!Bug) __syncthreads();
  out[threadIdx.x] = *shared_neighbour(s);
}

template <bool Bug>
__global__ void write_after_read(float* out) {
  __shared__ float s[64];
  float sum = 0;
  for (int i = 0; i < 3; i++) {
    s[threadIdx.x] = float(i);
    __syncthreads();
    sum += *shared_neighbour(s);
    if (!Bug) __syncthreads();  // readers must be done before the next round writes
  }
  out[threadIdx.x] = sum;
}

template <bool Bug>
__global__ void weak_async_wait(const float* in, float* out) {
  __shared__ __align__(16) float s[256];
  copy_async_16(&s[threadIdx.x * 4], &in[threadIdx.x * 4]);
  copy_async_commit();
  copy_async_wait<Bug ? 1 : 0>();
  out[threadIdx.x] = s[threadIdx.x * 4];
}

template <bool Bug>
__global__ void missing_async_barrier(const float* in, float* out) {
  __shared__ __align__(16) float s[256];
  copy_async_16(&s[threadIdx.x * 4], &in[threadIdx.x * 4]);
  copy_async_commit();
  copy_async_wait<0>();  // the thread's own copies only
  if (!Bug) __syncthreads();
  out[threadIdx.x] = s[(threadIdx.x * 4 + 132) % 256];
}

template <bool Bug>
__global__ void non_atomic_add(int* out) {
  if (Bug)
    *out = *out + 1;
  else
    atomicAdd(out, 1);
}

template <bool Bug>
__global__ void blocks_write_same(float* out) {
  if (threadIdx.x == 0) out[Bug ? 0 : blockIdx.x] = float(blockIdx.x + 1);
}

template <bool Bug>
__global__ void shared_write_write(float* out) {
  __shared__ float s[64];
  s[Bug ? threadIdx.x / 2 : threadIdx.x] = float(threadIdx.x + 1);
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x / 2];
}

template <bool Bug>
__global__ void global_out_of_bounds(float* out, int n) {
  const int i = int(threadIdx.x);
  if (Bug ? i <= n : i < n) out[i] = 1;
}

__device__ __forceinline__ void store_one(float* p, int i) { p[i] = 1; }

template <bool Bug>
__global__ void inlined_store(float* out) {
  store_one(out, int(threadIdx.x) + (Bug ? 1 : 0));
}

template <bool Bug>
__global__ void before_the_array(float* out) {
  out[int(threadIdx.x) - (Bug ? 1 : 0)] = 1;
}

template <bool Bug>
__global__ void shared_out_of_bounds(float* out) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x + (Bug ? 1 : 0)] = 1;
  __syncthreads();
  out[threadIdx.x] = dynamic[threadIdx.x + (Bug ? 1 : 0)];
}

template <bool Bug>
__global__ void divergent_barrier(int* out) {
  if (Bug && threadIdx.x % 32 < 16) {
    out[threadIdx.x] = 1;
    asm volatile("bar.sync 0;" ::: "memory");
    out[threadIdx.x] = 2;
  } else {
    out[threadIdx.x] = 3;
    asm volatile("bar.sync 0;" ::: "memory");
    out[threadIdx.x] += 4;
  }
}

template <bool Bug>
__global__ void half_warp_shuffle(int* out) {
  const int v = int(threadIdx.x);
  if (!Bug || threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(~0u, v, 1);
}

template <bool Bug>
__global__ void missing_lane(int* out) {
  const unsigned mask = Bug ? 0xfffffffeu : ~0u;  // lane 0 names a group it is not in
  out[threadIdx.x] = __shfl_xor_sync(mask, int(threadIdx.x), 2);
}

template <bool Bug>
__global__ void exited_lane(int* out) {
  if (threadIdx.x % 32 == 31) return;
  const unsigned mask = Bug ? ~0u : 0x7fffffffu;
  out[threadIdx.x] = int(__ballot_sync(mask, threadIdx.x & 1));
}

template <bool Bug>
__global__ void mismatched_collectives(int* out) {
  const unsigned mask = Bug ? ~0u : (threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u);
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_xor_sync(mask, int(threadIdx.x), 1);
  } else {
    out[threadIdx.x] = int(__ballot_sync(mask, threadIdx.x & 1));
  }
}

template <bool Bug>
__global__ void use_after_free(float* out) {
  out[threadIdx.x] = 1;
}

template <bool Bug>
__global__ void misaligned_vector_load(const float* in, float* out) {
  const float4 v = *reinterpret_cast<const float4*>(in + threadIdx.x * 4 + (Bug ? 1 : 0));
  out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

template <bool Bug>
__global__ void wrong_fragment_index(float* out) {
  const unsigned one = 0x3f803f80u, g = threadIdx.x / 4, t = threadIdx.x % 4;
  const unsigned a[4] = {one * (g + 1 & 1), one, one, one}, b[2] = {t << 16 | 0x3f80u, one};
  float d[4] = {};
  multiply_16_8_16(d, a, b);
  const unsigned column = Bug ? t : 2 * t;  // a thread holds two neighbouring columns
  for (unsigned i = 0; i < 4; i++) out[(g + i / 2 * 8) * 8 + column + i % 2] = d[i] + float(threadIdx.x);
}

template <bool Bug>
__global__ void uninitialised_shared_read(float* out) {
  __shared__ float s[64];
  if (threadIdx.x < (Bug ? 63 : 64)) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

template <bool Bug>
__global__ void deadlock(int* out) {
  const bool first = threadIdx.x < 32;
  if (first || !Bug)
    asm volatile("bar.sync 1, 64;" ::: "memory");
  else
    asm volatile("bar.sync 2, 64;" ::: "memory");
  out[threadIdx.x] = 1;
}

template <bool Bug>
__global__ void skipped_barrier(int* out) {
  out[threadIdx.x] = 1;
  if (Bug && threadIdx.x / 32 == 1) {  // this warp waits for a vote of a lane that is at the barrier
    if (threadIdx.x % 32 != 0) out[threadIdx.x] = __any_sync(~0u, 1);
  }
  __syncthreads();
  out[threadIdx.x] += 1;
}

template <bool Bug>
__global__ void missing_fence(const float* in, float* part, unsigned* counter, float* out) {
  if (threadIdx.x != 0) return;
  part[blockIdx.x] = in[blockIdx.x];
  if (!Bug) __threadfence();
  if (atomicInc(counter, gridDim.x - 1) != gridDim.x - 1) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; i++) sum += reinterpret_cast<volatile float*>(part)[i];
  *out = sum;
}

template <bool Bug>
__global__ void failed_assert(int n) {
  assert(int(threadIdx.x) < n - (Bug ? 1 : 0));
}

template <bool Bug>
__global__ void too_many_bytes(float* out) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = dynamic[threadIdx.x];
}

__global__ void nothing() {}

/// Host side of one case.
template <bool Bug>
void run(const char* name) {
  const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
  DeviceArray<float> in(260), out(256);
  DeviceArray<int> counts(256);
  DeviceArray<unsigned> word(1);
  if (is("missing_barrier")) missing_barrier<Bug><<<1, 64>>>(out);
  if (is("write_after_read")) write_after_read<Bug><<<1, 64>>>(out);
  if (is("weak_async_wait")) weak_async_wait<Bug><<<1, 64>>>(in, out);
  if (is("missing_async_barrier")) missing_async_barrier<Bug><<<1, 64>>>(in, out);
  if (is("non_atomic_add")) non_atomic_add<Bug><<<2, 64>>>(counts);
  if (is("blocks_write_same")) blocks_write_same<Bug><<<4, 32>>>(out);
  if (is("shared_write_write")) shared_write_write<Bug><<<1, 64>>>(out);
  if (is("global_out_of_bounds")) global_out_of_bounds<Bug><<<1, 512>>>(out, 256);
  if (is("inlined_store")) inlined_store<Bug><<<1, 256>>>(out);
  if (is("before_the_array")) before_the_array<Bug><<<1, 32>>>(out);
  if (is("shared_out_of_bounds")) shared_out_of_bounds<Bug><<<1, 64, 256>>>(out);
  if (is("divergent_barrier")) divergent_barrier<Bug><<<1, 64>>>(counts);
  if (is("half_warp_shuffle")) half_warp_shuffle<Bug><<<1, 32>>>(counts);
  if (is("missing_lane")) missing_lane<Bug><<<1, 32>>>(counts);
  if (is("exited_lane")) exited_lane<Bug><<<1, 32>>>(counts);
  if (is("mismatched_collectives")) mismatched_collectives<Bug><<<1, 32>>>(counts);
  if (is("misaligned_vector_load")) misaligned_vector_load<Bug><<<1, 64>>>(in, out);
  if (is("wrong_fragment_index")) wrong_fragment_index<Bug><<<1, 32>>>(out);
  if (is("uninitialised_shared_read")) uninitialised_shared_read<Bug><<<1, 64>>>(out);
  if (is("deadlock")) deadlock<Bug><<<1, 64>>>(counts);
  if (is("skipped_barrier")) skipped_barrier<Bug><<<1, 64>>>(counts);
  if (is("missing_fence")) missing_fence<Bug><<<8, 32>>>(in, out, word, out + 255);
  if (is("failed_assert")) failed_assert<Bug><<<1, 32>>>(32);
  if (is("null_pointer")) use_after_free<Bug><<<1, 32>>>(Bug ? nullptr : static_cast<float*>(out));
  if (is("too_many_bytes")) too_many_bytes<Bug><<<1, 32, Bug ? 64 << 10 : 48 << 10>>>(out);
  if (is("use_after_free") || is("double_free")) {
    float* p = nullptr;
    CHECK_CUDA(cudaMalloc(&p, 256));
    if (Bug) CHECK_CUDA(cudaFree(p));
    if (is("use_after_free")) use_after_free<Bug><<<1, 32>>>(p);
    if (!Bug || is("double_free")) std::printf("%s\n", cudaGetErrorName(cudaFree(p)));
  }
  if (is("copy_too_long")) {
    const std::vector<float> values(300);
    std::printf("%s\n", cudaGetErrorName(cudaMemcpy(out, values.data(), Bug ? 1028 : 1024, cudaMemcpyHostToDevice)));
  }
  if (is("allocation_in_capture")) {
    cudaStream_t s;
    cudaGraph_t graph;
    void* p = nullptr;
    CHECK_CUDA(cudaStreamCreate(&s));
    CHECK_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    nothing<<<1, 1, 0, s>>>();
    if (Bug) cudaMalloc(&p, 16);
    std::printf("%s\n", cudaGetErrorName(cudaStreamEndCapture(s, &graph)));
  }
  if (is("unmodelled_call")) {
    nothing<<<1, 1>>>();
    cudaGraph_t graph;
    if (Bug) cudaGraphCreate(&graph, 0);
  }
  std::printf("%s: %s\n", name, cudaGetErrorName(cudaDeviceSynchronize()));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  if (std::strcmp(argv[2], "bug") == 0) {
    run<true>(argv[1]);
  } else {
    run<false>(argv[1]);
  }
}
