// SPDX-License-Identifier: Apache-2.0
#include "dpmp/dpmp.hpp"

dpmp::Shape shape_of_the_other_unit();
dpmp::Shape shape_of_the_other_unit() { return {2, 3}; }
