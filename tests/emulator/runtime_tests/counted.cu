// SPDX-License-Identifier: Apache-2.0
// Kernels whose counts are known by hand; check_counts.py has the figures. The host names its ranges by NVTX alone.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <nvtx3/nvtx3.hpp>

#include <cstdio>
#include <cstdlib>

#define CHECK(call) \
  do { \
    if (call) { \
      std::printf("%s failed at line %d\n", #call, __LINE__); \
      std::exit(1); \
    } \
  } while (0)

__global__ void axpy(float* y, const float* x, float a, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = fmaf(a, x[i], y[i]);
}

__global__ void strided(float* y, const float* x) {
  __shared__ float s[64];
  s[2 * threadIdx.x] = x[8 * threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[2 * threadIdx.x];
}

__global__ void matrices(float* out, int times) {
  float d[4] = {};
  unsigned a[4] = {}, b[2] = {};
  for (int i = 0; i < times; i++) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  out[threadIdx.x] = d[0] + d[1];
}

__global__ void others(double* f64, __nv_bfloat162* bf16, float* f32) {
  const unsigned i = threadIdx.x;
  f64[i] = fma(f64[i], f64[i], 1.);
  bf16[i] = __hfma2(bf16[i], bf16[i], bf16[i]);
  atomicAdd(f32 + 64, __frcp_rn(f32[i]));
}

int main() {
  constexpr int n = 10000;
  float *x = nullptr, *y = nullptr;
  CHECK(cudaMalloc(&x, 4 * n));
  CHECK(cudaMalloc(&y, 4 * n));
  CHECK(cudaMemset(x, 0, 4 * n));
  CHECK(cudaMemset(y, 0, 4 * n));
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  axpy<<<40, 256, 0, stream>>>(y, x, 2.f, n);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&ready, graph, 0));
  for (int i = 0; i < 3; i++) {
    nvtx3::scoped_range step{"step"};
    CHECK(cudaGraphLaunch(ready, stream));
    nvtxRangePushA("inner");
    axpy<<<40, 256>>>(y, x, 2.f, n);
    nvtxRangePop();
  }
  strided<<<2, 32>>>(y, x);
  matrices<<<3, 64>>>(y, 5);
  others<<<1, 64>>>(reinterpret_cast<double*>(x), reinterpret_cast<__nv_bfloat162*>(x), y);
  CHECK(cudaDeviceSynchronize());
  float value = 1;
  CHECK(cudaMemcpy(&value, y, 4, cudaMemcpyDeviceToHost));
  return 0;
}
