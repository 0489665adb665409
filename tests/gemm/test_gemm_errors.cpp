// SPDX-License-Identifier: Apache-2.0
// Everything a GemmSpec is refused for, and that the message says what was expected.
#include <doctest/doctest.h>

#include <functional>

#include "dpmp/gemm/gemm.hpp"

using namespace dpmp;

namespace {
/// The message `change` provokes in a spec that is fine without it; empty if none.
std::string refusal(const std::function<void(GemmSpec&)>& change, GemmBackend backend = GemmBackend::automatic) {
  Context ctx(Device::cpu(), 1);
  static float data[64], other[64];
  GemmSpec s;
  s.m = 2, s.n = 3, s.k = 4, s.batch = 2;
  s.a = {.data = data, .row_stride = 4, .batch_stride = 8};
  s.b = {.data = data, .row_stride = 3, .batch_stride = 12};
  s.out = {.data = other, .row_stride = 3, .batch_stride = 6};
  change(s);
  std::string reference = "none";
  try {
    gemm_reference(s);
    reference.clear();
  } catch (const Error& e) {
    reference = e.message();
  }
  try {
    gemm(ctx, s, backend);
  } catch (const Error& e) {
    if (backend == GemmBackend::automatic) CHECK(e.message() == reference);
    return e.message();
  }
  CHECK(reference.empty());
  return {};
}
bool says(const std::string& message, const char* part) { return message.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("a good spec is accepted") {
  CHECK(refusal([](GemmSpec&) {}).empty());
  CHECK(refusal([](GemmSpec& s) { s.a.batch_stride = s.b.batch_stride = 0; }).empty());
  CHECK(refusal([](GemmSpec& s) { s.out.row_stride = 6, s.out.batch_stride = 3; }).empty());
  CHECK(refusal([](GemmSpec& s) { s.m = 0, s.a.data = s.b.data = s.out.data = nullptr; }).empty());
  CHECK(refusal([](GemmSpec& s) { s.k = 0, s.a.data = s.b.data = nullptr; }).empty());
}

TEST_CASE("the sums of rows are refused beside all that they cannot stand beside") {
  static float sums[4];
  const auto sum = [](GemmSpec& s) { s.a.transposed = true, s.a.row_stride = 2, s.row_sums = sums; };
  CHECK(refusal(sum).empty());
  const std::function<void(GemmSpec&)> beside[] = {
      [](GemmSpec& s) { s.a.transposed = false, s.a.row_stride = 4; },
      [](GemmSpec& s) { s.alpha = 2; },
      [](GemmSpec& s) { s.accumulate = true; },
      [](GemmSpec& s) { s.bias = s.a.data; },
      [](GemmSpec& s) { s.activation = GemmActivation::gelu_erf; },
      [](GemmSpec& s) { s.activation = GemmActivation::gelu_erf, s.slope_at = s.a.data; },
      [](GemmSpec& s) { s.residual = s.a.data, s.residual_row_stride = 3; },
  };
  for (const auto& change : beside)
    CHECK(says(refusal([&](GemmSpec& s) { sum(s), change(s); }), "a transposed operand a, alpha = 1, no epilogue"));
}

TEST_CASE("the squares of rows are refused beside an epilogue and a sum that is continued") {
  static double squares[4];
  CHECK(refusal([](GemmSpec& s) { s.row_squares = squares; }).empty());
  const std::function<void(GemmSpec&)> beside[] = {
      [](GemmSpec& s) { s.accumulate = true; },
      [](GemmSpec& s) { s.bias = s.a.data; },
      [](GemmSpec& s) { s.activation = GemmActivation::gelu_erf; },
      [](GemmSpec& s) { s.activation = GemmActivation::gelu_erf, s.slope_at = s.a.data; },
      [](GemmSpec& s) { s.residual = s.a.data, s.residual_row_stride = 3; },
  };
  for (const auto& change : beside)
    CHECK(says(refusal([&](GemmSpec& s) { s.row_squares = squares, change(s); }), "in a gemm that squares its rows"));
}

TEST_CASE("bad specs are refused") {
  CHECK(says(refusal([](GemmSpec& s) { s.m = -1; }), "extents >= 0"));
  CHECK(says(refusal([](GemmSpec& s) { s.batch = -2; }), "batch = -2"));
  CHECK(says(refusal([](GemmSpec& s) { s.a.dtype = DType::bf16; }), "one real dtype, got bf16 and f32"));
  CHECK(says(refusal([](GemmSpec& s) { s.a.dtype = s.b.dtype = DType::i32; }), "one real dtype"));
  CHECK(says(refusal([](GemmSpec& s) { s.out.dtype = DType::bf16; }), "output of dtype f32"));
  CHECK(says(refusal([](GemmSpec& s) { s.out.dtype = DType::bf16; }), "output of dtype f32, f32 or f64"));
  CHECK(says(refusal([](GemmSpec& s) { s.a.dtype = s.b.dtype = DType::f64; }), "output of dtype f64"));
  CHECK(says(refusal([](GemmSpec& s) { s.a.row_stride = 3; }), "operand a, got 3"));
  CHECK(says(refusal([](GemmSpec& s) { s.b.transposed = true; }), "row stride >= 4"));
  CHECK(says(refusal([](GemmSpec& s) { s.b.batch_stride = -1; }), "batch stride >= 0 for gemm operand b"));
  CHECK(says(refusal([](GemmSpec& s) { s.a.data = nullptr; }), "data for gemm operand a"));
  CHECK(says(refusal([](GemmSpec& s) { s.out.data = nullptr; }), "data for the gemm output"));
  CHECK(says(refusal([](GemmSpec& s) { s.out.row_stride = 2; }), "row stride >= n = 3"));
  CHECK(says(refusal([](GemmSpec& s) { s.out.batch_stride = 0; }), "do not overlap"));
  CHECK(says(refusal([](GemmSpec& s) { s.out.batch_stride = 5; }), "do not overlap"));
  CHECK(says(refusal([](GemmSpec& s) { s.a.dtype = s.b.dtype = s.out.dtype = DType::bf16, s.accumulate = true; }),
             "dtype f32 or f64 to accumulate"));
  CHECK(says(refusal([](GemmSpec& s) { s.accumulate = true, s.bias = s.a.data; }), "no bias"));
  CHECK(says(refusal([](GemmSpec& s) { s.activation_input = s.out.data; }), "expected an activation"));
  CHECK(says(refusal([](GemmSpec& s) { s.activation = GemmActivation::gelu_erf, s.activation_input = s.out.data; }),
             "storage of its own"));
  CHECK(says(refusal([](GemmSpec& s) { s.slope_at = s.a.data; }), "an activation whose derivative"));
  CHECK(
      says(refusal([](GemmSpec& s) { s.activation = GemmActivation::gelu_tanh, s.slope_at = s.a.data, s.bias = s.a.data; }),
           "no bias, residual or saved input"));
  CHECK(says(refusal([](GemmSpec& s) { s.activation = GemmActivation::gelu_tanh, s.slope_at = s.out.data; }),
             "storage of its own for the numbers"));
  CHECK(says(refusal([](GemmSpec& s) { s.residual = s.a.data; }), "gemm residual"));
  CHECK(says(refusal([](GemmSpec& s) { s.residual = s.a.data, s.residual_row_stride = 3, s.residual_batch_stride = -3; }),
             "gemm residual"));
}

TEST_CASE("a backend that cannot is refused") {
  if (!detail::has_onednn) CHECK(says(refusal([](GemmSpec&) {}, GemmBackend::onednn), "backend of this build"));
  if (detail::has_onednn)
    CHECK(says(refusal([](GemmSpec& s) { s.a.dtype = s.b.dtype = s.out.dtype = DType::f64, s.m = 0; }, GemmBackend::onednn),
               "got f64"));
}
