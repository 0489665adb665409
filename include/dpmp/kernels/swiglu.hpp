// SPDX-License-Identifier: Apache-2.0
// The gate of a SwiGLU block (Shazeer 2020, arXiv 2002.05202) on packed rows [gate, up]: y = silu(gate) * up.
#pragma once
#include "dpmp/kernels/activations.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
template <class T>
struct SwigluForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [rows, 2 hidden]
  T* output;       // [rows, hidden]
  index_t hidden;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* gate = input + row * 2 * hidden;
    const T* up = gate + hidden;
    team.for_each(hidden,
                  [&](auto at) DPMP_LAMBDA { at.store(output + row * hidden, Silu::value(at.load(gate)) * at.load(up)); });
  }
};

template <class T>
struct SwigluBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [rows, 2 hidden]
  const T* output_gradient;  // [rows, hidden]
  T* input_gradient;         // [rows, 2 hidden]
  index_t hidden;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* gate = input + row * 2 * hidden;
    const T* up = gate + hidden;
    const T* g = output_gradient + row * hidden;
    T* dgate = input_gradient + row * 2 * hidden;
    T* dup = dgate + hidden;
    team.for_each(hidden, [&](auto at) DPMP_LAMBDA {
      at.store(dgate, at.load(g) * at.load(up) * Silu::derivative(at.load(gate)));
      at.store(dup, at.load(g) * Silu::value(at.load(gate)));
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
