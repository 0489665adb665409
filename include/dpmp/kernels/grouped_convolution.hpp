// SPDX-License-Identifier: Apache-2.0
// Convolution in groups of channels, depthwise among them: group g of the outputs sees group g of the inputs. The products
// are too thin for a matrix library, so lanes run over the channels of all groups at once.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/windows.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Lane k of a span of `count` channels in groups of `size` reads channel j of the same group of another row, whose groups
/// have `source_size` channels.
template <class Team>
class GroupLanes {
 public:
  using Pack = typename Team::Pack;
  DPMP_HD GroupLanes(index_t offset, index_t count, index_t size, index_t source_size)
      : same_(size == 1 && source_size == 1) {
    for (int k = 0; k < lanes; ++k) {
      const index_t c = offset + k < count ? offset + k : count - 1;  // lanes past the end are not stored
      from_[k] = c / size * source_size;
    }
  }
  template <class Span, class T>
  DPMP_HD Pack load(const Span& at, const T* row, index_t j) const {
    if (same_) return at.load(row);
    Pack gathered;
    for (int k = 0; k < lanes; ++k) gathered.v[k] = to_float(row[from_[k] + j]);
    return gathered;
  }

 private:
  static constexpr int lanes = int(sizeof(Pack) / sizeof(typename Team::Real));
  index_t from_[std::size_t(lanes)];
  bool same_;
};

/// One (b, oy) a row.
template <class T>
struct GroupedConvolutionForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;   // [B, H, W, groups * inputs]
  const T* weight;  // [KH, KW, inputs, groups * outputs]
  const T* bias;    // [groups * outputs]; null: none
  T* output;        // [B, OH, OW, groups * outputs]
  Windows windows;
  index_t groups, outputs;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t oy = row % windows.y.output, sample = row / windows.y.output, inputs = windows.channels / groups,
                  width = groups * outputs;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      const GroupLanes<Team> lanes(at.offset, width, outputs, inputs);
      for (index_t ox = 0; ox < windows.x.output; ++ox) {
        typename Team::Pack sum{};
        if (bias) sum = at.load(bias);
        windows.for_each_tap(oy, ox, [&](index_t iy, index_t ix, index_t tap) DPMP_LAMBDA {
          const T* x = input + windows.pixel(sample, iy, ix);
          const T* w = weight + tap * inputs * width;
          for (index_t j = 0; j < inputs; ++j) sum = sum + lanes.load(at, x, j) * at.load(w + j * width);
        });
        at.store(output + (row * windows.x.output + ox) * width, sum);
      }
    });
  }
};

/// One (b, iy) a row.
template <class T>
struct GroupedConvolutionBackwardInput {
  using Real = compute_t<T>;
  using Storage = T;
  const T* output_gradient;  // [B, OH, OW, groups * outputs]
  const T* weight;           // [KH, KW, outputs, groups * inputs]
  T* input_gradient;         // [B, H, W, groups * inputs]
  Windows windows;
  index_t groups, outputs;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t iy = row % windows.y.input, sample = row / windows.y.input, width = windows.channels;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      const GroupLanes<Team> lanes(at.offset, width, width / groups, outputs);
      for (index_t ix = 0; ix < windows.x.input; ++ix) {
        typename Team::Pack sum{};
        windows.for_each_window(iy, ix, [&](index_t oy, index_t ox, index_t tap) DPMP_LAMBDA {
          const T* g = output_gradient + windows.window(sample, oy, ox) * groups * outputs;
          const T* w = weight + tap * outputs * width;
          for (index_t m = 0; m < outputs; ++m) sum = sum + lanes.load(at, g, m) * at.load(w + m * width);
        });
        at.store(input_gradient + (row * windows.x.input + ix) * width, sum);
      }
    });
  }
};

/// weight_gradient[b, ky, kx, j, :] = sum over windows of output_gradient * input, in compute precision: a chain of
/// OH * OW terms. One (b, ky, kx, j) a row.
template <class T>
struct GroupedConvolutionBackwardWeight {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [B, H, W, groups * inputs]
  const T* output_gradient;  // [B, OH, OW, groups * outputs]
  Real* weight_gradient;     // [B, KH, KW, inputs, groups * outputs]
  Windows windows;
  index_t groups, outputs;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t inputs = windows.channels / groups, width = groups * outputs, j = row % inputs,
                  kx = row / inputs % windows.x.kernel, ky = row / inputs / windows.x.kernel % windows.y.kernel,
                  sample = row / inputs / windows.taps();
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      const GroupLanes<Team> lanes(at.offset, width, outputs, inputs);
      typename Team::Pack sum{};
      for (index_t oy = 0; oy < windows.y.output; ++oy) {
        const index_t iy = windows.y.position(oy, ky);
        if (!windows.y.inside(iy)) continue;
        for (index_t ox = 0; ox < windows.x.output; ++ox) {
          const index_t ix = windows.x.position(ox, kx);
          if (!windows.x.inside(ix)) continue;
          const T* x = input + windows.pixel(sample, iy, ix);
          const T* g = output_gradient + windows.window(sample, oy, ox) * width;
          sum = sum + at.load(g) * lanes.load(at, x, j);
        }
      }
      at.store(weight_gradient + row * width, sum);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
