// SPDX-License-Identifier: Apache-2.0
// The op table's operations of sequence and image models on a GPU.
#include "autograd/ops_sequence.hpp"
#include "autograd/ops_vision.hpp"
#include "cuda/op_on_cuda.hpp"
#include "dpmp/dpmp.cuh"

TEST_CASE("every op of sequence models on CUDA agrees with f64 on the CPU") {
  test::check_ops_on_cuda(test::sequence_ops(), 5);
}
TEST_CASE("every op of image models on CUDA agrees with f64 on the CPU") { test::check_ops_on_cuda(test::vision_ops(), 5); }
