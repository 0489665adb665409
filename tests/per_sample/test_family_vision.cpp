// SPDX-License-Identifier: Apache-2.0
#include "autograd/ops_vision.hpp"
#include "per_sample/family.hpp"

TEST_CASE(
    "P1, P13: the vision operations, every strategy, clip rule and dtype, agree with the oracle; so does docs/support.md") {
  test::check_family("vision", test::cases_of(test::vision_ops()));
}
