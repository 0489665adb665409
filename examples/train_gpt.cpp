// SPDX-License-Identifier: Apache-2.0
// The main job: a small byte-level GPT learns a text under differential privacy. One line of the text is one record and one
// unit of privacy; one record in twenty, by a hash of what it says, is held out and treated as public.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <dpmp/dpmp.hpp>
#include <dpmp/interop/text_records.hpp>
#include <dpmp/train/read_log.hpp>
#include <dpmp/train/report.hpp>
#include <iostream>
#include <optional>
#include <sstream>

#include "byte_text.hpp"

namespace {
using namespace dpmp;
using examples::bits_per_byte;
using examples::ByteRecords;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string data, output = "train_gpt_output", resume, weights, log, report, dtype = "bf16", moments = "f32",
                    optimiser = "adamw";
  bool is_private = true;
  double epsilon = 8, delta = 1e-5, clip = 1, learning_rate = 4e-3, dropout = 0, lora_alpha = 16;
  index_t steps = 160, batch = 512, physical_batch = 64, width = 96, layers = 2, heads = 4, context = 128, warm_up = 10;
  index_t evaluate_every = 10, evaluate_records = 256, checkpoint_every = 0, lines = 3, lora_rank = 0;
  bool report_times = false, unsafe_debug = false, tied = false, chunked_head = false, info = false, fp32_residual = false,
       fp32_logits = false, fp32_norms = false;
  Checkpointing checkpointing = Checkpointing::none;
  std::optional<double> noise_multiplier;
  std::optional<index_t> stop_after;
  int threads = 0;
  std::string device = "cpu";
  std::uint64_t seed = 1;
};

Options parse(int argc, char** argv, CLI::App& app) {
  Options o;
  app.add_option("--data", o.data, "UTF-8 text, one record a line")->required();
  app.add_option("--output", o.output, "folder for weights.safetensors and checkpoint.safetensors")->capture_default_str();
  const auto resume = app.add_option(
      "--resume", o.resume, "continue from this checkpoint (its plan and keys are used; same data, same model options)");
  app.add_option("--weights", o.weights, "start from these weights of the same model, which are taken as public")
      ->excludes(resume);
  app.add_option("--lora-rank", o.lora_rank, "train adapters of this rank only, all other weights stay; 0: train all")
      ->capture_default_str();
  app.add_option("--lora-alpha", o.lora_alpha, "adapters are scaled by this over their rank")->capture_default_str();
  app.add_option("--dtype", o.dtype, "precision of activations and compute weights: f32, bf16 or f16")
      ->capture_default_str();
  app.add_flag("--fp32-residual", o.fp32_residual, "of a bf16 or f16 model: residual stream and norms in f32");
  app.add_flag("--fp32-norms", o.fp32_norms, "norms in f32");
  app.add_option("--optimiser", o.optimiser,
                 "adamw, sgd (momentum 0.9), adambc (AdamW without the noise in its second moment) or lamb; each needs a "
                 "learning rate of its own")
      ->check(CLI::IsMember({"adamw", "sgd", "adambc", "lamb"}))
      ->capture_default_str();
  app.add_option("--moments", o.moments, "what AdamW's moments are stored in")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app.add_flag("--fp32-logits", o.fp32_logits, "logits in f32");
  std::string privacy = "on";
  app.add_option("--private", privacy, "on: DP-SGD; off: plain training on the same batches")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  const auto epsilon =
      app.add_option("--epsilon", o.epsilon, "target epsilon; the noise is calibrated to it")->capture_default_str();
  app.add_option("--delta", o.delta)->capture_default_str();
  app.add_option("--noise-multiplier", o.noise_multiplier, "use this instead of calibrating to --epsilon")
      ->excludes(epsilon);
  app.add_option("--clip", o.clip, "clip threshold C of per-sample gradients")->capture_default_str();
  app.add_option("--steps", o.steps)->capture_default_str();
  app.add_option("--batch", o.batch, "expected records a step (Poisson)")->capture_default_str();
  app.add_option("--physical-batch", o.physical_batch, "records at once: memory and speed only")->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "peak of the cosine schedule")->capture_default_str();
  app.add_option("--warm-up", o.warm_up, "steps")->capture_default_str();
  app.add_option("--width", o.width)->capture_default_str();
  app.add_option("--layers", o.layers)->capture_default_str();
  app.add_option("--heads", o.heads)->capture_default_str();
  app.add_option("--context", o.context, "bytes of a record that are learnt, the public padded length")
      ->capture_default_str();
  app.add_option("--dropout", o.dropout)->capture_default_str();
  app.add_flag("--tied", o.tied, "output layer = embedding table");
  app.add_option("--checkpointing", o.checkpointing,
                 "compute activations of blocks again in the backward pass, for less memory and the same bits: none, "
                 "selective (all but products) or block")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Checkpointing>{
          {"none", Checkpointing::none}, {"selective", Checkpointing::selective}, {"block", Checkpointing::block}}))
      ->default_str("none");
  app.add_flag("--chunked-head", o.chunked_head, "FP32 logits, some at a time: less memory, more products");
  app.add_option("--device", o.device, "cpu, or cuda where the program was built with CUDA")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "0: all cores")->capture_default_str();
  app.add_option("--seed", o.seed, "of the initial weights; noise, batches and dropout are keyed by the operating system")
      ->capture_default_str();
  app.add_option("--evaluate-every", o.evaluate_every, "steps between progress lines")->capture_default_str();
  app.add_option("--log", o.log, "also write progress to this file, of public facts: .csv, or .jsonl for JSON lines");
  app.add_option("--report", o.report,
                 "also write a page about the run, its guarantee and its plots to this file: .html, or "
                 ".json for the guarantee alone");
  app.add_flag("--report-times", o.report_times,
               "the page shows the throughput of private steps, which tells how many records they drew");
  app.add_flag("--unsafe-debug", o.unsafe_debug,
               "log and page show how many private records were clipped, and their norms: for public data only");
  app.add_option("--evaluate-records", o.evaluate_records, "held-out records of a progress line")->capture_default_str();
  app.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints, 0: only at the end")
      ->capture_default_str();
  app.add_option("--stop-after", o.stop_after, "save and leave after this many steps; --resume goes on");
  app.add_option("--lines", o.lines, "lines to generate at the end")->capture_default_str();
  app.add_flag("--info", o.info, "print which matrix product and instruction set run");
  app.parse(argc, argv);
  o.is_private = privacy == "on";
  DPMP_CHECK(
      o.steps >= 1 && o.batch >= 1 && o.evaluate_every >= 1 && o.evaluate_records >= 1 && o.checkpoint_every >= 0 &&
          o.lines >= 0 && o.stop_after.value_or(0) >= 0,
      "expected steps, batch, evaluate-every and evaluate-records >= 1, checkpoint-every, lines and stop-after >= 0, got ",
      o.steps, ", ", o.batch, ", ", o.evaluate_every, ", ", o.evaluate_records, ", ", o.checkpoint_every, ", ", o.lines,
      ", ", o.stop_after.value_or(0));
  DPMP_CHECK(o.moments == "f32" || o.optimiser == "adamw", "expected --optimiser adamw with --moments ", o.moments, ", got ",
             o.optimiser);
  DPMP_CHECK(o.is_private || !o.unsafe_debug, "expected --unsafe-debug with private training, got --private=off");
  DPMP_CHECK(o.lora_rank == 0 || !o.weights.empty() || !o.resume.empty(),
             "expected --weights that the adapters of --lora-rank adapt, got none");
  return o;
}

/// What two runs must agree in for one to use the weights of the other.
std::string model_text(const nn::TransformerConfig& c) {
  TextStream text;
  text << "width " << c.width << ", " << c.layers << " layers, " << c.heads << " heads, context " << c.context << ", "
       << (c.tied ? "tied" : "not tied");
  return text.str();
}
std::string adapters_text(const nn::TransformerConfig& c) {
  TextStream text;
  if (c.lora.rank > 0) text << "of rank " << c.lora.rank << " with alpha " << c.lora.alpha;
  return c.lora.rank > 0 ? text.str() : "none";
}
/// Starts the model from a weights file of this program. Adapters start anew unless the file has the same ones.
void start_from(const std::string& path, const nn::Transformer& model) {
  const interop::SafetensorsFile file(path);
  const auto said = [&](const char* name) {
    const auto at = file.metadata().find(name);
    return at == file.metadata().end() ? "nothing about it" : at->second;
  };
  const std::string wanted = model_text(model.config()), mine = adapters_text(model.config()), theirs = said("adapters");
  DPMP_CHECK(said("model") == wanted, "expected '", path, "' to have the weights of a model of ", wanted, ", got ",
             said("model"));
  DPMP_CHECK(theirs == "none" || theirs == mine, "expected '", path, "' to have no adapters, or those of this run (", mine,
             "), got ", theirs);
  if (theirs == "none")
    train::load_base_weights(path, model.parameters());
  else
    train::load_weights(path, model.parameters());
}

index_t trained_values(const nn::Transformer& model) {
  index_t n = 0;
  for (const Parameter* p : model.parameters().all()) n += p->trainable() ? p->numel() : 0;
  return n;
}

optim::Optimiser optimiser_of(const Options& o) {
  if (o.optimiser == "sgd") return optim::Sgd{.momentum = 0.9};
  if (o.optimiser == "adambc") return optim::DpAdamBC{};
  if (o.optimiser == "lamb") return optim::Lamb{};
  return optim::AdamW{.weight_decay = 0, .moments = parse_dtype(o.moments)};
}

/// A number of all that decides what is summed and that the trainer cannot see (TrainerOptions::data_fingerprint): who
/// continues a checkpoint with anything of it changed gets other noise.
std::uint64_t data_fingerprint(const Options& o, const std::vector<std::string>& lines) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  const auto add = [&](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    hash = (hash ^ 0xff) * 0x100000001b3u;  // a byte that UTF-8 does not have
  };
  TextStream settings;
  settings.precision(17);
  for (const index_t n : {o.width, o.layers, o.heads, o.context, index_t(o.tied), o.lora_rank}) settings << n << ' ';
  settings << o.dtype << o.fp32_residual << o.fp32_norms << o.fp32_logits << ' ' << o.dropout << ' ' << o.seed << ' '
           << o.lora_alpha << (o.chunked_head ? " chunked head" : "");
  add(settings.str());
  for (const std::string& line : lines) add(line);
  return hash;
}

/// What a report says of a run beside its plan; public.
train::ReportOptions about_run(const Options& o, Context& ctx, const nn::Transformer& model, const nn::Precision& precision,
                               index_t training, index_t held_out) {
  using dpmp::detail::concat;
  train::ReportOptions report{.title = "train_gpt: " + std::filesystem::path(o.data).filename().string(),
                              .times_of_private_steps = o.report_times,
                              .unsafe_debug = o.unsafe_debug};
  report.about = {
      {"data", concat(training, " records to learn, ", held_out, " held out, the first ", o.context, " bytes of each")},
      {"model", concat("GPT, ", model_text(model.config()), ", ", model.parameters().numel(), " parameters in ", precision)},
      {"trained", concat(trained_values(model), " parameters")},
      {"optimiser", concat(o.optimiser, ", moments in ", o.moments, ", learning rate at most ", o.learning_rate,
                           ", cosine, warm-up ", o.warm_up, " steps")},
      {"dropout", concat(o.dropout)},
      {"physical batch", concat(o.physical_batch)},
      {"device", concat(ctx.device(), ", ", ctx.threads(), " threads, kernels ", name_of(best_isa()))},
      {"products", gemm_backend_info(ctx)}};
  return report;
}

std::string clock_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%d:%02d", int(seconds) / 60, int(seconds) % 60);
  return text;
}

int run(const Options& o) {
  Context ctx(o.device == "cuda" ? Device::cuda() : Device::cpu(), o.threads);
  const std::vector<std::string> lines = interop::read_text_records(o.data);
  const ByteRecords training(lines, o.context, false), held_out(lines, o.context, true);
  std::cout << "data: " << training.size() << " records to learn, " << held_out.size() << " held out, the first "
            << o.context << " bytes of each\n";
  const nn::Precision precision =
      nn::Precision(parse_dtype(o.dtype)).fp32_residual(o.fp32_residual).fp32_norms(o.fp32_norms).fp32_logits(o.fp32_logits);
  nn::Transformer model(ctx,
                        {.vocabulary = 256,
                         .width = o.width,
                         .layers = o.layers,
                         .heads = o.heads,
                         .context = o.context,
                         .tied = o.tied,
                         .dropout = o.dropout,
                         .checkpointing = o.checkpointing,
                         .seed = o.seed,
                         .chunked_head = o.chunked_head,
                         .lora = {.rank = o.lora_rank, .alpha = o.lora_alpha}},
                        precision);
  std::cout << "model: " << model.parameters().numel() << " parameters in " << precision << ", " << o.layers
            << " layers of width " << o.width << ", " << ctx.threads() << " threads\n";
  if (o.lora_rank > 0) std::cout << "adapters: " << trained_values(model) << " parameters, the only ones that are trained\n";
  if (o.info) std::cout << "products: " << gemm_backend_info(ctx) << "\nkernels: " << name_of(best_isa()) << '\n';

  DPMP_CHECK(o.batch <= training.size(), "expected a batch of at most the ", training.size(), " records to learn, got ",
             o.batch);
  const double rate = double(o.batch) / double(training.size());
  std::optional<train::CheckpointHeader> resumed;
  if (!o.resume.empty()) {
    DPMP_CHECK(o.is_private, "expected --resume with private training, got --private=off");
    resumed = train::read_checkpoint_header(o.resume);
  }
  const auto plan_of = [&] {
    dp::PlanOptions p{.delta = o.delta,
                      .sampling_rate = rate,
                      .steps = o.steps,
                      .clip_threshold = o.clip,
                      .dataset_size = training.size()};
    if (o.noise_multiplier) return dp::Plan::with_noise_multiplier(p, *o.noise_multiplier);
    p.epsilon = o.epsilon;
    return dp::Plan::calibrate(p);
  };
  std::optional<dp::Plan> plan;
  if (o.is_private) plan = resumed ? resumed->plan : plan_of();
  const index_t steps = plan ? plan->steps() : o.steps;
  const train::TrainerOptions trainer_options{
      .physical_batch = o.physical_batch,
      .optimiser = optimiser_of(o),
      .learning_rate =
          optim::LearningRate::cosine(o.learning_rate, std::min(o.warm_up, steps), steps, 0.1 * o.learning_rate),
      .data_fingerprint = data_fingerprint(o, lines),
      .identity = [&](const Key256& secret, index_t record) { return training.identity(secret, record); },
      .unsafe_debug = o.unsafe_debug};
  const dp::StreamKeys keys = resumed ? resumed->keys : dp::StreamKeys(dp::random_key());

  std::cout << (plan ? "plan:\n" + plan->describe() : "plan: none, training without privacy\n");
  train::Trainer trainer(ctx, model.parameters(), plan ? train::Privacy(*plan) : train::NoPrivacy{rate}, keys,
                         training.size(), trainer_options);
  if (resumed) {
    const train::Resumed how = train::load_checkpoint(o.resume, model.parameters(), trainer);
    if (!how.same_run)
      std::cout << "resume: data or settings are not the checkpoint's (now " << how.changed
                << "), so the steps to come draw other records and other noise\n";
  }

  if (!o.weights.empty()) {
    start_from(o.weights, model);
    std::printf("start: %s, taken as public; all %lld held-out records: %.4f bits/byte\n", o.weights.c_str(),
                static_cast<long long>(held_out.size()),
                bits_per_byte(ctx, model, held_out, held_out.size(), o.physical_batch));
  }

  // A folder that cannot be written to is found out now; files of an earlier run stay until there is something better.
  const std::filesystem::path folder = o.output;
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  DPMP_CHECK(!failed, "expected a folder that can be made for --output, got '", o.output, "': ", failed.message());
  std::vector<train::Progress> history;
  if (resumed && !o.report.empty() && std::filesystem::exists(o.log)) history = train::read_log(o.log);
  while (!history.empty() && history.back().step > trainer.steps()) history.pop_back();
  const train::ReportOptions report_options = about_run(o, ctx, model, precision, training.size(), held_out.size());
  if (!o.report.empty()) train::check_report_path(o.report, trainer);
  const auto save = [&] {
    train::save_weights(folder / "weights.safetensors", model.parameters(),
                        {{"steps", std::to_string(trainer.steps())},
                         {"model", model_text(model.config())},
                         {"adapters", adapters_text(model.config())}});
    if (plan) train::save_checkpoint(folder / "checkpoint.safetensors", model.parameters(), trainer);
    if (!o.report.empty()) train::write_report(o.report, trainer, history, report_options);
  };
  for (const char* name : {"weights.safetensors", "checkpoint.safetensors"}) AtomicFile(folder / name);

  const auto losses = [&](const train::Batch& batch) {
    const auto [ids, targets] = training.batch(ctx, batch.records);
    return model.losses(batch.tape, ids, targets, {.divisor = double(o.context)});
  };
  if (o.info && plan) std::cout << trainer.validate(losses).text();
  std::optional<train::Log> log;
  std::vector<std::string> logged{"bits/byte"};
  if (o.unsafe_debug)
    for (const auto& [name, unused] : train::named(trainer.unsafe_numbers())) logged.push_back(name);
  if (!o.log.empty()) log.emplace(o.log, train::LogOptions{.more = logged});
  train::ProgressLine line;
  const auto start = Clock::now();
  const index_t first = trainer.steps(), last = o.stop_after ? std::min(steps, first + *o.stop_after) : steps;
  double held_out_bits = bits_per_byte(ctx, model, held_out, o.evaluate_records, o.physical_batch);
  while (trainer.steps() < last) {
    trainer.step(losses);
    const bool evaluate = trainer.steps() % o.evaluate_every == 0 || trainer.steps() == last;
    if (evaluate) held_out_bits = bits_per_byte(ctx, model, held_out, o.evaluate_records, o.physical_batch);
    if (evaluate || line.terminal()) {
      const double a_step = std::chrono::duration<double>(Clock::now() - start).count() / double(trainer.steps() - first);
      const double a_second = rate * double(training.size()) / a_step, peak = double(ctx.memory().peak_bytes);
      train::Progress progress =
          train::progress_of(trainer, trainer_options.learning_rate, held_out_bits * std::numbers::ln2);
      progress.steps = steps;
      progress.more = {{"bits/byte", held_out_bits}};
      // How long private steps take tells how many physical batches their draws needed: no times of them
      // (docs/pitfalls.md) where nobody asked for them.
      const std::string speed = plan ? ""
                                     : dpmp::detail::concat("  ", std::lround(a_second), " samples/s  ETA ",
                                                            clock_text(a_step * double(last - trainer.steps())));
      const std::string text =
          dpmp::detail::concat(train::progress_text(progress), "  peak ", std::lround(peak / 1e6), " MB", speed);
      evaluate ? line.keep(text) : line.show(text);
      if (evaluate) {
        if (o.unsafe_debug)
          for (auto& number : train::named(trainer.unsafe_numbers())) progress.more.push_back(std::move(number));
        if (log) log->write(progress);
        progress.more.emplace_back(train::peak_bytes_name, peak);
        if (!plan || o.report_times) progress.more.emplace_back(train::records_per_second_name, a_second);
        history.push_back(progress);
      }
    }
    if (o.checkpoint_every > 0 && trainer.steps() % o.checkpoint_every == 0) save();
  }
  save();
  std::printf("trained %lld steps; all %lld held-out records: %.4f bits/byte\n",
              static_cast<long long>(trainer.steps() - first), static_cast<long long>(held_out.size()),
              bits_per_byte(ctx, model, held_out, held_out.size(), o.physical_batch));
  std::cout << "weights: " << (folder / "weights.safetensors").string() << '\n';
  if (plan) {
    dp::StatementNotes notes = trainer.notes();
    notes.times_told = o.report_times;
    std::cout << "checkpoint, as secret as the data: " << (folder / "checkpoint.safetensors").string() << "\n\n"
              << dp::privacy_statement(*plan, trainer.steps(), notes) << '\n';
  }
  for (index_t k = 0; k < o.lines; ++k) std::cout << "\n> " << examples::generate(model, o.seed, std::uint64_t(k)) << '\n';
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains a small byte-level GPT on a text file under differential privacy.");
  try {
    return run(parse(argc, argv, app));
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::cout.flush();
    std::cerr << "train_gpt: " << e.what() << '\n';
    return 1;
  }
}
