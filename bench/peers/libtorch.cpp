// SPDX-License-Identifier: Apache-2.0
// The shapes of bench_cuda_kernels with LibTorch: a Markdown table, and the same rows as JSON. Per-sample norms are what one
// writes without a kernel of one's own: the Gram matrices or the per-sample gradients stand in memory. Where these do not
// fit, samples are taken a few at a time.
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>

#include "../cuda/report.hpp"
#include "torch_suite.hpp"

namespace {
using namespace bench;

/// Bytes that a per-sample intermediate may take.
constexpr index_t limit = index_t(8) << 30;

/// |sum_t b_t a_t^T|^2 of each sample as <A A^T, B B^T>; the Grams in FP32 sums, stored in the dtype of a.
at::Tensor ghost_squares(const at::Tensor& a, const at::Tensor& b) {
  const index_t tokens = a.size(1), each = std::max<index_t>(1, limit / (2 * tokens * tokens * a.element_size()));
  const std::vector<at::Tensor> x = a.split(each), y = b.split(each);
  std::vector<at::Tensor> squares;
  for (std::size_t k = 0; k < x.size(); ++k)
    squares.push_back(at::einsum("bts,bts->b", {x[k].matmul(x[k].mT()), y[k].matmul(y[k].mT())}));
  return at::cat(squares);
}

/// The same by forming every sample's gradient.
at::Tensor instantiated_squares(const at::Tensor& a, const at::Tensor& b) {
  const index_t each = std::max<index_t>(1, limit / (a.size(2) * b.size(2) * a.element_size()));
  const std::vector<at::Tensor> x = a.split(each), y = b.split(each);
  std::vector<at::Tensor> squares;
  for (std::size_t k = 0; k < x.size(); ++k)
    squares.push_back(at::bmm(y[k].mT(), x[k]).square().sum({1, 2}, false, at::kFloat));
  return at::cat(squares);
}

/// sum_i c_i G_i as one product: what book-keeping libraries do. The scaled b is rounded to its dtype.
at::Tensor weighted_sum(const at::Tensor& a, const at::Tensor& b, const at::Tensor& factors) {
  const at::Tensor scaled = b * factors.view({-1, 1, 1});
  return scaled.flatten(0, 1).mT().matmul(a.flatten(0, 1));
}

/// The private work of one matrix [p, d].
void norms_and_sums(TorchSuite& suite, index_t samples, index_t tokens, index_t d, index_t p, at::ScalarType dtype) {
  const at::Tensor a = suite.random({samples, tokens, d}, dtype), b = suite.random({samples, tokens, p}, dtype);
  const at::Tensor factors = (at::arange(samples, suite.options) % 3 / 2).to(dtype);
  const index_t shape[] = {samples, tokens, d, p};
  const char* name = dtype == at::kFloat ? "f32" : "bf16";
  suite.add("ghost_norm", shape, name, [&] { ghost_squares(a, b); });
  suite.add("instantiate_norm", shape, name, [&] { instantiated_squares(a, b); });
  suite.add("weighted_sum", shape, name, [&] { weighted_sum(a, b, factors); });
}

/// A forward pass as it is without training, and the backward pass alone from a graph that is kept.
void add_both(TorchSuite& suite, const std::string& name, at::IntArrayRef shape, const std::vector<at::Tensor>& inputs,
              const at::Tensor& gradient, const auto& forward) {
  {
    const c10::NoGradGuard no_graph;
    suite.add(name + "_forward", shape, "bf16", forward);
  }
  const at::Tensor y = forward();
  suite.add(name + "_backward", shape, "bf16", [&] { torch::autograd::grad({y}, inputs, {gradient}, true); });
}

/// Causal attention.
void attention(TorchSuite& suite, index_t samples, index_t tokens, index_t heads, index_t width) {
  const index_t extents[] = {samples, heads, tokens, width};
  const at::Tensor q = suite.random_leaf(extents), k = suite.random_leaf(extents), v = suite.random_leaf(extents);
  add_both(suite, "attention", {samples, tokens, heads, width}, {q, k, v}, suite.random(extents),
           [&] { return at::scaled_dot_product_attention(q, k, v, {}, 0.0, true); });
}

/// All of the backward pass in one row: the sums over samples are not per-sample ones.
void layer_norm(TorchSuite& suite, index_t samples, index_t tokens, index_t width) {
  const index_t shape[] = {samples, tokens, width};
  const at::Tensor x = suite.random_leaf(shape), gain = suite.random_leaf({width}), bias = suite.random_leaf({width});
  add_both(suite, "layer_norm", shape, {x, gain, bias}, suite.random(shape),
           [&] { return at::layer_norm(x, {width}, gain, bias); });
}

/// Losses of tokens and their gradient.
void cross_entropy(TorchSuite& suite, index_t samples, index_t tokens, index_t classes) {
  const index_t count = samples * tokens;
  const at::Tensor logits = suite.random_leaf({count, classes});
  const at::Tensor targets = at::arange(count, suite.options) * 7919 % classes;
  add_both(suite, "cross_entropy", {samples, tokens, classes}, {logits},
           at::ones({count}, suite.options.dtype(at::kBFloat16)),
           [&] { return at::cross_entropy_loss(logits, targets, {}, at::Reduction::None); });
}

/// AdamW on FP32 weights, and with noise of a normal generator before it. The kernel is the fused one of LibTorch, which is
/// what PyTorch's AdamW(fused=True) runs on both devices; torch::optim::AdamW of C++ would take a dozen kernels instead.
void update(TorchSuite& suite, index_t n) {
  const at::Tensor weight = suite.random({n}, at::kFloat), gradient = suite.random({n}, at::kFloat);
  const at::Tensor mean = at::zeros_like(weight), square = at::zeros_like(weight), steps = at::zeros({}, suite.options);
  const auto adamw = [&] {
    at::_foreach_add_({steps}, 1);
    at::_fused_adamw_({weight}, {gradient}, {mean}, {square}, {}, {steps}, 1e-3, 0.9, 0.999, 1e-2, 1e-8, false, false);
  };
  suite.add("update, adamw", {n}, "f32", adamw);
  suite.add("noise and update, adamw", {n}, "f32", [&] {
    gradient.add_(at::randn_like(weight), 2.0);
    adamw();
  });
}

/// y = x W^T, its gradients, and the per-sample gradients of W; gradients also with those of a bias.
void products(TorchSuite& suite, index_t samples, index_t tokens, index_t d, index_t p) {
  const index_t rows = samples * tokens;
  const at::Tensor x = suite.random({rows, d}), w = suite.random({p, d}), g = suite.random({rows, p});
  const at::Tensor xs = x.view({samples, tokens, d}), gs = g.view({samples, tokens, p});
  suite.add("gemm, forward", {1, rows, p, d}, "bf16", [&] { x.matmul(w.mT()); });
  suite.add("gemm, input gradient", {1, rows, d, p}, "bf16", [&] { g.matmul(w); });
  suite.add("gemm, weight gradient", {1, p, d, rows}, "bf16", [&] { g.mT().matmul(x); });
  suite.add("gemm, weight and bias gradient", {1, p, d, rows}, "bf16", [&] {
    g.mT().matmul(x);
    g.sum(0);
  });
  suite.add("gemm, per-sample gradients", {samples, p, d, tokens}, "bf16", [&] { at::bmm(gs.mT(), xs); });
  suite.add("gemm, per-sample gradients with biases", {samples, p, d, tokens}, "bf16", [&] {
    at::bmm(gs.mT(), xs);
    gs.sum(1);
  });
}

/// The shapes of bench_cuda_kernels --tiny.
void measure_tiny(TorchSuite& suite) {
  suite.group("norms and sums", norms_and_sums, 2, 128, 64, 192, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 2, 64, 64, 64, at::kFloat);
  suite.group("attention", attention, 2, 128, 2, 64);
  suite.group("layer_norm", layer_norm, 2, 16, 64);
  suite.group("cross_entropy", cross_entropy, 2, 8, 512);
  suite.group("update", update, 4096);
  suite.group("gemm", products, 2, 64, 32, 48);
}

/// The shapes of bench_cuda_kernels.
void measure_all(TorchSuite& suite) {
  suite.group("norms and sums", norms_and_sums, 32, 1024, 768, 768, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 32, 1024, 768, 2304, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 32, 1024, 768, 3072, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 32, 1024, 3072, 768, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 128, 256, 768, 2304, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 4, 1024, 768, 50304, at::kBFloat16);
  suite.group("norms and sums", norms_and_sums, 4, 1024, 768, 2304, at::kFloat);
  suite.group("attention", attention, 32, 1024, 12, 64);
  suite.group("layer_norm", layer_norm, 32, 1024, 768);
  suite.group("cross_entropy", cross_entropy, 8, 1024, 50304);
  suite.group("update", update, 24 << 20);
  suite.group("gemm", products, 32, 1024, 768, 2304);
}

void run(const std::string& device, bool tiny, int repetitions, const std::string& only, const std::string& json) {
  const TorchDevice found = torch_device(device == "cuda");
  // FP32 products as dpmp makes them: no TF32.
  at::globalContext().setAllowTF32CuBLAS(false);
  TorchSuite suite(found, repetitions, only);
  if (tiny)
    measure_tiny(suite);
  else
    measure_all(suite);
  std::printf("LibTorch " TORCH_VERSION ", %s; median of %d\n\n", found.name.c_str(), repetitions);
  std::printf("| kernel | shape | dtype | cold us | hot us |\n|---|---|---|---|---|\n");
  nlohmann::json rows = nlohmann::json::array();
  for (const TorchRow& r : suite.rows) {
    std::printf("| %s | %s | %s | %.1f | %.1f |\n", r.kernel.c_str(), r.shape.c_str(), r.dtype.c_str(), r.cold_us, r.hot_us);
    rows.push_back(
        {{"kernel", r.kernel}, {"shape", r.shape}, {"dtype", r.dtype}, {"cold_us", r.cold_us}, {"hot_us", r.hot_us}});
  }
  if (!json.empty())
    write_json(json, {{"program", "kernels"},
                      {"implementation", "LibTorch " TORCH_VERSION},
                      {"device", {{"name", found.name}}},
                      {"rows", rows}});
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times of LibTorch at the shapes of bench_cuda_kernels, as a Markdown table");
  std::string device = "cuda", only, json;
  bool tiny = false;
  int repetitions = 20;
  app.add_option("--device", device)->check(CLI::IsMember({"cuda", "cpu"}))->capture_default_str();
  app.add_flag("--tiny", tiny, "the shapes of bench_cuda_kernels --tiny, one repetition");
  const auto repetitions_option = app.add_option("--repetitions", repetitions, "a time is the median of so many")
                                      ->check(CLI::PositiveNumber)
                                      ->capture_default_str();
  app.add_option("--only", only, "kernels whose name contains this text");
  app.add_option("--json", json, "also write the rows to this file");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (tiny && repetitions_option->count() == 0) repetitions = 1;
  try {
    run(device, tiny, repetitions, only, json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_libtorch: %s\n", e.what());
    return 1;
  }
}
