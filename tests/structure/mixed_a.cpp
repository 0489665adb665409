// SPDX-License-Identifier: Apache-2.0
// Linked with mixed_b.cpp by mixed_options_do_not_link.cmake.
#include "dpmp/core/shape.hpp"

dpmp::index_t elements(const dpmp::Shape& shape);

int main() { return elements({2, 3}) == 6 ? 0 : 1; }
