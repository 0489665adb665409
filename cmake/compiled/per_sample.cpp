// SPDX-License-Identifier: Apache-2.0
// dpmp::compiled, third part: per-sample norms and clipped sums.
#define DPMP_BODIES 0  // products.cpp's and rules.cpp's
#include <dpmp/autograd/bias_site.hpp>
#include <dpmp/autograd/sample_identities.hpp>
#include <dpmp/autograd/tape.hpp>
#include <dpmp/gemm/gemm.hpp>
#include <dpmp/gemm/matmul.hpp>
#include <dpmp/tensor/slices.hpp>
#undef DPMP_BODIES
#define DPMP_BODIES 1
#include <dpmp/per_sample/clipped_sum_sink.hpp>
#include <dpmp/per_sample/gradient_sums.hpp>
#include <dpmp/per_sample/group_pass.hpp>
#include <dpmp/per_sample/per_sample.hpp>
#include <dpmp/per_sample/sum_sink.hpp>
