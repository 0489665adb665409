// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <dpmp/core/shape.hpp>

/// Bytes of an FP32 array.
dpmp::index_t float_bytes(const dpmp::Shape& shape);
