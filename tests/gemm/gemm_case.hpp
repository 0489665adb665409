// SPDX-License-Identifier: Apache-2.0
// A random product with its storage, its exact answer and the error its dtypes and length allow.
#pragma once
#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "dpmp/gemm/gemm.hpp"
#include "support/random.hpp"

namespace test {
using namespace dpmp;

/// Elements of any real dtype, written and read as double.
class Elements {
 public:
  Elements() = default;
  Elements(DType dtype, index_t n) : dtype_(dtype), bytes_(std::size_t(n * size_of(dtype)), 0xff) {}  // NaN in every dtype
  index_t size() const { return index_t(bytes_.size()) / size_of(dtype_); }
  void* data() { return bytes_.data(); }
  const std::vector<unsigned char>& bytes() const { return bytes_; }
  double get(index_t i) const {
    return dispatch_real(dtype_, [&](auto tag) {
      typename decltype(tag)::type x;
      std::memcpy(&x, bytes_.data() + std::size_t(i) * sizeof x, sizeof x);
      return double(to_float(x));
    });
  }
  void set(index_t i, double value) {
    dispatch_real(dtype_, [&](auto tag) {
      const auto x = dpmp::detail::round_once<typename decltype(tag)::type>(value);
      std::memcpy(bytes_.data() + std::size_t(i) * sizeof x, &x, sizeof x);
    });
  }

 private:
  DType dtype_ = DType::f32;
  std::vector<unsigned char> bytes_;
};

/// Strides of `batch` matrices of rows x columns, and the elements they span.
struct Layout {
  index_t row_stride = 0, batch_stride = 0, size = 0;
  static Layout random(Rng& rng, index_t batch, index_t rows, index_t columns, bool may_share) {
    Layout l;
    const index_t kind = rng.integer(0, 3), pad = rng.integer(0, 1) * rng.integer(0, 9);
    if (kind == 0 && batch > 0) {  // beside each other, like packed heads
      l.batch_stride = columns + pad;
      l.row_stride = batch * l.batch_stride + rng.integer(0, 3);
    } else {
      l.row_stride = columns + pad;
      l.batch_stride = rows * l.row_stride + (kind == 1 ? rng.integer(0, 20) : 0);
    }
    if (may_share && rng.integer(0, 3) == 0) l.batch_stride = 0;
    if (rows > 0 && columns > 0 && batch > 0) l.size = (batch - 1) * l.batch_stride + (rows - 1) * l.row_stride + columns;
    return l;
  }
};

enum class Addend { none, apart, in_place };

/// The choices of a Case beside its layout. `integers`: small whole numbers, so that every order of summation is exact and
/// results must be equal.
struct Options {
  DType dtype = DType::f32, out = DType::f32;
  index_t m = 0, n = 0, k = 0, batch = 1;
  bool a_transposed = false, b_transposed = false, integers = false, accumulate = false, bias = false, save = false;
  bool row_sums = false;  // of op(a): a is transposed, and there is nothing but the product
  bool row_squares = false;
  bool slope = false;  // multiplied by the activation's derivative: no bias, nothing saved or added
  float alpha = 1;
  GemmActivation activation = GemmActivation::none;
  Addend addend = Addend::none;

  static Options random(Rng& rng, DType dtype, index_t m, index_t n, index_t k, index_t batch) {
    Options o{
        .dtype = dtype, .out = rng.integer(0, 1) ? dtype : accumulate_dtype(dtype), .m = m, .n = n, .k = k, .batch = batch};
    o.a_transposed = rng.integer(0, 1), o.b_transposed = rng.integer(0, 1), o.integers = rng.integer(0, 1);
    const double alphas[] = {1, 1, 1, 0.125, -0.75, o.integers ? 2 : 0.7, 0};
    o.alpha = float(alphas[rng.integer(0, 6)]);
    o.accumulate = o.out == accumulate_dtype(dtype) && rng.integer(0, 2) == 0;
    if (o.accumulate) return o;
    o.row_squares = rng.integer(0, 4) == 0;
    if (rng.integer(0, 4) == 0) o.sum_rows();
    if (o.row_sums || o.row_squares) return o;
    o.bias = rng.integer(0, 1);
    o.activation = GemmActivation(std::max<index_t>(0, rng.integer(-1, 2)));
    o.save = o.activation != GemmActivation::none && rng.integer(0, 1);
    o.addend = Addend(rng.integer(0, 2));
    if (o.activation != GemmActivation::none && rng.integer(0, 2) == 0) o.take_slope();
    return o;
  }
  void sum_rows() {
    row_sums = a_transposed = true;
    alpha = 1;
  }
  void take_slope() {
    slope = true, bias = save = false;
    addend = Addend::none;
  }
};

struct Case {
  GemmSpec spec;
  Elements a, b, out, bias, residual, saved, slope_at, row_sums, row_squares;
  Layout out_layout;
  bool integers = false;

  Case(Rng& rng, const Options& o) : integers(o.integers), in_place_(o.addend == Addend::in_place) {
    GemmSpec& s = spec;
    s.m = o.m, s.n = o.n, s.k = o.k, s.batch = o.batch;
    s.a.dtype = s.b.dtype = o.dtype;
    s.out.dtype = o.out;
    s.a.transposed = o.a_transposed, s.b.transposed = o.b_transposed;
    s.alpha = o.alpha, s.accumulate = o.accumulate, s.activation = o.activation;
    const auto number = [&] { return integers ? double(rng.integer(-3, 3)) : rng.normal(); };
    const auto fill = [&](Elements& x, DType t, index_t size) {
      x = Elements(t, size);
      for (index_t i = 0; i < size; ++i) x.set(i, number());
    };
    const Layout la = Layout::random(rng, o.batch, o.a_transposed ? o.k : o.m, o.a_transposed ? o.m : o.k, true);
    const Layout lb = Layout::random(rng, o.batch, o.b_transposed ? o.n : o.k, o.b_transposed ? o.k : o.n, true);
    out_layout = Layout::random(rng, o.batch, o.m, o.n, false);
    fill(a, o.dtype, la.size);
    fill(b, o.dtype, lb.size);
    s.a.row_stride = la.row_stride, s.a.batch_stride = la.batch_stride;
    s.b.row_stride = lb.row_stride, s.b.batch_stride = lb.batch_stride;
    s.out.row_stride = out_layout.row_stride, s.out.batch_stride = out_layout.batch_stride;
    out = Elements(o.out, out_layout.size);
    if (o.accumulate || in_place_) each([&](index_t, index_t, index_t, index_t at) { out.set(at, 8 * number()); });
    if (o.bias) fill(bias, o.dtype, o.n);
    if (o.save) saved = Elements(o.out, out_layout.size);
    if (o.slope) fill(slope_at, o.out, out_layout.size);
    if (o.row_sums) row_sums = Elements(o.out, o.batch * o.m);
    if (o.row_squares) row_squares = Elements(DType::f64, o.batch * o.m);
    const Layout lr = o.addend == Addend::apart ? Layout::random(rng, o.batch, o.m, o.n, true) : out_layout;
    if (o.addend == Addend::apart) fill(residual, o.out, lr.size);
    s.residual_row_stride = lr.row_stride, s.residual_batch_stride = lr.batch_stride;
    bind();
  }
  Case(const Case& o)
      : spec(o.spec),
        a(o.a),
        b(o.b),
        out(o.out),
        bias(o.bias),
        residual(o.residual),
        saved(o.saved),
        slope_at(o.slope_at),
        row_sums(o.row_sums),
        row_squares(o.row_squares),
        out_layout(o.out_layout),
        integers(o.integers),
        in_place_(o.in_place_) {
    bind();
  }
  Case& operator=(const Case&) = delete;

  /// f(batch, row, column, element of out) for every element of the result.
  template <class F>
  void each(F&& f) const {
    for (index_t i = 0; i < spec.batch; ++i)
      for (index_t r = 0; r < spec.m; ++r)
        for (index_t j = 0; j < spec.n; ++j) f(i, r, j, i * out_layout.batch_stride + r * out_layout.row_stride + j);
  }
  std::string describe() const {
    const GemmSpec& s = spec;
    return dpmp::detail::concat(s.a.dtype, " -> ", s.out.dtype, ", m ", s.m, " n ", s.n, " k ", s.k, " batch ", s.batch,
                                " ta ", s.a.transposed, " tb ", s.b.transposed, " strides a ", s.a.row_stride, ',',
                                s.a.batch_stride, " b ", s.b.row_stride, ',', s.b.batch_stride, " out ", s.out.row_stride,
                                ',', s.out.batch_stride, " alpha ", s.alpha, " accumulate ", s.accumulate, " bias ",
                                s.bias != nullptr, " activation ", int(s.activation), " saved ",
                                s.activation_input != nullptr, " slope ", s.slope_at != nullptr, " row sums ",
                                s.row_sums != nullptr, " row squares ", s.row_squares != nullptr, " residual ",
                                s.residual != nullptr, " in place ", in_place_, " integers ", integers);
  }

 private:
  void bind() {
    const auto pointer = [](Elements& x) { return x.size() ? x.data() : nullptr; };
    spec.a.data = pointer(a), spec.b.data = pointer(b), spec.out.data = pointer(out), spec.bias = pointer(bias);
    spec.residual = in_place_ ? pointer(out) : pointer(residual), spec.activation_input = pointer(saved);
    spec.slope_at = pointer(slope_at), spec.row_sums = pointer(row_sums);
    spec.row_squares = static_cast<double*>(pointer(row_squares));
  }
  bool in_place_ = false;
};

/// |alpha| |op(a)| |op(b)| + |bias| + |what is added|, laid out like the case's output; the sums of |op(a)|'s rows into
/// row_sums.
inline Elements magnitudes(const Case& c, bool with_residual, Elements* row_sums = nullptr) {
  const auto absolute = [](const Elements& x) {
    Elements y(DType::f64, x.size());
    for (index_t i = 0; i < x.size(); ++i) y.set(i, std::abs(x.get(i)));
    return y;
  };
  GemmSpec s = c.spec;
  Elements a = absolute(c.a), b = absolute(c.b), bias = absolute(c.bias),
           residual = absolute(c.spec.residual == c.spec.out.data ? c.out : c.residual);
  Elements out = absolute(c.out);
  s.a.data = a.data(), s.b.data = b.data(), s.out.data = out.data();
  s.a.dtype = s.b.dtype = s.out.dtype = DType::f64;
  s.alpha = std::abs(s.alpha);
  s.bias = s.bias ? bias.data() : nullptr;
  s.residual = s.residual && with_residual ? residual.data() : nullptr;
  s.activation = GemmActivation::none;
  s.activation_input = nullptr;
  s.slope_at = nullptr;
  Elements sums(DType::f64, c.row_sums.size());
  s.row_sums = sums.size() ? sums.data() : nullptr;
  s.row_squares = nullptr;
  gemm_reference(s);
  if (row_sums) *row_sums = sums;
  return out;
}

/// What a product must give, and how far from it rounding may lead.
struct Expectation {
  const Case before;
  Case want;
  Elements row_sums, sums, all;
  explicit Expectation(const Case& c) : before(c), want(c), sums(magnitudes(c, false)), all(magnitudes(c, true, &row_sums)) {
    gemm_reference(want.spec);
  }
};

/// Checks what `got` holds: values within bounds (equal for integers), padding untouched. rounded_first: the activation is
/// applied to exactly the number that is saved.
inline void check_result(const Expectation& expected, const Case& got, bool rounded_first = true) {
  const Case& before = expected.before;
  const Case& want = expected.want;
  const Elements &sums = expected.sums, &all = expected.all;
  const GemmSpec& s = before.spec;
  const bool activated = s.activation != GemmActivation::none;
  // Sums of k products in any order, plus alpha, bias, addend and the rounding of the reference itself.
  const double u = unit_roundoff(accumulate_dtype(s.a.dtype)), gamma = double(s.k + 6) * u / (1 - double(s.k + 6) * u);
  const double u_out = unit_roundoff(s.out.dtype), tiny = s.out.dtype == DType::f16 ? 0x1p-24 : 0x1p-125;
  double worst = 0;
  bool exactly_activated = true;
  const auto compare = [&](double x, double y, double bound) {
    const double share = x == y ? 0 : std::abs(x - y) / bound;
    worst = share <= worst ? worst : share;  // NaN counts as worst
  };
  std::vector<bool> written(std::size_t(before.out.size()), false);
  const auto rounded = [&](double x) {
    return dispatch_real(
        s.out.dtype, [&](auto tag) { return double(to_float(dpmp::detail::round_once<typename decltype(tag)::type>(x))); });
  };
  INFO(before.describe());
  before.each([&](index_t batch, index_t row, index_t column, index_t at) {
    const index_t beside = batch * s.residual_batch_stride + row * s.residual_row_stride + column;
    written[std::size_t(at)] = true;
    const auto bound = [&](const Elements& magnitude, double value) {
      const double sum_error = 2 * gamma * magnitude.get(at) + double(s.k + 2) * tiny;
      return sum_error + 2 * u_out * (std::abs(value) + sum_error) + tiny;
    };
    const double y = got.out.get(at);
    if (!activated) {
      compare(y, want.out.get(at), before.integers ? 0.0 : bound(all, want.out.get(at)));
      return;
    }
    if (s.slope_at) {  // a derivative of GELU is at most 1.13
      compare(y, want.out.get(at),
              1.13 * bound(sums, sums.get(at)) + 0x1p-20 * (1 + sums.get(at)) + 2 * u_out * std::abs(want.out.get(at)));
      return;
    }
    double pre_error = before.integers ? 0.0 : bound(sums, got.saved.size() ? want.saved.get(at) : sums.get(at));
    if (got.saved.size()) compare(got.saved.get(at), want.saved.get(at), pre_error);
    // Where it does not have to be that of the number saved, the activation is that of the sum or of the sum rounded.
    if (!got.saved.size() || !rounded_first) pre_error = std::max(pre_error, u_out * sums.get(at));
    // Given the saved input, only the function may differ: y lies between the roundings of the ends of its interval.
    const double function_error = 0x1p-20 * (1 + all.get(at));
    if (got.saved.size() && rounded_first) {
      const double added = s.residual ? (s.residual == s.out.data ? before.out.get(at) : before.residual.get(beside)) : 0;
      const double x = got.saved.get(at), exact = dpmp::detail::reference_activation(s.activation, x) + added,
                   slack = 0x1p-20 * (std::abs(x) + std::abs(added));
      exactly_activated = exactly_activated && y >= rounded(exact - slack) && y <= rounded(exact + slack);
    }
    compare(y, want.out.get(at),
            1.13 * pre_error + function_error + 2 * u_out * (std::abs(want.out.get(at)) + 1.13 * pre_error) + tiny);
  });
  for (index_t i = 0; i < got.row_sums.size(); ++i) {
    const double error = 2 * gamma * expected.row_sums.get(i);
    compare(got.row_sums.get(i), want.row_sums.get(i),
            before.integers ? 0.0 : error + 2 * u_out * (std::abs(want.row_sums.get(i)) + error) + tiny);
  }
  if (got.row_squares.size()) {  // of what is in the output, whatever that is
    std::vector<double> squares(std::size_t(s.batch * s.m), 0.0);
    got.each([&](index_t batch, index_t row, index_t, index_t at) {
      squares[std::size_t(batch * s.m + row)] += got.out.get(at) * got.out.get(at);
    });
    for (index_t i = 0; i < got.row_squares.size(); ++i)
      compare(got.row_squares.get(i), squares[std::size_t(i)], double(s.n + 8) * 0x1p-52 * squares[std::size_t(i)]);
  }
  CHECK(worst <= 1);
  CHECK(exactly_activated);
  const auto padding_kept = [&](const Elements& x, const Elements& y) {
    const std::size_t each = std::size_t(size_of(s.out.dtype));
    bool kept = x.size() == y.size();
    for (std::size_t i = 0; kept && i < x.bytes().size(); ++i) kept = written[i / each] || x.bytes()[i] == y.bytes()[i];
    return kept;
  };
  CHECK(padding_kept(before.out, got.out));
  CHECK(padding_kept(before.saved, got.saved));
}

inline std::vector<GemmBackend> backends_for(DType dtype) {
  std::vector<GemmBackend> all{GemmBackend::automatic, GemmBackend::panels, GemmBackend::eigen};
  if (dpmp::detail::has_onednn && dtype != DType::f64) all.push_back(GemmBackend::onednn);
  return all;
}
}  // namespace test
