// SPDX-License-Identifier: Apache-2.0
// Entries of the op table for images and sequences, channels last: windows, convolutions, pooling, per-sample normalisation.
#pragma once
#include <algorithm>
#include <array>
#include <numeric>

#include "autograd/op.hpp"
#include "dpmp/autograd/rules/convolution.hpp"
#include "dpmp/autograd/rules/group_norm.hpp"
#include "dpmp/autograd/rules/pooling.hpp"

namespace test::detail {
/// One axis: an extent, 0 and 1 often among them, that the window drawn with it fits into.
struct DrawnAxis {
  index_t extent, kernel, stride, padding, dilation;
};
inline DrawnAxis axis(Draw& draw, bool dilated = true) {
  DrawnAxis a{0, draw.integer(1, 3), draw.integer(1, 3), draw.integer(0, 2), dilated ? draw.integer(1, 2) : 1};
  const index_t least = std::max<index_t>(1, a.dilation * (a.kernel - 1) + 1 - 2 * a.padding);
  a.extent = draw.integer(0, 9) == 0 ? 0 : least + draw.integer(0, 4);
  return a;
}
inline dpmp::WindowOptions windows(const DrawnAxis& y, const DrawnAxis& x) {
  return {{y.kernel, x.kernel}, {y.stride, x.stride}, {y.padding, x.padding}, {y.dilation, x.dilation}};
}
inline index_t channels(Draw& draw) { return std::array<index_t, 6>{0, 1, 2, 3, 8, 17}[std::size_t(draw.integer(0, 5))]; }

inline Problem unfold2d(Draw& draw) {
  const index_t samples = draw.samples();
  const DrawnAxis y = axis(draw), x = axis(draw);
  return {samples,
          {draw.values({samples, y.extent, x.extent, channels(draw)})},
          {},
          [o = windows(y, x)](dpmp::Tape&, const Variables& v, const Parameters&) { return Variables{unfold2d(v[0], o)}; },
          double(y.kernel * x.kernel)};
}

enum class Grouping { one, some, depthwise };

/// inputs and outputs in every group; y.kernel is 1 for a sequence.
inline Problem convolution(Draw& draw, Grouping grouping, bool sequence) {
  const index_t samples = draw.samples();
  DrawnAxis y = axis(draw), x = axis(draw);
  if (sequence) y = {1, 1, 1, 0, 1};
  const index_t groups = grouping == Grouping::one ? 1 : draw.integer(2, 18),
                inputs = grouping == Grouping::depthwise ? 1 : draw.integer(0, 3), outputs = draw.integer(0, 3);
  const bool with_bias = draw.coin();
  Shape shape{samples, y.extent, x.extent, groups * inputs};
  if (sequence) shape = {samples, x.extent, groups * inputs};
  Problem p{samples,
            {draw.values(shape)},
            {draw.values({groups * outputs, y.kernel * x.kernel * inputs})},
            [=](dpmp::Tape&, const Variables& v, const Parameters& w) {
              dpmp::Parameter* bias = with_bias ? w[1] : nullptr;
              if (sequence) return Variables{conv1d(v[0], *w[0], bias, {x.kernel, x.stride, x.padding, x.dilation, groups})};
              const dpmp::WindowOptions o = windows(y, x);
              return Variables{conv2d(v[0], *w[0], bias, {o.kernel, o.stride, o.padding, o.dilation, groups})};
            },
            1 + double(y.kernel * x.kernel)};
  if (with_bias) p.parameters.push_back(draw.values({groups * outputs}));
  return p;
}

/// A maximum has derivatives where no two elements of a window are equal: each channel of an image gets distinct values.
inline Values distinct_images(Draw& draw, const Shape& shape) {
  const std::size_t positions = std::size_t(shape[1] * shape[2]), channels = std::size_t(shape[3]);
  Values v{shape, std::vector<double>(std::size_t(shape.numel()))};
  std::vector<double> some(257);
  std::iota(some.begin(), some.end(), -128);
  for (std::size_t image = 0; image < std::size_t(shape[0]); ++image)
    for (std::size_t c = 0; c < channels; ++c)
      for (std::size_t k = 0; k < positions; ++k) {
        std::swap(some[k], some[std::size_t(draw.integer(index_t(k), 256))]);
        v.values[(image * positions + k) * channels + c] = some[k] / 64;
      }
  return v;
}

inline Problem pool2d(Draw& draw, bool maximum) {
  const index_t samples = draw.samples();
  DrawnAxis y = axis(draw, false), x = axis(draw, false);
  for (DrawnAxis* a : {&y, &x}) {
    a->padding = std::min(a->padding, a->kernel - 1);
    if (a->extent > 0) a->extent = std::max(a->extent, a->kernel);
  }
  return {samples,
          {distinct_images(draw, {samples, y.extent, x.extent, channels(draw)})},
          {},
          [=](dpmp::Tape&, const Variables& v, const Parameters&) {
            const dpmp::PoolOptions o{{y.kernel, x.kernel}, {y.stride, x.stride}, {y.padding, x.padding}};
            return Variables{maximum ? max_pool2d(v[0], o) : average_pool2d(v[0], o)};
          },
          2};
}

inline Problem global_average_pool(Draw& draw) {
  Shape shape{draw.samples(), draw.integer(1, 7)};
  if (draw.coin()) shape.push_back(draw.integer(1, 5));
  shape.push_back(channels(draw));
  return {shape.front(), {draw.values(shape)}, {}, [](dpmp::Tape&, const Variables& v, const Parameters&) {
            return Variables{global_average_pool(v[0])};
          }};
}

/// A large epsilon: with the usual one, a nearly constant group makes derivatives that differences cannot follow.
inline Problem group_norm(Draw& draw, bool instance) {
  const index_t groups = draw.integer(1, 5);
  Shape shape{draw.samples()};
  index_t channels = groups * draw.integer(0, 7);
  if (draw.integer(0, 4) == 0) {  // more positions than a team walks side by side
    shape = {1, 328};
    channels = groups * draw.integer(1, 3);
  } else {
    for (index_t k = draw.integer(0, 2); k > 0; --k) shape.push_back(draw.tokens());
  }
  shape.push_back(channels);
  return {
      shape.front(),
      {draw.values(shape)},
      {draw.values({shape.back()}), draw.values({shape.back()})},
      [=](dpmp::Tape&, const Variables& v, const Parameters& p) {
        return Variables{instance ? instance_norm(v[0], *p[0], *p[1], 0.25) : group_norm(v[0], *p[0], *p[1], groups, 0.25)};
      },
      // Gradients of gain and bias are sums of random signs over the positions.
      2,
      std::sqrt(double(shape.numel(1, shape.rank() - 1)))};
}
}  // namespace test::detail

namespace test {
inline std::vector<Op> vision_ops() {
  using detail::Grouping;
  return {
      {"unfold2d", detail::unfold2d},
      {"conv2d", [](Draw& draw) { return detail::convolution(draw, Grouping::one, false); }},
      {"conv2d (groups)", [](Draw& draw) { return detail::convolution(draw, Grouping::some, false); }},
      {"conv2d (depthwise)", [](Draw& draw) { return detail::convolution(draw, Grouping::depthwise, false); }},
      {"conv1d", [](Draw& draw) { return detail::convolution(draw, Grouping::one, true); }},
      {"conv1d (groups)", [](Draw& draw) { return detail::convolution(draw, Grouping::some, true); }},
      {"average_pool2d", [](Draw& draw) { return detail::pool2d(draw, false); }},
      {"max_pool2d", [](Draw& draw) { return detail::pool2d(draw, true); }},
      {"global_average_pool", detail::global_average_pool},
      {"group_norm", [](Draw& draw) { return detail::group_norm(draw, false); }},
      {"instance_norm", [](Draw& draw) { return detail::group_norm(draw, true); }},
  };
}
}  // namespace test
