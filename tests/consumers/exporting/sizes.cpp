// SPDX-License-Identifier: Apache-2.0
#include "sizes.hpp"

dpmp::index_t float_bytes(const dpmp::Shape& shape) { return 4 * shape.numel(); }
