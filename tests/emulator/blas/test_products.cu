// SPDX-License-Identifier: Apache-2.0
// cublasLt's products against plain loops in double: random types, transposes, orders, batches, scalars and epilogues;
// and the statuses of arguments that must be refused. Runs on a GPU unchanged but for the orders that a GPU may refuse.
// usage: test_products [SEED]
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <random>

#include "../zoo/device_array.hpp"

namespace {

std::mt19937 random_bits;
int mistakes = 0;

int below(int n) { return int(random_bits() % unsigned(n)); }

std::uint16_t to_bits(float v, cudaDataType_t t) {
  if (t == CUDA_R_16BF) return __bfloat16_as_ushort(__float2bfloat16_rn(v));
  return __half_as_ushort(__float2half_rn(v));
}
float to_float(std::uint16_t bits, cudaDataType_t t) {
  if (t == CUDA_R_16BF) return __bfloat162float(__ushort_as_bfloat16(bits));
  return __half2float(__ushort_as_half(bits));
}

/// Random numbers of a type, on the device and as floats on the host.
struct Numbers {
  cudaDataType_t type;
  std::vector<float> host;
  void* device = nullptr;

  Numbers(cudaDataType_t t, std::size_t n) : type(t), host(n) {
    std::normal_distribution<float> normal;
    for (float& v : host) v = type == CUDA_R_32F ? normal(random_bits) : to_float(to_bits(normal(random_bits), type), type);
    CHECK_CUDA(cudaMalloc(&device, n * size()));
    if (type == CUDA_R_32F) {
      CHECK_CUDA(cudaMemcpy(device, host.data(), n * 4, cudaMemcpyHostToDevice));
      return;
    }
    std::vector<std::uint16_t> bits(n);
    for (std::size_t i = 0; i < n; i++) bits[i] = to_bits(host[i], type);
    CHECK_CUDA(cudaMemcpy(device, bits.data(), n * 2, cudaMemcpyHostToDevice));
  }
  ~Numbers() { cudaFree(device); }
  std::size_t size() const { return type == CUDA_R_32F ? 4 : 2; }
  std::vector<float> now() const {
    std::vector<float> out(host.size());
    if (type == CUDA_R_32F) {
      CHECK_CUDA(cudaMemcpy(out.data(), device, out.size() * 4, cudaMemcpyDeviceToHost));
      return out;
    }
    std::vector<std::uint16_t> bits(out.size());
    CHECK_CUDA(cudaMemcpy(bits.data(), device, bits.size() * 2, cudaMemcpyDeviceToHost));
    for (std::size_t i = 0; i < out.size(); i++) out[i] = to_float(bits[i], type);
    return out;
  }
};

/// One operand: a batch of matrices with random order and leading dimension.
struct Operand {
  int rows, cols, row_major, ld;
  std::int64_t stride;
  cublasLtMatrixLayout_t layout;
  Operand(cudaDataType_t t, int r, int c, int batch) : rows(r), cols(c), row_major(below(2)) {
    ld = (row_major ? c : r) + below(3) * 8;
    stride = std::int64_t(ld) * (row_major ? r : c);
    cublasLtMatrixLayoutCreate(&layout, t, std::uint64_t(r), std::uint64_t(c), ld);
    const std::int32_t order = row_major ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL;
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
  }
  ~Operand() { cublasLtMatrixLayoutDestroy(layout); }
  std::size_t at(int b, int r, int c) const {
    return std::size_t(b * stride + (row_major ? std::int64_t(r) * ld + c : std::int64_t(c) * ld + r));
  }
};

double gelu(double v) { return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))); }
double gelu_slope(double v) { return (gelu(v + 1e-5) - gelu(v - 1e-5)) / 2e-5; }

/// `scale`: sum of the magnitudes that were added.
bool near(double got, double wanted, double scale, cudaDataType_t t) {
  const double unit = t == CUDA_R_32F ? 1e-6 : t == CUDA_R_16BF ? 0.004 : 0.0005;
  return std::fabs(got - wanted) <= unit * (std::fabs(wanted) + 1e-3) + 1e-6 * scale;
}

template <class T>
void set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, T v) {
  mistakes += cublasLtMatmulDescSetAttribute(d, a, &v, sizeof v) != CUBLAS_STATUS_SUCCESS;
}

const int epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT,     CUBLASLT_EPILOGUE_BIAS,          CUBLASLT_EPILOGUE_RELU,
                         CUBLASLT_EPILOGUE_RELU_BIAS,   CUBLASLT_EPILOGUE_GELU,          CUBLASLT_EPILOGUE_GELU_BIAS,
                         CUBLASLT_EPILOGUE_GELU_AUX,    CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU,
                         CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,        CUBLASLT_EPILOGUE_BGRADB};

void random_product(cublasLtHandle_t handle) {
  const cudaDataType_t types[] = {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F};
  const cudaDataType_t in = types[below(3)], out = below(3) ? in : CUDA_R_32F;
  const int m = 1 + below(40), n = 1 + below(40), k = 1 + below(70), ta = below(2), tb = below(2);
  const int batch = below(4) ? 1 : 3, epilogue = epilogues[below(12)];
  const float alpha = below(3) ? 1.f : 0.75f, betas[] = {0.f, 1.f, -0.5f}, beta = betas[below(3)];
  const Operand a(in, ta ? k : m, ta ? m : k, batch), b(in, tb ? n : k, tb ? k : n, batch), d(out, m, n, batch);
  const std::int64_t aux_ld = (m + 7) / 8 * 8, bias_stride = std::max(m, n), aux_stride = aux_ld * n;
  const Numbers va(in, std::size_t(a.stride * batch)), vb(in, std::size_t(b.stride * batch));
  const Numbers vd(out, std::size_t(d.stride * batch));
  const Numbers bias(out, std::size_t(bias_stride * batch)), aux(out, std::size_t(aux_stride * batch));
  cublasLtMatmulDesc_t description;
  cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  set(description, CUBLASLT_MATMUL_DESC_TRANSA, ta);
  set(description, CUBLASLT_MATMUL_DESC_TRANSB, tb);
  set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.device);
  set(description, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, bias_stride);
  set(description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux.device);
  set(description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, aux_ld);
  set(description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, aux_stride);
  const int status = cublasLtMatmul(handle, description, &alpha, va.device, a.layout, vb.device, b.layout, &beta, vd.device,
                                    d.layout, vd.device, d.layout, nullptr, nullptr, 0, nullptr);
  cublasLtMatmulDescDestroy(description);
  const std::vector<float> got = vd.now(), got_bias = bias.now(), got_aux = aux.now();
  const bool adds_bias = epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS ||
                         epilogue == CUBLASLT_EPILOGUE_GELU_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  const bool keeps_aux = epilogue == CUBLASLT_EPILOGUE_GELU_AUX || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  const bool is_gelu = keeps_aux || epilogue == CUBLASLT_EPILOGUE_GELU || epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  const bool is_relu = epilogue == CUBLASLT_EPILOGUE_RELU || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
  const bool is_slope = epilogue == CUBLASLT_EPILOGUE_DGELU || epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
  int wrong = status != CUBLAS_STATUS_SUCCESS;
  for (int q = 0; q < batch; q++) {
    const auto A = [&](int i, int p) { return double(va.host[ta ? a.at(q, p, i) : a.at(q, i, p)]); };
    const auto B = [&](int p, int j) { return double(vb.host[tb ? b.at(q, j, p) : b.at(q, p, j)]); };
    const auto new_bias = [&](int i) { return double(got_bias[std::size_t(q * bias_stride + i)]); };
    for (int i = 0; i < m; i++) {
      double row = 0;
      for (int j = 0; j < n; j++) {
        double v = 0, scale = 0;
        for (int p = 0; p < k; p++) v += A(i, p) * B(p, j), scale += std::fabs(A(i, p) * B(p, j));
        v = double(alpha) * v + (beta != 0 ? double(beta) * double(vd.host[d.at(q, i, j)]) : 0.);
        const auto x = std::size_t(q * aux_stride + j * aux_ld + i);
        if (adds_bias) v += double(bias.host[std::size_t(q * bias_stride + i)]);
        if (keeps_aux) wrong += !near(double(got_aux[x]), v, scale, out);
        if (is_gelu) v = gelu(v);
        if (is_relu) v = std::max(v, 0.);
        if (is_slope) v *= gelu_slope(double(aux.host[x]));
        row += v;
        wrong += !near(double(got[d.at(q, i, j)]), v, scale, out);
      }
      if (epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD) wrong += !near(new_bias(i), row, 100, out);
      if (epilogue != CUBLASLT_EPILOGUE_BGRADA) continue;
      double sum = 0;
      for (int p = 0; p < k; p++) sum += A(i, p);
      wrong += !near(new_bias(i), sum, 100, out);
    }
    for (int j = 0; j < n && epilogue == CUBLASLT_EPILOGUE_BGRADB; j++) {
      double sum = 0;
      for (int p = 0; p < k; p++) sum += B(p, j);
      wrong += !near(new_bias(j), sum, 100, out);
    }
  }
  if (!wrong) return;
  mistakes++;
  std::printf("BAD: epilogue %d, %d x %d x %d, types %d %d, status %d: %d values\n", epilogue, m, n, k, in, out, status,
              wrong);
}

void expect_status(const char* what, int got, int wanted) {
  if (got == wanted) return;
  mistakes++;
  std::printf("BAD: %s: status %d, expected %d\n", what, got, wanted);
}

void refused_arguments(cublasLtHandle_t handle) {
  const Numbers in(CUDA_R_16BF, 4096), out(CUDA_R_16BF, 4096);
  cublasLtMatmulDesc_t d;
  cublasLtMatrixLayout_t square, narrow, half, tall;
  cublasLtMatmulDescCreate(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasLtMatrixLayoutCreate(&square, CUDA_R_16BF, 32, 32, 32);
  cublasLtMatrixLayoutCreate(&narrow, CUDA_R_16BF, 32, 32, 16);
  cublasLtMatrixLayoutCreate(&half, CUDA_R_16F, 32, 32, 32);
  cublasLtMatrixLayoutCreate(&tall, CUDA_R_16BF, 48, 32, 48);
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t result;
  int count = 0;
  cublasLtMatmulPreferenceCreate(&preference);
  expect_status("heuristic",
                cublasLtMatmulAlgoGetHeuristic(handle, d, square, square, square, square, preference, 1, &result, &count),
                CUBLAS_STATUS_SUCCESS);
  const float one = 1, zero = 0;
  const auto run = [&](std::size_t offset, cublasLtMatrixLayout_t a) {
    return cublasLtMatmul(handle, d, &one, static_cast<char*>(in.device) + offset, a, in.device, square, &zero, out.device,
                          square, out.device, square, &result.algo, nullptr, 0, nullptr);
  };
  expect_status("plain", run(0, square), CUBLAS_STATUS_SUCCESS);
  expect_status("misaligned", run(2, square), CUBLAS_STATUS_NOT_SUPPORTED);
  expect_status("leading dimension", run(0, narrow), CUBLAS_STATUS_INVALID_VALUE);
  expect_status("types", run(0, half), CUBLAS_STATUS_NOT_SUPPORTED);
  expect_status("sizes", run(0, tall), CUBLAS_STATUS_INVALID_VALUE);
  set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, int(CUBLASLT_EPILOGUE_BIAS));
  expect_status("no bias pointer", run(0, square), CUBLAS_STATUS_INVALID_VALUE);
}

}  // namespace

int main(int argc, char** argv) {
  const unsigned seed = argc > 1 ? unsigned(std::atoi(argv[1])) : std::random_device{}();
  random_bits.seed(seed);
  cublasLtHandle_t handle;
  cublasLtCreate(&handle);
  for (int i = 0; i < 600; i++) random_product(handle);
  refused_arguments(handle);
  cublasLtDestroy(handle);
  std::printf("%s (seed %u)\n", mistakes ? "SOME BAD" : "ALL OK", seed);
  return mistakes != 0;
}
