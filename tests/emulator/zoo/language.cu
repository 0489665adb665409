// SPDX-License-Identifier: Apache-2.0
// What a program uses besides arithmetic: variables of modules, calls, printf, device memory, barriers by number, waiting,
// launches of several kinds, copies, graphs with copies, queries.
#include <algorithm>
#include <cstring>

#include "device_array.hpp"

namespace {

__device__ int table[5] = {3, 1, 4, 1, 5};
__device__ int* inside = table + 2;  // the initial value needs the address that the variable gets
__constant__ float factors[4];
__managed__ int managed = 7;

__global__ void read_variables(int* out) {
  const int t = threadIdx.x;
  out[t] = table[t] + int(factors[t & 3]) * 10 + inside[0] * 1000 + managed * 10000;
  __syncthreads();
  if (t == 4) managed = 9;
}

void test_variables() {
  const float values[4] = {1, 2, 3, 4};
  CHECK_CUDA(cudaMemcpyToSymbol(factors, values, sizeof values));
  DeviceArray<int> out(5);
  read_variables<<<1, 5>>>(out);
  CHECK_CUDA(cudaDeviceSynchronize());
  expect("variables", out.host() == std::vector<int>{74013, 74021, 74034, 74041, 74015} && managed == 9 ? 0 : 1, 0);
  int copied = 0;
  CHECK_CUDA(cudaMemcpyFromSymbol(&copied, table, sizeof copied, 4 * sizeof(int)));
  expect("symbols", copied == 5 ? 0 : 1, 0);
}

/// Not inlined and with an array by pointer: a call through the stack, local memory with a dynamic index.
__device__ __noinline__ float fold(float first, const float* values, int n) {
  for (int i = 0; i < n; i++) first = first * 0.5f + values[i];
  return first;
}
__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

typedef float (*Function)(float);
__device__ float increased(float x) { return x + 1; }
__device__ float doubled(float x) { return x * 2; }
__device__ Function functions[2] = {increased, doubled};

__global__ void call(float* out, int n) {
  float local[16];
  const int t = threadIdx.x;
  for (int i = 0; i < 16; i++) local[i] = float(i * t);
  local[(n + t) & 15] = 100;
  out[t] = fold(1, local, 16) + float(fibonacci(7 + (t & 3))) + functions[t & 1](3.f);
}

void test_calls() {
  DeviceArray<float> out(64);
  call<<<1, 64>>>(out, 5);
  const int numbers[4] = {13, 21, 34, 55};
  std::vector<double> wanted;
  for (int t = 0; t < 64; t++) {
    float sum = 1;
    for (int i = 0; i < 16; i++) sum = sum * 0.5f + (i == ((5 + t) & 15) ? 100.f : float(i * t));
    wanted.push_back(double(sum + float(numbers[t & 3]) + ((t & 1) ? 6.f : 4.f)));
  }
  expect("calls", distance(out.host(), wanted), 0);
}

__global__ void print(int a, double b) {
  if (threadIdx.x == 3) printf("device prints %d %.3f %s %llu %c%%\n", a, b, "text", 1234567890123ull, 'x');
}

/// The line itself is looked for by the script that runs this program.
void test_print() {
  print<<<1, 32>>>(42, 2.5);
  CHECK_CUDA(cudaDeviceSynchronize());
}

__global__ void allocate(int* out) {
  int* own = static_cast<int*>(malloc((threadIdx.x + 1) * sizeof(int)));
  for (unsigned i = 0; i <= threadIdx.x; i++) own[i] = int(i);
  int sum = 0;
  for (unsigned i = 0; i <= threadIdx.x; i++) sum += own[i];
  out[threadIdx.x] = sum;
  free(own);
}

void test_device_memory() {
  DeviceArray<int> out(40);
  allocate<<<1, 40>>>(out);
  std::vector<int> wanted;
  for (int t = 0; t < 40; t++) wanted.push_back(t * (t + 1) / 2);
  expect("malloc", out.host() == wanted ? 0 : 1, 0);
}

/// Two warps meet at barrier 1; the others only arrive at barrier 2, at which the two wait for them.
__global__ void named_barriers(int* out) {
  __shared__ int first[64], second[64];
  const int t = threadIdx.x;
  if (t < 64) {
    first[t] = t;
    asm volatile("bar.sync 1, 64;" ::: "memory");
    const int neighbour = first[63 - t];
    asm volatile("bar.sync 2, 128;" ::: "memory");
    out[t] = neighbour + second[t];
  } else {
    second[t - 64] = 1000;
    asm volatile("bar.arrive 2, 128;" ::: "memory");
  }
}

void test_named_barriers() {
  DeviceArray<int> out(64);
  named_barriers<<<1, 128>>>(out);
  std::vector<int> wanted;
  for (int i = 0; i < 64; i++) wanted.push_back(1063 - i);
  expect("named barriers", out.host() == wanted ? 0 : 1, 0);
}

/// One warp waits for a flag that the other sets.
__global__ void wait_for_flag(int* out) {
  __shared__ volatile int flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    while (flag == 0) {
    }
    out[0] = 5;
  } else if (threadIdx.x == 40) {
    flag = 1;
  }
}

void test_waiting() {
  DeviceArray<int> out(1);
  wait_for_flag<<<1, 64>>>(out);
  expect("waiting", out.host()[0] == 5 ? 0 : 1, 0);
}

/// The block that comes last adds up the sums of all.
__global__ void sum_in_last_block(const float* x, float* part, unsigned* counter, float* out) {
  __shared__ bool last;
  float v = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int o = 16; o; o /= 2) v += __shfl_down_sync(~0u, v, o);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = v;
    __threadfence();
    last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; i++) sum += reinterpret_cast<volatile float*>(part)[i];
  *out = sum;
}

void test_graph_with_copies() {
  const std::size_t blocks = 64;
  std::vector<float> ones(blocks * 32, 1.f);
  DeviceArray<float> x(ones.size()), part(blocks), out(1);
  DeviceArray<unsigned> counter(1);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CHECK_CUDA(cudaStreamCreate(&stream));
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK_CUDA(cudaMemcpyAsync(x, ones.data(), ones.size() * sizeof(float), cudaMemcpyHostToDevice, stream));
  sum_in_last_block<<<unsigned(blocks), 32, 0, stream>>>(x, part, counter, out);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  double error = std::fabs(double(out.host()[0]));  // nothing runs during the capture
  CHECK_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  for (float value : {1.f, 3.f}) {  // the copy reads host memory at each replay
    std::fill(ones.begin(), ones.end(), value);
    CHECK_CUDA(cudaGraphLaunch(replay, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    error = std::max(error, std::fabs(double(out.host()[0] - value * 2048)));
  }
  expect("last block, graph", error, 0);
  CHECK_CUDA(cudaGraphExecDestroy(replay));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaStreamDestroy(stream));
}

__global__ void shape(int* out) {
  extern __shared__ int dynamic[];
  const int block = int(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  const int thread = int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  dynamic[thread] = block * 100 + thread;
  __syncthreads();
  out[block * 12 + thread] = dynamic[thread];
}

/// Grids and blocks of three dimensions, dynamic shared memory, a launch without <<<>>>, copies of a part in two dimensions.
void test_launches() {
  DeviceArray<int> out(8 * 12);
  std::vector<int> wanted;
  for (int i = 0; i < 8 * 12; i++) wanted.push_back(i / 12 * 100 + i % 12);
  shape<<<dim3(2, 1, 4), dim3(3, 2, 2), 12 * sizeof(int)>>>(out);
  double wrong = out.host() != wanted;
  CHECK_CUDA(cudaMemset(out, 0, 8 * 12 * sizeof(int)));
  int* pointer = out;
  void* arguments[] = {&pointer};
  CHECK_CUDA(cudaLaunchKernel(reinterpret_cast<const void*>(shape), dim3(4, 2), dim3(12), arguments, 12 * sizeof(int), 0));
  wrong += out.host() != wanted;
  std::vector<int> corner(6);
  CHECK_CUDA(cudaMemcpy2D(corner.data(), 3 * sizeof(int), pointer + 13, 12 * sizeof(int), 3 * sizeof(int), 2,
                          cudaMemcpyDeviceToHost));
  wrong += corner != std::vector<int>{101, 102, 103, 201, 202, 203};
  expect("launches, copies", wrong, 0);
}

void test_queries() {
  cudaDeviceProp properties;
  int blocks = 0, count = 0;
  std::size_t free_bytes = 0, total = 0;
  cudaFuncAttributes attributes;
  CHECK_CUDA(cudaGetDeviceCount(&count));
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  CHECK_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, named_barriers, 128, 0));
  CHECK_CUDA(cudaFuncGetAttributes(&attributes, named_barriers));
  CHECK_CUDA(cudaMemGetInfo(&free_bytes, &total));
  bool good = count >= 1 && properties.major >= 8 && properties.warpSize == 32 && properties.maxThreadsPerBlock == 1024;
  good = good && blocks >= 8 && free_bytes < total && attributes.sharedSizeBytes == 512;
  good = good && cudaSetDevice(count) == cudaErrorInvalidDevice;
  good = good && cudaGetLastError() == cudaErrorInvalidDevice && cudaGetLastError() == cudaSuccess;
  expect("queries, errors", good ? 0 : 1, 0);
}

}  // namespace

int main() {
  test_variables();
  test_calls();
  test_print();
  test_device_memory();
  test_named_barriers();
  test_waiting();
  test_graph_with_copies();
  test_launches();
  test_queries();
  return report();
}
