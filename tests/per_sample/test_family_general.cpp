// SPDX-License-Identifier: Apache-2.0
#include "autograd/ops_general.hpp"
#include "per_sample/family.hpp"

TEST_CASE(
    "P1, P13: the general operations, every strategy, clip rule and dtype, agree with the oracle; so does docs/support.md") {
  test::check_family("general", test::cases_of(test::general_ops()));
}
