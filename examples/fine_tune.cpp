// SPDX-License-Identifier: Apache-2.0
// A published GPT-2 or LLaMA from a folder of the Hugging Face hub learns private records, with adapters or as a whole, and
// is written as such a folder again. One line of --data is one record and one unit of privacy; one in twenty, by a hash of
// what it says, is held out and treated as public.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <dpmp/dpmp.hpp>
#include <dpmp/interop/text_records.hpp>
#include <dpmp/nn/huggingface.hpp>
#include <iostream>

#include "byte_text.hpp"
#include "token_records.hpp"

namespace {
using namespace dpmp;

struct Options {
  std::string model, data, output = "fine_tune_output", dtype = "bf16";
  bool bytes = false, chunked_head = false;
  double epsilon = 8, delta = 1e-5, clip = 1, learning_rate = 1e-3, lora_alpha = 16, dropout = 0;
  index_t steps = 100, batch = 64, physical_batch = 8, context = 128, lora_rank = 8, evaluate_every = 10;
  int threads = 0;
};

Options parse(int argc, char** argv, CLI::App& app) {
  Options o;
  app.add_option("--model", o.model, "folder with config.json and model.safetensors, taken as public")->required();
  app.add_option("--data", o.data, "one record a line: numbers of tokens with spaces between them")->required();
  app.add_flag("--bytes", o.bytes, "the data is text, and its bytes are the tokens");
  app.add_option("--output", o.output, "folder to write the model to")->capture_default_str();
  app.add_option("--dtype", o.dtype, "f32, bf16 or f16")->capture_default_str();
  app.add_option("--lora-rank", o.lora_rank, "rank of the adapters; 0: all weights are trained")->capture_default_str();
  app.add_option("--lora-alpha", o.lora_alpha, "adapters are scaled by this over their rank")->capture_default_str();
  app.add_option("--dropout", o.dropout)->capture_default_str();
  app.add_flag("--chunked-head", o.chunked_head, "logits some at a time: less memory with large vocabularies");
  app.add_option("--epsilon", o.epsilon)->capture_default_str();
  app.add_option("--delta", o.delta)->capture_default_str();
  app.add_option("--clip", o.clip)->capture_default_str();
  app.add_option("--steps", o.steps)->capture_default_str();
  app.add_option("--batch", o.batch, "expected records a step (Poisson)")->capture_default_str();
  app.add_option("--physical-batch", o.physical_batch, "records at once: memory and speed only")->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate)->capture_default_str();
  app.add_option("--context", o.context, "tokens of a record that are predicted, the public padded length")
      ->capture_default_str();
  app.add_option("--evaluate-every", o.evaluate_every)->capture_default_str();
  app.add_option("--threads", o.threads, "0: all cores")->capture_default_str();
  app.parse(argc, argv);
  DPMP_CHECK(o.steps >= 1 && o.batch >= 1 && o.evaluate_every >= 1 && o.context >= 1,
             "expected steps, batch, context and evaluate-every >= 1, got ", o.steps, ", ", o.batch, ", ", o.context,
             " and ", o.evaluate_every);
  return o;
}

int run(const Options& o) {
  Context ctx(Device::cpu(), o.threads);
  const interop::HuggingFaceFolder folder(o.model);
  nn::TransformerConfig config = nn::transformer_config(folder);
  DPMP_CHECK(o.context <= config.context, "expected a context of at most the model's ", config.context, " tokens, got ",
             o.context);
  config.lora = {.rank = o.lora_rank, .alpha = o.lora_alpha};
  config.dropout = o.dropout;
  config.chunked_head = o.chunked_head;
  nn::Transformer model(ctx, config, parse_dtype(o.dtype));
  nn::load_huggingface(folder, model);

  std::vector<std::string> lines[2];
  for (const std::string& line : interop::read_text_records(o.data)) lines[examples::is_held_out(line)].push_back(line);
  DPMP_CHECK(!lines[0].empty() && !lines[1].empty(),
             "expected records to learn and records to hold out (one line in 20, by a hash of what it says), got ",
             lines[0].size(), " and ", lines[1].size());
  const examples::TokenRecords training(lines[0], config.vocabulary, o.context, o.bytes),
      held_out(lines[1], config.vocabulary, o.context, o.bytes);
  DPMP_CHECK(o.batch <= training.size(), "expected a batch of at most the ", training.size(), " records to learn, got ",
             o.batch);
  index_t trained = 0;
  for (const Parameter* p : model.parameters().all()) trained += p->trainable() ? p->numel() : 0;
  std::cout << folder.settings().text("model_type") << ": " << model.parameters().numel() << " parameters in " << o.dtype
            << ", of which " << trained << " are trained\ndata: " << training.size() << " records to learn, "
            << held_out.size() << " held out\n";

  const auto plan = dp::Plan::calibrate({.epsilon = o.epsilon,
                                         .delta = o.delta,
                                         .sampling_rate = double(o.batch) / double(training.size()),
                                         .steps = o.steps,
                                         .clip_threshold = o.clip,
                                         .dataset_size = training.size()});
  std::cout << "plan:\n" << plan.describe();
  train::Trainer trainer(
      ctx, model.parameters(), plan, dp::StreamKeys(dp::random_key()), training.size(),
      {.physical_batch = o.physical_batch,
       .learning_rate =
           optim::LearningRate::cosine(o.learning_rate, std::min<index_t>(10, o.steps), o.steps, 0.1 * o.learning_rate),
       .identity = [&](const Key256& secret, index_t record) { return content_id(secret, lines[0][std::size_t(record)]); }});
  const auto tell = [&] {
    std::printf("step %4lld: %.4f nats a held-out token\n", static_cast<long long>(trainer.steps()),
                examples::nats_per_token(ctx, model, held_out, o.physical_batch));
    std::fflush(stdout);
  };
  tell();
  while (trainer.steps() < plan.steps()) {
    trainer.step([&](const train::Batch& batch) {
      const auto [ids, targets] = training.batch(ctx, batch.records);
      return model.losses(batch.tape, ids, targets, {.divisor = double(o.context)});
    });
    if (trainer.steps() % o.evaluate_every == 0 || trainer.steps() == plan.steps()) tell();
  }
  // Some models have a list of them.
  const auto token = [&](const char* name) {
    return folder.settings().has(name) ? folder.settings().integer(name) : index_t(-1);
  };
  nn::save_huggingface(o.output, model, {.begin_token = token("bos_token_id"), .end_token = token("eos_token_id")});
  std::cout << "model: " << o.output << "\n\n" << trainer.privacy_statement() << '\n';
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Fine-tunes a model of the Hugging Face hub under differential privacy.");
  try {
    return run(parse(argc, argv, app));
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::cout.flush();
    std::cerr << "fine_tune: " << e.what() << '\n';
    return 1;
  }
}
