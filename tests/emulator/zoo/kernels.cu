// SPDX-License-Identifier: Apache-2.0
// Small kernels of the usual kinds against plain loops. Right in every order, on the emulator and on a GPU.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "device_array.hpp"
#include "tensor_core.cuh"

namespace {

__device__ float warp_sum(float v) {
  for (int o = 16; o; o /= 2) v += __shfl_xor_sync(~0u, v, o);
  return v;
}

/// Sum over the block; every thread gets it. `scratch` holds a value per warp.
__device__ float block_sum(float v, float* scratch) {
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0;
  for (unsigned w = 0; w < blockDim.x / 32; w++) total += scratch[w];
  __syncthreads();
  return total;
}

__global__ void reduce(const float* x, float* out, int n) {
  __shared__ float scratch[32];
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) atomicAdd(out, sum);
}

void test_reduce() {
  const int n = 10007;
  const std::vector<float> x = noise(n, 1);
  DeviceArray<float> dx(x), out(1);
  reduce<<<5, 256>>>(dx, out, n);
  const double wanted = std::accumulate(x.begin(), x.end(), 0.);
  expect("reduce", distance(out.host(), {wanted}), 1e-2);
}

/// Inclusive scan of one block: Hillis and Steele with two buffers.
__global__ void scan(const int* x, int* out) {
  __shared__ int buffer[2][256];
  const int t = threadIdx.x;
  int from = 0;
  buffer[0][t] = x[t];
  __syncthreads();
  for (int o = 1; o < 256; o *= 2) {
    buffer[1 - from][t] = buffer[from][t] + (t >= o ? buffer[from][t - o] : 0);
    from = 1 - from;
    __syncthreads();
  }
  out[t] = buffer[from][t];
}

void test_scan() {
  std::vector<int> x(256), wanted(256);
  for (int i = 0; i < 256; i++) x[std::size_t(i)] = i * 37 % 101 - 50;
  std::partial_sum(x.begin(), x.end(), wanted.begin());
  DeviceArray<int> dx(x), out(256);
  scan<<<1, 256>>>(dx, out);
  expect("scan", out.host() == wanted ? 0 : 1, 0);
}

__global__ void transpose(const float* x, float* out, int rows, int cols) {
  __shared__ float tile[32][33];
  const int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32;
  for (int i = threadIdx.y; i < 32; i += 8) {
    if (r + i < rows && c < cols) tile[i][threadIdx.x] = x[(r + i) * cols + c];
  }
  __syncthreads();
  const int oc = r + threadIdx.x, orow = blockIdx.x * 32;
  for (int i = threadIdx.y; i < 32; i += 8) {
    if (orow + i < cols && oc < rows) out[(orow + i) * rows + oc] = tile[threadIdx.x][i];
  }
}

void test_transpose() {
  const int rows = 70, cols = 45;
  const std::vector<float> x = noise(rows * cols, 2);
  DeviceArray<float> dx(x), out(rows * cols);
  transpose<<<dim3((cols + 31) / 32, (rows + 31) / 32), dim3(32, 8)>>>(dx, out, rows, cols);
  std::vector<double> wanted(rows * cols);
  for (int r = 0; r < rows; r++) {
    for (int c = 0; c < cols; c++) wanted[std::size_t(c * rows + r)] = x[std::size_t(r * cols + c)];
  }
  expect("transpose", distance(out.host(), wanted), 0);
}

/// Row-wise softmax, a block per row.
__global__ void softmax(const float* x, float* out, int n) {
  __shared__ float scratch[32];
  const float* row = x + blockIdx.x * n;
  float top = -INFINITY;
  for (int i = threadIdx.x; i < n; i += blockDim.x) top = fmaxf(top, row[i]);
  for (int o = 16; o; o /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = top;
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / 32; w++) top = fmaxf(top, scratch[w]);
  __syncthreads();
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - top);
  sum = block_sum(sum, scratch);
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[blockIdx.x * n + i] = expf(row[i] - top) / sum;
}

void test_softmax() {
  const int rows = 3, n = 300;
  std::vector<float> x = noise(rows * n, 3);
  for (float& v : x) v *= 10;
  DeviceArray<float> dx(x), out(rows * n);
  softmax<<<rows, 128>>>(dx, out, n);
  std::vector<double> wanted(x.size());
  for (int r = 0; r < rows; r++) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += std::exp(double(x[std::size_t(r * n + i)]));
    for (int i = 0; i < n; i++) wanted[std::size_t(r * n + i)] = std::exp(double(x[std::size_t(r * n + i)])) / sum;
  }
  expect("softmax", distance(out.host(), wanted), 1e-6);
}

__global__ void histogram(const int* x, int* counts, int n) {
  __shared__ int local[16];
  if (threadIdx.x < 16) local[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[x[i] & 15], 1);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

void test_atomics() {
  const int n = 5000;
  std::vector<int> x(n), wanted(16);
  for (int i = 0; i < n; i++) wanted[std::size_t(x[std::size_t(i)] = i * i % 16)]++;
  DeviceArray<int> dx(x), counts(16);
  histogram<<<4, 128>>>(dx, counts, n);
  expect("atomics", counts.host() == wanted ? 0 : 1, 0);
}

/// C (f32) = A B, all row major, bf16 inputs, sizes multiples of 32: a warp makes 32 x 32, two stages of cp.async.
__global__ void __launch_bounds__(32) gemm(const __nv_bfloat16* A, const __nv_bfloat16* B, float* C, int n, int k) {
  constexpr int tile = 32, line = tile + 8;  // 8 elements of padding: no bank conflicts of ldmatrix
  __shared__ __align__(16) __nv_bfloat16 a[2][tile][line], b[2][tile][line];
  const int lane = threadIdx.x, m0 = blockIdx.y * tile, n0 = blockIdx.x * tile;
  float sum[2][4][4] = {};
  const auto fetch = [&](int stage, int k0) {
    for (int i = lane; i < tile * tile / 8; i += 32) {
      const int r = i / 4, c = i % 4 * 8;
      copy_async_16(&a[stage][r][c], &A[(m0 + r) * k + k0 + c]);
      copy_async_16(&b[stage][r][c], &B[(k0 + r) * n + n0 + c]);
    }
    copy_async_commit();
  };
  fetch(0, 0);
  for (int k0 = 0, stage = 0; k0 < k; k0 += tile, stage ^= 1) {
    if (k0 + tile < k) {
      fetch(stage ^ 1, k0 + tile);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    for (int kk = 0; kk < tile; kk += 16) {
      unsigned fa[2][4], fb[4][2];
      for (int i = 0; i < 2; i++) load_matrix_x4(fa[i], &a[stage][i * 16 + lane % 16][kk + lane / 16 * 8]);
      for (int j = 0; j < 4; j++) load_matrix_x2_transposed(fb[j], &b[stage][kk + lane % 16][j * 8]);
      for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) multiply_16_8_16(sum[i][j], fa[i], fb[j]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 4; j++) {
      const int r = m0 + i * 16 + lane / 4, c = n0 + j * 8 + lane % 4 * 2;
      C[r * n + c] = sum[i][j][0];
      C[r * n + c + 1] = sum[i][j][1];
      C[(r + 8) * n + c] = sum[i][j][2];
      C[(r + 8) * n + c + 1] = sum[i][j][3];
    }
  }
}

void test_gemm() {
  const int m = 64, n = 96, k = 128;
  std::vector<__nv_bfloat16> a, b;
  for (float v : noise(m * k, 4)) a.push_back(__float2bfloat16(v));
  for (float v : noise(k * n, 5)) b.push_back(__float2bfloat16(v));
  DeviceArray<__nv_bfloat16> da(a), db(b);
  DeviceArray<float> out(m * n);
  gemm<<<dim3(n / 32, m / 32), 32>>>(da, db, out, n, k);
  std::vector<double> wanted(m * n);
  for (int i = 0; i < m; i++) {
    for (int j = 0; j < n; j++) {
      double s = 0;
      for (int p = 0; p < k; p++) s += double(__bfloat162float(a[i * k + p])) * double(__bfloat162float(b[p * n + j]));
      wanted[std::size_t(i * n + j)] = s;
    }
  }
  expect("gemm", distance(out.host(), wanted), 1e-4);
}

__global__ void axpy(float a, const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}

/// What a captured graph says of itself: each node's type and parameters, and which waits for which.
void test_graph_nodes() {
  const int n = 1000;
  DeviceArray<float> x(noise(n, 7)), y(n), sum(1);
  cudaStream_t stream, side_stream;
  cudaEvent_t fork, join;
  CHECK_CUDA(cudaStreamCreate(&stream));
  CHECK_CUDA(cudaStreamCreate(&side_stream));
  CHECK_CUDA(cudaEventCreate(&fork));
  CHECK_CUDA(cudaEventCreate(&join));
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK_CUDA(cudaMemcpyAsync(y, x, n * sizeof(float), cudaMemcpyDeviceToDevice, stream));
  CHECK_CUDA(cudaEventRecord(fork, stream));
  CHECK_CUDA(cudaStreamWaitEvent(side_stream, fork, 0));
  CHECK_CUDA(cudaMemsetAsync(sum, 1, sizeof(float), side_stream));
  axpy<<<4, 256, 32, stream>>>(0.5f, x, y, n);
  CHECK_CUDA(cudaEventRecord(join, side_stream));
  CHECK_CUDA(cudaStreamWaitEvent(stream, join, 0));
  reduce<<<2, 128, 0, stream>>>(y, sum, n);
  cudaGraph_t graph;
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));

  size_t nodes = 0, edges = 0;
  CHECK_CUDA(cudaGraphGetNodes(graph, nullptr, &nodes));
  CHECK_CUDA(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  int wrong = nodes != 4 || edges != 4;
  std::vector<cudaGraphNode_t> all(nodes), from(edges), to(edges);
  CHECK_CUDA(cudaGraphGetNodes(graph, all.data(), &nodes));
  CHECK_CUDA(cudaGraphGetEdges(graph, from.data(), to.data(), nullptr, &edges));
  cudaGraphNode_t copied = nullptr, filled = nullptr, added = nullptr, reduced = nullptr;
  for (cudaGraphNode_t node : all) {
    cudaGraphNodeType type;
    cudaKernelNodeParams kernel{};
    CHECK_CUDA(cudaGraphNodeGetType(node, &type));
    if (type == cudaGraphNodeTypeMemcpy) copied = node;
    if (type == cudaGraphNodeTypeMemset) filled = node;
    if (type != cudaGraphNodeTypeKernel) continue;
    CHECK_CUDA(cudaGraphKernelNodeGetParams(node, &kernel));
    (kernel.func == reinterpret_cast<void*>(axpy) ? added : reduced) = node;
  }
  const auto waits = [&](cudaGraphNode_t before, cudaGraphNode_t after) {
    for (size_t i = 0; i < edges; i++) {
      if (from[i] == before && to[i] == after) return true;
    }
    return false;
  };
  wrong += !(waits(copied, filled) && waits(copied, added) && waits(filled, reduced) && waits(added, reduced));

  cudaKernelNodeParams kernel{};
  CHECK_CUDA(cudaGraphKernelNodeGetParams(added, &kernel));
  wrong += kernel.gridDim.x != 4 || kernel.blockDim.x != 256 || kernel.sharedMemBytes != 32;
  wrong += *static_cast<float*>(kernel.kernelParams[0]) != 0.5f || *static_cast<int*>(kernel.kernelParams[3]) != n;
  CHECK_CUDA(cudaGraphKernelNodeGetParams(reduced, &kernel));
  wrong += kernel.gridDim.x != 2 || kernel.blockDim.x != 128 || kernel.func != reinterpret_cast<void*>(reduce);
  cudaMemcpy3DParms copy{};
  CHECK_CUDA(cudaGraphMemcpyNodeGetParams(copied, &copy));
  wrong += copy.extent.width * copy.extent.height * copy.extent.depth != n * sizeof(float) || copy.dstPtr.ptr != y ||
           copy.srcPtr.ptr != x;
  cudaMemsetParams fill{};
  CHECK_CUDA(cudaGraphMemsetNodeGetParams(filled, &fill));
  wrong += fill.width * fill.height * fill.elementSize != sizeof(float) || (fill.value & 255) != 1 || fill.dst != sum;
  wrong += cudaGraphKernelNodeGetParams(filled, &kernel) == cudaSuccess;
  wrong += cudaGraphMemsetNodeGetParams(added, &fill) == cudaSuccess;
  cudaGetLastError();
  expect("graph_nodes", wrong, 0);
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaEventDestroy(fork));
  CHECK_CUDA(cudaEventDestroy(join));
  CHECK_CUDA(cudaStreamDestroy(side_stream));
  CHECK_CUDA(cudaStreamDestroy(stream));
}

/// A captured step, replayed: nothing runs during the capture, everything at each replay. Two streams joined by events.
void test_graph() {
  const int n = 1000;
  const std::vector<float> x = noise(n, 6);
  DeviceArray<float> dx(x), y(n), sum(1);
  cudaStream_t main_stream, side_stream;
  cudaEvent_t fork, join;
  CHECK_CUDA(cudaStreamCreate(&main_stream));
  CHECK_CUDA(cudaStreamCreate(&side_stream));
  CHECK_CUDA(cudaEventCreate(&fork));
  CHECK_CUDA(cudaEventCreate(&join));
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CHECK_CUDA(cudaStreamBeginCapture(main_stream, cudaStreamCaptureModeGlobal));
  CHECK_CUDA(cudaEventRecord(fork, main_stream));
  CHECK_CUDA(cudaStreamWaitEvent(side_stream, fork, 0));
  CHECK_CUDA(cudaMemsetAsync(sum, 0, sizeof(float), side_stream));
  axpy<<<4, 256, 0, main_stream>>>(0.5f, dx, y, n);
  CHECK_CUDA(cudaEventRecord(join, side_stream));
  CHECK_CUDA(cudaStreamWaitEvent(main_stream, join, 0));
  reduce<<<2, 128, 0, main_stream>>>(y, sum, n);
  CHECK_CUDA(cudaStreamEndCapture(main_stream, &graph));
  double error = distance(y.host(), std::vector<double>(n));
  CHECK_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 3; i++) CHECK_CUDA(cudaGraphLaunch(replay, main_stream));
  CHECK_CUDA(cudaStreamSynchronize(main_stream));
  std::vector<double> wanted(x.begin(), x.end());
  for (double& v : wanted) v *= 1.5;
  error = std::max(error, distance(y.host(), wanted));
  expect("graph", std::max(error, distance(sum.host(), {std::accumulate(wanted.begin(), wanted.end(), 0.)}) * 1e-3), 1e-6);
  CHECK_CUDA(cudaGraphExecDestroy(replay));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaEventDestroy(fork));
  CHECK_CUDA(cudaEventDestroy(join));
  CHECK_CUDA(cudaStreamDestroy(side_stream));
  CHECK_CUDA(cudaStreamDestroy(main_stream));
}

}  // namespace

int main() {
  test_reduce();
  test_scan();
  test_transpose();
  test_softmax();
  test_atomics();
  test_gemm();
  test_graph();
  test_graph_nodes();
  return report();
}
