// SPDX-License-Identifier: Apache-2.0
// The discrete Fourier transform of real sequences in double, with a bound on its rounding error. Our own because of the
// bound, which accounting adds to delta and which has to be that of the code that runs.
#pragma once
#include <cstddef>
#include <vector>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// X_k = sum_j x_j e^(-2 pi i j k / n) of a real x, for k = 0 .. n / 2 (the others are their conjugates). n: a power of two,
/// at least 4.
class RealFourier {
 public:
  struct Spectrum {
    std::vector<double> re, im;  // n / 2 + 1 values
  };
  explicit RealFourier(std::size_t length);
  std::size_t length() const { return 2 * half_; }

  /// Every value within rounding() * (|x_0| + .. + |x_(n-1)|) of the exact one.
  Spectrum forward(const std::vector<double>& x) const;
  /// The x of a spectrum, every value within rounding() * 2 / n * (|X_0| + .. + |X_(n/2)|) of the exact one.
  std::vector<double> inverse(const Spectrum& spectrum) const;
  /// 20 log2(n) 2^-53. Where two halves meet, a sum or difference adds an error of u = 2^-53 of its value, a product of
  /// complex numbers sqrt(5) u (Brent, Percival, Zimmermann 2007). A factor e^(i t) is the product of two, each within 2 u
  /// by the C library, so within 6.3 u: below 10 u of the sum of absolute values a stage. Sums of halves and differences,
  /// which make a real transform of a complex one of half the length, are one more stage and double it.
  double rounding() const { return rounding_; }

 private:
  void transform(std::vector<double>& re, std::vector<double>& im) const;
  std::size_t half_;
  double rounding_;
  std::vector<double> cos_, sin_;  // e^(-2 pi i k / n), k < n / 2
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <bit>
#include <cmath>
#include <numbers>

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline RealFourier::RealFourier(std::size_t length) : half_(length / 2), cos_(half_), sin_(half_) {
  DPMP_CHECK(length >= 4 && std::has_single_bit(length), "expected a power of two of at least 4 values, got ", length);
  rounding_ = 20 * double(std::bit_width(length) - 1) * 0x1p-53;
  struct Unit {
    double re, im;
  };
  // e^(-2 pi i k / n) for k < n / 2, from an angle of at most pi / 4.
  const auto unit = [&](std::size_t k) -> Unit {
    const bool left = k > half_ / 2;
    if (left) k = half_ - k;
    const bool down = k > half_ / 4;
    const double angle = std::numbers::pi * double(down ? half_ / 2 - k : k) / double(half_);
    const double c = std::cos(angle), s = std::sin(angle);
    return {(left ? -1 : 1) * (down ? s : c), -(down ? c : s)};
  };
  const std::size_t fine = std::size_t(1) << (std::bit_width(half_) / 2);
  std::vector<Unit> near;
  for (std::size_t k = 0; k < fine && k < half_; ++k) near.push_back(unit(k));
  for (std::size_t k = 0; k < half_; k += fine) {
    const Unit a = unit(k);
    for (std::size_t j = 0; j < near.size() && k + j < half_; ++j) {
      cos_[k + j] = a.re * near[j].re - a.im * near[j].im;
      sin_[k + j] = a.re * near[j].im + a.im * near[j].re;
    }
  }
}

/// Stockham's algorithm for half_ complex values, in order: four parts at a time, two in the last pass where need be.
DPMP_KEPT_BODY inline void RealFourier::transform(std::vector<double>& re, std::vector<double>& im) const {
  std::vector<double> to_re(half_), to_im(half_);
  std::size_t length = half_, stride = 1;
  for (; length >= 4; length /= 4, stride *= 4) {
    const std::size_t run = length / 4, apart = stride * run;
    for (std::size_t p = 0; p < run; ++p) {
      const std::size_t k = 2 * stride * p;
      const double c1 = cos_[k], s1 = sin_[k], c2 = cos_[2 * k], s2 = sin_[2 * k];
      const double sign = 3 * k < half_ ? 1 : -1, c3 = sign * cos_[3 * k % half_], s3 = sign * sin_[3 * k % half_];
      const double *xr = &re[stride * p], *xi = &im[stride * p];
      double *yr = &to_re[4 * stride * p], *yi = &to_im[4 * stride * p];
      for (std::size_t q = 0; q < stride; ++q) {
        const double ar = xr[q] + xr[q + 2 * apart], ai = xi[q] + xi[q + 2 * apart];
        const double br = xr[q] - xr[q + 2 * apart], bi = xi[q] - xi[q + 2 * apart];
        const double cr = xr[q + apart] + xr[q + 3 * apart], ci = xi[q + apart] + xi[q + 3 * apart];
        const double dr = xr[q + apart] - xr[q + 3 * apart], di = xi[q + apart] - xi[q + 3 * apart];
        const double er = br + di, ei = bi - dr, fr = ar - cr, fi = ai - ci, gr = br - di, gi = bi + dr;
        yr[q] = ar + cr;
        yi[q] = ai + ci;
        yr[q + stride] = er * c1 - ei * s1;
        yi[q + stride] = er * s1 + ei * c1;
        yr[q + 2 * stride] = fr * c2 - fi * s2;
        yi[q + 2 * stride] = fr * s2 + fi * c2;
        yr[q + 3 * stride] = gr * c3 - gi * s3;
        yi[q + 3 * stride] = gr * s3 + gi * c3;
      }
    }
    re.swap(to_re);
    im.swap(to_im);
  }
  if (length == 2)
    for (std::size_t q = 0; q < stride; ++q) {
      const double x = re[q + stride], y = im[q + stride];
      re[q + stride] = re[q] - x, im[q + stride] = im[q] - y;
      re[q] += x, im[q] += y;
    }
}

DPMP_KEPT_BODY inline RealFourier::Spectrum RealFourier::forward(const std::vector<double>& x) const {
  DPMP_CHECK(x.size() == length(), "expected ", length(), " values, got ", x.size());
  std::vector<double> re(half_), im(half_);
  for (std::size_t k = 0; k < half_; ++k) re[k] = x[2 * k], im[k] = x[2 * k + 1];
  transform(re, im);
  Spectrum y{std::vector<double>(half_ + 1), std::vector<double>(half_ + 1)};
  for (std::size_t k = 0; k <= half_; ++k) {
    const std::size_t a = k % half_, b = (half_ - k) % half_;
    const double even_re = (re[a] + re[b]) / 2, even_im = (im[a] - im[b]) / 2;
    const double odd_re = (im[a] + im[b]) / 2, odd_im = (re[b] - re[a]) / 2;
    const double c = k < half_ ? cos_[k] : -1, s = k < half_ ? sin_[k] : 0;
    y.re[k] = even_re + (odd_re * c - odd_im * s);
    y.im[k] = even_im + (odd_re * s + odd_im * c);
  }
  return y;
}

DPMP_KEPT_BODY inline std::vector<double> RealFourier::inverse(const Spectrum& y) const {
  DPMP_CHECK(y.re.size() == half_ + 1 && y.im.size() == half_ + 1, "expected ", half_ + 1, " values, got ", y.re.size(),
             " and ", y.im.size());
  // Real and imaginary parts change places: that is the inverse transform.
  std::vector<double> re(half_), im(half_);
  for (std::size_t k = 0; k < half_; ++k) {
    const std::size_t b = half_ - k;
    const double even_re = (y.re[k] + y.re[b]) / 2, even_im = (y.im[k] - y.im[b]) / 2;
    const double x = (y.re[k] - y.re[b]) / 2, z = (y.im[k] + y.im[b]) / 2;
    const double odd_re = x * cos_[k] + z * sin_[k], odd_im = z * cos_[k] - x * sin_[k];
    im[k] = even_re - odd_im;
    re[k] = even_im + odd_re;
  }
  transform(re, im);
  std::vector<double> result(length());
  const double scale = 1 / double(half_);
  for (std::size_t k = 0; k < half_; ++k) result[2 * k] = im[k] * scale, result[2 * k + 1] = re[k] * scale;
  return result;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
