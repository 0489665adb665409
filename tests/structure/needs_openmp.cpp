// SPDX-License-Identifier: Apache-2.0
// Whether a compiler has OpenMP (strict_warnings.cmake).
#include <omp.h>
