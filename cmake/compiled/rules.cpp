// SPDX-License-Identifier: Apache-2.0
// dpmp::compiled, second part: the tape, the operations on it and the layers that are made of them.
#define DPMP_BODIES 0  // products.cpp's
#include <dpmp/gemm/gemm.hpp>
#include <dpmp/tensor/tensor.hpp>
#undef DPMP_BODIES
#define DPMP_BODIES 1
#include <dpmp/autograd/rules/activation.hpp>
#include <dpmp/autograd/rules/add_norm.hpp>
#include <dpmp/autograd/rules/arithmetic.hpp>
#include <dpmp/autograd/rules/attention.hpp>
#include <dpmp/autograd/rules/broadcast.hpp>
#include <dpmp/autograd/rules/cast.hpp>
#include <dpmp/autograd/rules/convolution.hpp>
#include <dpmp/autograd/rules/cross_entropy.hpp>
#include <dpmp/autograd/rules/dropout.hpp>
#include <dpmp/autograd/rules/elementwise.hpp>
#include <dpmp/autograd/rules/embedding.hpp>
#include <dpmp/autograd/rules/feed_forward.hpp>
#include <dpmp/autograd/rules/group_norm.hpp>
#include <dpmp/autograd/rules/layer_norm.hpp>
#include <dpmp/autograd/rules/linear.hpp>
#include <dpmp/autograd/rules/matmul.hpp>
#include <dpmp/autograd/rules/mean_squared_error.hpp>
#include <dpmp/autograd/rules/pad.hpp>
#include <dpmp/autograd/rules/parameter_value.hpp>
#include <dpmp/autograd/rules/pooling.hpp>
#include <dpmp/autograd/rules/reduce.hpp>
#include <dpmp/autograd/rules/rope.hpp>
#include <dpmp/autograd/rules/select.hpp>
#include <dpmp/autograd/rules/shape_ops.hpp>
#include <dpmp/autograd/rules/softmax.hpp>
#include <dpmp/autograd/rules/stop_gradient.hpp>
#include <dpmp/autograd/rules/swiglu.hpp>
#include <dpmp/autograd/rules/unary.hpp>
#include <dpmp/autograd/rules/unfold.hpp>
#include <dpmp/autograd/sample_identities.hpp>
#include <dpmp/nn/recurrent.hpp>
#include <dpmp/nn/transformer.hpp>
#include <dpmp/nn/vision.hpp>
