// SPDX-License-Identifier: Apache-2.0
#include "dpmp/core/shape.hpp"

dpmp::index_t elements(const dpmp::Shape& shape);
dpmp::index_t elements(const dpmp::Shape& shape) { return shape.numel(); }
