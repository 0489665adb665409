// SPDX-License-Identifier: Apache-2.0
// The general operations of the op table on a GPU.
#include "autograd/ops_general.hpp"
#include "cuda/op_on_cuda.hpp"
#include "dpmp/dpmp.cuh"

TEST_CASE("every general op on CUDA agrees with f64 on the CPU") { test::check_ops_on_cuda(test::general_ops(), 5); }
