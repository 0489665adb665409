// SPDX-License-Identifier: Apache-2.0
// dpmp::compiled, first part: tensors and matrix products.
#include <dpmp/gemm/gemm.hpp>
#include <dpmp/gemm/host_eigen.hpp>
#include <dpmp/gemm/matmul.hpp>
#include <dpmp/tensor/arithmetic.hpp>
#include <dpmp/tensor/broadcast.hpp>
#include <dpmp/tensor/elementwise.hpp>
#include <dpmp/tensor/slices.hpp>
#include <dpmp/tensor/tensor.hpp>
#include <dpmp/tensor/token_sums.hpp>
#include <dpmp/tensor/transpose.hpp>
