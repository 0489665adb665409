// SPDX-License-Identifier: Apache-2.0
// dpmp::compiled_cuda: everything that is compiled for a GPU, once. Its host half is that of the other parts.
#include <dpmp/dpmp.cuh>
