// SPDX-License-Identifier: Apache-2.0
// The arithmetic: everything in double, one rounding per stored element.
#include "product.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "blas_bridge.hpp"
#include "number.hpp"

namespace emu::blas {
namespace {

constexpr double worth_a_thread = 4e6;  // multiplications

// The tanh form of GELU, as cublasLt documents it.
constexpr double gelu_scale = 0.7978845608028654, gelu_cubic = 0.044715;
double gelu(double x) { return 0.5 * x * (1. + std::tanh(gelu_scale * (x + gelu_cubic * x * x * x))); }
double gelu_derivative(double x) {
  const double t = std::tanh(gelu_scale * (x + gelu_cubic * x * x * x));
  return 0.5 * (1. + t) + 0.5 * x * (1. - t * t) * gelu_scale * (1. + 3. * gelu_cubic * x * x);
}

/// Host addresses of all operands; bytes == null of an unused one.
struct Addresses {
  std::uint8_t *a, *b, *c, *d, *bias, *aux;
};

std::uint8_t* address_of(const Matrix& x, int batch, const char* api, const char* name) {
  static std::uint8_t empty;
  auto elements = std::uint64_t(x.extent());
  if (!elements) return &empty;
  if (batch > 1) elements += std::uint64_t(batch - 1) * std::uint64_t(std::max<std::int64_t>(x.stride, 0));
  return emu_host_ptr(x.data, elements * size_of(x.type), (std::string(api) + " matrix " + name).c_str());
}

bool resolve(const Product& p, Addresses& out) {
  out = {};
  out.a = address_of(p.a, p.batch, p.api, "A");
  out.b = address_of(p.b, p.batch, p.api, "B");
  out.d = address_of(p.d, p.batch, p.api, "D");
  if (!out.a || !out.b || !out.d) return false;
  if (p.beta != 0 && !(out.c = address_of(p.c, p.batch, p.api, "C"))) return false;
  const auto more = std::uint64_t(p.batch - 1);
  if (p.epilogue.uses_bias()) {
    const std::uint64_t length = (p.epilogue.sum_b ? p.n : p.m) + more * std::uint64_t(p.bias.stride);
    out.bias = emu_host_ptr(p.bias.data, length * size_of(p.bias.type), "cublasLtMatmul bias");
    if (!out.bias) return false;
  }
  if (p.epilogue.uses_aux()) {
    const std::uint64_t length = (p.n - 1) * std::uint64_t(p.aux.ld) + p.m + more * std::uint64_t(p.aux.stride);
    out.aux = emu_host_ptr(p.aux.data, length * size_of(p.aux.type), "cublasLtMatmul epilogue aux");
    if (!out.aux) return false;
  }
  return true;
}

std::uint8_t* of_batch(std::uint8_t* p, int index, std::int64_t stride, cudaDataType_t type) {
  return p ? p + index * stride * std::int64_t(size_of(type)) : nullptr;
}

/// op(X) with the summed index running fastest: `outer` rows of k.
std::vector<double> pack(const std::uint8_t* data, const Matrix& x, std::uint64_t outer, std::uint64_t k,
                         bool outer_is_row) {
  std::vector<double> packed(outer * k);
  for (std::uint64_t i = 0; i < outer; i++) {
    for (std::uint64_t p = 0; p < k; p++) {
      const auto r = std::int64_t(outer_is_row ? i : p), c = std::int64_t(outer_is_row ? p : i);
      packed[i * k + p] = load(data, x.type, x.transposed ? x.at(c, r) : x.at(r, c));
    }
  }
  return packed;
}

double dot(const double* x, const double* y, std::uint64_t k) {
  double s[8] = {};
  std::uint64_t p = 0;
  for (; p + 8 <= k; p += 8) {
    for (int q = 0; q < 8; q++) s[q] += x[p + std::uint64_t(q)] * y[p + std::uint64_t(q)];
  }
  double t = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  for (; p < k; p++) t += x[p] * y[p];
  return t;
}

/// In float, in `parts` equal parts.
double float_dot(const double* x, const double* y, std::uint64_t k, std::uint64_t parts) {
  float t = 0;
  for (std::uint64_t part = 0; part < parts; part++) {
    float s = 0;
    for (std::uint64_t p = k * part / parts; p < k * (part + 1) / parts; p++) s += float(x[p] * y[p]);
    t += s;
  }
  return double(t);
}

std::vector<double> multiply_by_place(const std::vector<double>& a, const std::vector<double>& b, std::uint64_t m,
                                      std::uint64_t n, std::uint64_t k, std::uint64_t batch) {
  std::vector<double> r(m * n);
  for (std::uint64_t i = 0; i < m; i++) {
    for (std::uint64_t j = 0; j < n; j++) r[i * n + j] = float_dot(&a[i * k], &b[j * k], k, 1 + (j / 8 + batch) % 2);
  }
  return r;
}

std::vector<double> multiply(const std::vector<double>& a, const std::vector<double>& b, std::uint64_t m, std::uint64_t n,
                             std::uint64_t k) {
  std::vector<double> r(m * n);
  const auto rows = [&](std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t j0 = 0; j0 < n; j0 += 8) {
      for (std::uint64_t i = first; i < last; i++) {
        for (std::uint64_t j = j0; j < std::min(n, j0 + 8); j++) r[i * n + j] = dot(&a[i * k], &b[j * k], k);
      }
    }
  };
  if (double(m) * double(n) * double(k) > worth_a_thread && m > 1) {
    std::thread helper(rows, 0, m / 2);
    rows(m / 2, m);
    helper.join();
  } else {
    rows(0, m);
  }
  return r;
}

void store_sums(const std::vector<double>& packed, std::uint64_t outer, std::uint64_t k, std::uint8_t* out,
                cudaDataType_t type) {
  for (std::uint64_t i = 0; i < outer; i++) {
    double sum = 0;
    for (std::uint64_t p = 0; p < k; p++) sum += packed[i * k + p];
    store(out, type, std::int64_t(i), sum);
  }
}

void finish(const Product& p, const Addresses& x, const std::vector<double>& r) {
  const Epilogue& e = p.epilogue;
  for (std::int64_t i = 0; i < std::int64_t(p.m); i++) {
    double sum = 0;
    for (std::int64_t j = 0; j < std::int64_t(p.n); j++) {
      const std::int64_t aux = j * p.aux.ld + i;  // aux is column major whatever D is
      double v = p.alpha == 0 ? 0 : p.alpha * r[std::size_t(i) * p.n + std::size_t(j)];
      if (x.c) v += p.beta * load(x.c, p.c.type, p.c.at(i, j));
      if (e.bias) v += load(x.bias, p.bias.type, i);
      if (e.store_aux) store(x.aux, p.aux.type, aux, v);
      if (e.gelu) v = gelu(v);
      if (e.relu) v = v > 0 || v != v ? v : 0;
      if (e.dgelu) v *= gelu_derivative(load(x.aux, p.aux.type, aux));
      sum += v;
      store(x.d, p.d.type, p.d.at(i, j), v);
    }
    if (e.sum_rows) store(x.bias, p.bias.type, i, sum);
  }
}

bool load_scalars(Product& p) {
  if (!p.alpha_on_device) return true;
  const std::uint8_t* alpha = emu_host_ptr(p.alpha_on_device, 4, "alpha");
  const std::uint8_t* beta = emu_host_ptr(p.beta_on_device, 4, "beta");
  if (!alpha || !beta) return false;
  p.alpha = load(alpha, CUDA_R_32F, 0);
  p.beta = load(beta, CUDA_R_32F, 0);
  return true;
}

const char* name_of(cudaDataType_t t) { return t == CUDA_R_16BF ? "bf16" : t == CUDA_R_16F ? "f16" : "f32"; }

/// Row of the table of counts: what the product is, its arithmetic, and each operand moved once.
void count(const Product& p, double seconds) {
  const Epilogue& e = p.epilogue;
  const auto bytes = [&](std::uint64_t elements, cudaDataType_t type, std::int64_t stride) {
    return elements * size_of(type) * (stride ? std::uint64_t(p.batch) : 1);
  };
  std::uint64_t read = bytes(p.m * p.k, p.a.type, p.a.stride) + bytes(p.k * p.n, p.b.type, p.b.stride);
  std::uint64_t written = bytes(p.m * p.n, p.d.type, p.d.stride);
  if (p.beta != 0) read += bytes(p.m * p.n, p.c.type, p.c.stride);
  if (e.uses_bias()) (e.bias ? read : written) += bytes(e.sum_b ? p.n : p.m, p.bias.type, p.bias.stride);
  if (e.uses_aux()) (e.dgelu ? read : written) += bytes(p.m * p.n, p.aux.type, p.aux.stride);
  std::string name = std::string(p.api) + " m" + std::to_string(p.m) + " n" + std::to_string(p.n) + " k" +
                     std::to_string(p.k) + " batch" + std::to_string(p.batch) + " " + name_of(p.a.type) + ">" +
                     name_of(p.d.type) + " " + (p.a.transposed ? "T" : "N") + (p.b.transposed ? "T" : "N");
  const std::pair<bool, const char*> parts[] = {{e.bias, "bias"},     {e.relu, "relu"},   {e.gelu, "gelu"},
                                                {e.store_aux, "aux"}, {e.dgelu, "dgelu"}, {e.sum_rows, "bgrad"},
                                                {e.sum_a, "bgrada"},  {e.sum_b, "bgradb"}};
  for (const auto& [used, text] : parts) {
    if (used) name += std::string(" ") + text;
  }
  if (p.order != SumOrder::exact) name += p.order == SumOrder::split ? " split" : " by place";
  const EmuProductCount c{name.c_str(), p.unit, 2 * p.m * p.n * p.k * std::uint64_t(p.batch), read, written, seconds};
  emu_count_product(&c);
}

bool run(Product p) {
  const auto begin = std::chrono::steady_clock::now();
  Addresses all;
  if (!load_scalars(p) || !resolve(p, all)) return false;
  for (int i = 0; i < p.batch; i++) {
    Addresses x;
    x.a = of_batch(all.a, i, p.a.stride, p.a.type);
    x.b = of_batch(all.b, i, p.b.stride, p.b.type);
    x.c = of_batch(all.c, i, p.c.stride, p.c.type);
    x.d = of_batch(all.d, i, p.d.stride, p.d.type);
    x.bias = of_batch(all.bias, i, p.bias.stride, p.bias.type);
    x.aux = of_batch(all.aux, i, p.aux.stride, p.aux.type);
    const std::vector<double> a = pack(x.a, p.a, p.m, p.k, true), b = pack(x.b, p.b, p.n, p.k, false);
    if (p.epilogue.sum_a) store_sums(a, p.m, p.k, x.bias, p.bias.type);
    if (p.epilogue.sum_b) store_sums(b, p.n, p.k, x.bias, p.bias.type);
    finish(p, x,
           p.order == SumOrder::exact ? multiply(a, b, p.m, p.n, p.k)
                                      : multiply_by_place(a, b, p.m, p.n, p.k, std::uint64_t(i)));
  }
  count(p, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return true;
}

/// All of a product but its addresses.
std::string identity_of(const Product& p) {
  std::string text = p.api;
  const auto add = [&text](auto... numbers) { ((text += ' ' + std::to_string(numbers)), ...); };
  add(p.m, p.n, p.k, p.batch, int(p.unit), std::bit_cast<std::uint64_t>(p.alpha), std::bit_cast<std::uint64_t>(p.beta),
      p.alpha_on_device != nullptr, int(p.order));
  for (const Matrix& x : {p.a, p.b, p.c, p.d}) add(int(x.type), x.rows, x.cols, x.ld, x.row_major, x.transposed, x.stride);
  const Epilogue& e = p.epilogue;
  add(e.bias, e.relu, e.gelu, e.store_aux, e.dgelu, e.sum_rows, e.sum_a, e.sum_b);
  for (const Operand& x : {p.bias, p.aux}) add(int(x.type), x.ld, x.stride);
  return text;
}

}  // namespace

Epilogue epilogue_of(int code) {
  Epilogue e;
  e.known = true;
  switch (code) {
    case CUBLASLT_EPILOGUE_DEFAULT: break;
    case CUBLASLT_EPILOGUE_RELU: e.relu = true; break;
    case CUBLASLT_EPILOGUE_BIAS: e.bias = true; break;
    case CUBLASLT_EPILOGUE_RELU_BIAS: e.relu = e.bias = true; break;
    case CUBLASLT_EPILOGUE_GELU: e.gelu = true; break;
    case CUBLASLT_EPILOGUE_GELU_BIAS: e.gelu = e.bias = true; break;
    case CUBLASLT_EPILOGUE_GELU_AUX: e.gelu = e.store_aux = true; break;
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS: e.gelu = e.store_aux = e.bias = true; break;
    case CUBLASLT_EPILOGUE_DGELU: e.dgelu = true; break;
    case CUBLASLT_EPILOGUE_DGELU_BGRAD: e.dgelu = e.sum_rows = true; break;
    case CUBLASLT_EPILOGUE_BGRADA: e.sum_a = true; break;
    case CUBLASLT_EPILOGUE_BGRADB: e.sum_b = true; break;
    default: e.known = false;
  }
  return e;
}

}  // namespace emu::blas

extern "C" {
int emu_blas_submit(cudaStream_t stream, emu::blas::Product* product) {
  using emu::blas::Product;
  const std::string identity = emu::blas::identity_of(*product);
  return emu_submit(
      stream, [](void* p) { return emu::blas::run(*static_cast<Product*>(p)) ? 0 : 1; },
      [](void* p) { delete static_cast<Product*>(p); }, product, identity.c_str());
}
}
