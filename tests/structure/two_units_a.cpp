// SPDX-License-Identifier: Apache-2.0
// With two_units_b.cpp: a header that defines something without `inline` makes this link fail.
#include "dpmp/dpmp.hpp"

dpmp::Shape shape_of_the_other_unit();

int main() { return shape_of_the_other_unit() == dpmp::Shape{2, 3} ? 0 : 1; }
