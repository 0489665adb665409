// SPDX-License-Identifier: Apache-2.0
// The main job compiled for CPU and GPU: --device cuda trains on the first GPU.
#include <dpmp/dpmp.cuh>

#include "train_gpt.cpp"
