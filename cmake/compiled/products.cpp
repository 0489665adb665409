// SPDX-License-Identifier: Apache-2.0
// dpmp::compiled, first part: tensors and matrix products.
#include <dpmp/gemm/gemm.hpp>
#include <dpmp/gemm/host_eigen.hpp>
#include <dpmp/tensor/tensor.hpp>
