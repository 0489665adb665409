// SPDX-License-Identifier: Apache-2.0
// Random tensors of any dtype.
#pragma once
#include <vector>

#include "dpmp/tensor/tensor.hpp"
#include "support/random.hpp"

namespace test {
/// Normal values of this standard deviation, rounded to dtype.
inline dpmp::Tensor normal_tensor(dpmp::Context& ctx, Rng& rng, const dpmp::Shape& shape, dpmp::DType dtype,
                                  double standard_deviation = 1) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (double& v : values) v = rng.normal(standard_deviation);
  return dpmp::Tensor::from(ctx, shape, dtype, values);
}
/// Ids low..high, both included.
inline dpmp::Tensor id_tensor(dpmp::Context& ctx, Rng& rng, const dpmp::Shape& shape, int low, int high) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.numel()));
  for (std::int32_t& id : ids) id = std::int32_t(rng.integer(low, high));
  return dpmp::Tensor::from(ctx, shape, ids);
}
}  // namespace test
