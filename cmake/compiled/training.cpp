// SPDX-License-Identifier: Apache-2.0
// dpmp::compiled, fourth part: privacy, optimisers, trainers and files.
#define DPMP_BODIES 0  // those of the other parts
#include <dpmp/autograd/rules/cast.hpp>
#include <dpmp/autograd/rules/elementwise.hpp>
#include <dpmp/autograd/rules/embedding.hpp>
#include <dpmp/autograd/rules/parameter_value.hpp>
#include <dpmp/autograd/rules/select.hpp>
#include <dpmp/autograd/sample_identities.hpp>
#include <dpmp/gemm/gemm.hpp>
#include <dpmp/nn/recurrent.hpp>
#include <dpmp/nn/transformer.hpp>
#include <dpmp/nn/vision.hpp>
#include <dpmp/per_sample/clipped_sum_sink.hpp>
#include <dpmp/per_sample/per_sample.hpp>
#include <dpmp/per_sample/sum_sink.hpp>
#undef DPMP_BODIES
#define DPMP_BODIES 1
#include <dpmp/autograd/gradcheck.hpp>
#include <dpmp/dp/audit.hpp>
#include <dpmp/dp/pld_accountant.hpp>
#include <dpmp/dp/report_json.hpp>
#include <dpmp/dp/statement.hpp>
#include <dpmp/interop/csv.hpp>
#include <dpmp/interop/dlpack.hpp>
#include <dpmp/interop/idx.hpp>
#include <dpmp/interop/npy.hpp>
#include <dpmp/interop/npz.hpp>
#include <dpmp/interop/safetensors.hpp>
#include <dpmp/interop/text_records.hpp>
#include <dpmp/interop/token_file.hpp>
#include <dpmp/optim/optimiser.hpp>
#include <dpmp/optim/weight_average.hpp>
#include <dpmp/train/accumulate.hpp>
#include <dpmp/train/checkpoint.hpp>
#include <dpmp/train/dry_pass.hpp>
#include <dpmp/train/evaluate.hpp>
#include <dpmp/train/gradient_canaries.hpp>
#include <dpmp/train/input_canaries.hpp>
#include <dpmp/train/isolation.hpp>
#include <dpmp/train/log.hpp>
#include <dpmp/train/log_report.hpp>
#include <dpmp/train/memory_choice.hpp>
#include <dpmp/train/memory_plan.hpp>
#include <dpmp/train/read_log.hpp>
#include <dpmp/train/report.hpp>
#include <dpmp/train/tensorboard.hpp>
#include <dpmp/train/trainer.hpp>
