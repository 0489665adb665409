// SPDX-License-Identifier: Apache-2.0
// examples/train_gpt as its users run it: what it writes, how it goes on from a checkpoint, and what it refuses.
#include <doctest/doctest.h>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/interop/safetensors.hpp"
#include "support/train_gpt.hpp"

using namespace test::train_gpt;

TEST_CASE("every dtype, private or not, tied or not: a line a step, the statement, weights and a checkpoint") {
  const Workplace place;
  for (const std::string dtype : {"f32", "bf16", "f16"})
    for (const Words& options : {Words{}, Words{"--private=off"}, Words{"--tied", "--dropout=0.1"}}) {
      const bool is_private = options.empty() || options[0] == "--tied", tied = !options.empty() && options[0] == "--tied";
      const std::string output = dtype + (options.empty() ? "" : options[0]);
      CAPTURE(output);
      Words all = options;
      all.push_back("--dtype=" + dtype);
      const Result r = run(place, output, all);
      CHECK(r.code == 0);
      CHECK(r.error == "");
      CHECK(has(r.out, "data: 57 records to learn, 3 held out"));
      CHECK(has(r.out, "parameters in " + dtype));
      for (int step = 1; step <= 6; ++step) CHECK(has(r.out, "step    " + std::to_string(step) + "/6  held-out loss "));
      // No times of private steps: they tell how many records were drawn.
      CHECK(count(r.out, "samples/s  ETA") == (is_private ? 0 : 6));
      CHECK(count(r.out, "epsilon none") == (is_private ? 0 : 6));
      CHECK(has(r.out,
                "After 6 of 6 planned steps, the sequence of all released parameters is (8.0000, 1e-05)-differentially "
                "private") == is_private);
      CHECK(count(r.out, "\n> ") == 1);
      CHECK(files(place / output) == (is_private ? std::set<std::string>{"checkpoint.safetensors", "weights.safetensors"}
                                                 : std::set<std::string>{"weights.safetensors"}));
      const dpmp::interop::SafetensorsFile file(place / output / "weights.safetensors");
      CHECK(file.contains("head.weight") == !tied);
      CHECK(file.entry("tokens.weight").dtype == dpmp::DType::f32);
      CHECK(file.metadata().at("steps") == "6");
    }
}

TEST_CASE("the epsilon beside the loss grows from line to line and ends at the target") {
  const Workplace place;
  const Result r = run(place, "out", {"--epsilon=3"});
  std::vector<double> spent;
  for (std::size_t at = r.out.find("bits/byte  epsilon "); at != std::string::npos;
       at = r.out.find("bits/byte  epsilon ", at + 1))
    spent.push_back(std::stod(r.out.substr(at + std::string("bits/byte  epsilon ").size(), 12)));
  REQUIRE(spent.size() == 6);
  for (std::size_t k = 1; k < 6; ++k) CHECK(spent[k] > spent[k - 1]);
  CHECK(spent[5] <= 3);
  CHECK(spent[5] >= 2.99);
}

TEST_CASE("a log has the public facts of each progress line and no times, and a resumed run goes on with it") {
  const Workplace place;
  const std::string path = (place / "log.jsonl").string();
  const Words options{"--epsilon=3", "--log=" + path};
  checkpoint_after(place, "c", 2, options);
  const Result r = resume(place, "c", "out", options);
  std::vector<nlohmann::json> lines;
  std::istringstream text(test::read_text(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  REQUIRE(lines.size() == 6);
  for (std::size_t k = 0; k < 6; ++k) {
    const nlohmann::json& line = lines[k];
    std::set<std::string> names;
    for (const auto& [name, value] : line.items()) names.insert(name);
    CHECK(names == std::set<std::string>{"step", "epsilon", "delta", "noise_multiplier", "learning_rate", "held_out_loss",
                                         "bits/byte"});
    CHECK(line["step"] == k + 1);
    CHECK(line["delta"] == 1e-5);
    CHECK(line["epsilon"] > (k == 0 ? 0.0 : lines[k - 1]["epsilon"].get<double>()));
    CHECK(line["noise_multiplier"] == lines[0]["noise_multiplier"]);
    CHECK(line["bits/byte"].get<double>() * 0.6931471805599453 == doctest::Approx(line["held_out_loss"].get<double>()));
    // The peak after a warm-up of six steps.
    CHECK(line["learning_rate"] == doctest::Approx(4e-3 * double(k + 1) / 6));
  }
  CHECK(lines[5]["epsilon"] <= 3);
  CHECK(lines[5]["epsilon"] >= 2.99);
  const Result plain = run(place, "plain", {"--private=off", "--log=" + (place / "log.csv").string()});
  REQUIRE_MESSAGE(plain.code == 0, plain.error);
  CHECK(test::read_text(place / "log.csv")
            .starts_with("step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss,bits/byte\n1,,,,"));
  const Result refused = run(place, "no", {"--log=" + (place / "log.txt").string()});
  CHECK(refused.code == 1);
  CHECK(has(refused.error, "expected a log that ends with .csv"));
  CHECK_FALSE(has(refused.out, "step "));
}

TEST_CASE("P19: a report has every step of the run, before and after it was resumed, and times only where they are public") {
  const Workplace place;
  const std::string page = (place / "r.html").string();
  const Words options{"--log=" + (place / "log.csv").string(), "--report=" + page};
  checkpoint_after(place, "c", 2, options);
  CHECK(has(test::read_text(page), "After 2 of 6 planned steps"));
  const Result r = resume(place, "c", "out", options);
  const std::string text = test::read_text(page);
  const auto statement = dpmp::json_text(r.out.substr(r.out.find("After 6"), 100));
  CHECK(has(text, statement.substr(1, statement.size() - 2)));
  for (int step = 1; step <= 6; ++step) CHECK(count(text, "<td class=\"number\">" + std::to_string(step) + "</td>") >= 3);
  for (const char* private_number : {"Throughput", "unsafe_", "Unsafe"}) CHECK_FALSE(has(text, private_number));
  CHECK(run(place, "o", {"--private=off", "--report=" + page}).code == 0);
  CHECK(has(test::read_text(page), "<figcaption>Throughput</figcaption>"));
  CHECK(run(place, "o", {"--unsafe-debug", "--report-times", "--report=" + page}).code == 0);
  for (const char* told : {"Throughput", "unsafe_mean_norm", "(unsafe_debug)", "steps took is told"})
    CHECK(has(test::read_text(page), told));
  CHECK(has(run(place, "no", {"--report=" + (place / "r.txt").string()}).error, "expected a report that ends with"));
  CHECK_FALSE(std::filesystem::exists(place / "no" / "weights.safetensors"));
}

TEST_CASE("the lines at the end are drawn from the seed: the same from the same weights, others from another seed") {
  const Workplace place;
  const auto lines_of = [&](const std::string& output, Words options) {
    options.push_back("--resume=" + (place / "end").string());
    options.push_back("--lines=3");
    const Result r = run(place, output, options);
    REQUIRE_MESSAGE(r.code == 0, r.error);
    REQUIRE(count(r.out, "\n> ") == 3);
    return r.out.substr(r.out.find("\n> "));
  };
  checkpoint_after(place, "end", 6, {});
  const std::string first = lines_of("a", {});
  CHECK(lines_of("b", {}) == first);
  CHECK(lines_of("c", {"--seed=2"}) != first);
}

TEST_CASE("two private runs with the same seed differ: noise is keyed by the operating system") {
  const Workplace place;
  CHECK(run(place, "a", {"--seed=5"}).code == 0);
  CHECK(run(place, "b", {"--seed=5"}).code == 0);
  CHECK(weights(place, "a") != weights(place, "b"));
}

TEST_CASE("P20: a run that was left and resumed ends with the bits of the one that was never left") {
  const Workplace place;
  for (const std::string dtype : {"f32", "bf16"}) {
    const Words options{"--dtype=" + dtype, "--dropout=0.2"};
    checkpoint_after(place, dtype + "0", 0, options);
    CHECK(has(resume(place, dtype + "0", "whole", options).out, "trained 6 steps"));
    // The same start, left after the second and the fifth step.
    Words part = options;
    part.push_back("--stop-after=2");
    resume(place, dtype + "0", "parts", part);
    CHECK(weights(place, "parts") != weights(place, "whole"));
    part.back() = "--stop-after=3";
    CHECK(has(resume(place, "parts/checkpoint.safetensors", "parts", part).out, "After 5 of 6 planned steps"));
    CHECK(has(resume(place, "parts/checkpoint.safetensors", "parts", options).out, "trained 1 steps"));
    CHECK(weights(place, "parts") == weights(place, "whole"));
    CHECK(test::read_text(place / "parts" / "checkpoint.safetensors") ==
          test::read_text(place / "whole" / "checkpoint.safetensors"));
  }
}

TEST_CASE("P20: a run that is killed leaves complete files, and resumes from them, the same way twice") {
  const Workplace place;
  const Words options{"--steps=1000000", "--noise-multiplier=1", "--lines=0"};
  Words long_run = options;
  long_run.push_back("--checkpoint-every=1");
  {
    const test::TemporaryFolder said;
    test::Process program(place.command("killed", long_run), said.path());
    // Some steps are done when the third progress line is there.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (program.running() && count(program.out(), "bits/byte  epsilon") < 3 &&
           std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    REQUIRE_MESSAGE(program.running(), program.error());
    program.kill();
    CHECK(program.wait() == 128 + SIGKILL);
  }
  std::filesystem::copy_file(place / "killed" / "checkpoint.safetensors", place / "c");
  Words three = options;
  three.push_back("--stop-after=3");
  resume(place, "c", "once", three);
  resume(place, "c", "twice", three);
  CHECK(weights(place, "once") == weights(place, "twice"));
  CHECK(files(place / "once") == std::set<std::string>{"checkpoint.safetensors", "weights.safetensors"});
}

TEST_CASE("P20: resumed with other data or other settings, a run draws other noise and says so") {
  const Workplace place;
  checkpoint_after(place, "c", 2, {});
  CHECK_FALSE(has(resume(place, "c", "same", {}).out, "draw other records and other noise"));
  const Result rate = resume(place, "c", "rate", {"--learning-rate=0.003"});
  CHECK(has(rate.out, "(now learning rate: cosine 0.003 to "));
  CHECK(has(rate.out, "draw other records and other noise"));
  CHECK(has(rate.out, "The run continues a checkpoint of step 2 with draws and noise of its own"));
  CHECK(has(resume(place, "c", "dropout", {"--dropout=0.1"}).out, "(now data: "));
  std::string text = test::read_text(place.data());
  const std::string first = text.substr(0, text.find('\n'));
  for (char other = 'a'; text.starts_with(first); ++other) {
    std::string changed = first;
    changed[2] = other;
    if (other != first[2] && is_held_out(changed) == is_held_out(first)) text.replace(0, first.size(), changed);
  }
  test::write_text(place / "other text", text);
  CHECK(has(resume(place, "c", "data", {"--data=" + (place / "other text").string()}).out,
            "draw other records and other noise"));
}

TEST_CASE(
    "adapters learn privately on top of public weights: the base keeps its bits, and the run resumes with the same ones") {
  const Workplace place;
  const auto bytes_of = [](const std::filesystem::path& file, const std::string& name) {
    dpmp::interop::SafetensorsFile weights(file);
    const dpmp::interop::TensorEntry entry = weights.entry(name);
    std::string bytes(std::size_t(entry.end - entry.begin), '\0');
    weights.read(name, entry.dtype.native().value(), dpmp::Shape(entry.shape), bytes.data());
    return bytes;
  };
  const auto end_of = [](const std::string& text, const std::string& line) {
    const std::size_t at = text.find("bits/byte", text.find(line));
    return text.substr(at - 7, 7);
  };
  const Result base = run(place, "public", {"--private=off", "--learning-rate=0.01"});
  REQUIRE_MESSAGE(base.code == 0, base.error);
  const std::filesystem::path start = place / "public" / "weights.safetensors";
  const std::string from = "--weights=" + start.string();
  const Words options{"--lora-rank=2", "--lora-alpha=4"};
  Words fresh = options;
  fresh.push_back(from);
  const Result adapted = run(place, "adapted", fresh);
  REQUIRE_MESSAGE(adapted.code == 0, adapted.error);
  // 2 (16 + 48) + 2 (16 + 16) + 2 * 2 (16 + 64): the factors of the four linear layers of one block of width 16.
  CHECK(has(adapted.out, "adapters: 512 parameters, the only ones that are trained"));
  CHECK(end_of(adapted.out, "start: " + start.string() + ", taken as public") == end_of(base.out, "trained 6 steps"));
  CHECK(has(adapted.out, "is (8.0000, 1e-05)-differentially private"));
  const std::filesystem::path result = place / "adapted" / "weights.safetensors";
  for (const char* name : {"tokens.weight", "positions.weight", "block0.mlp.up.weight", "norm.gain", "head.weight"})
    CHECK(bytes_of(result, name) == bytes_of(start, name));
  for (const char* name : {"block0.attention.qkv.lora_b", "block0.mlp.down.lora_b"})
    CHECK(bytes_of(result, name).find_first_not_of('\0') != std::string::npos);
  CHECK(dpmp::interop::SafetensorsFile(result).metadata().at("adapters") == "of rank 2 with alpha 4");
  REQUIRE(run(place, "whole", {from}).code == 0);
  CHECK(bytes_of(place / "whole" / "weights.safetensors", "tokens.weight") != bytes_of(start, "tokens.weight"));
  // Adapters as a start of their own.
  Words on = options;
  on.push_back("--weights=" + result.string());
  CHECK(end_of(run(place, "further", on).out, "start: ") == end_of(adapted.out, "trained 6 steps"));

  checkpoint_after(place, "c", 2, fresh);
  resume(place, "c", "once", options);
  CHECK_FALSE(has(resume(place, "c", "twice", options).out, "draw other records and other noise"));
  CHECK(weights(place, "once") == weights(place, "twice"));
  CHECK(has(resume(place, "c", "alpha", {"--lora-rank=2", "--lora-alpha=5"}).out, "draw other records and other noise"));

  const auto refused = [&](const Words& words, const std::string& part) {
    const Result r = run(place, "out", words);
    CHECK(r.code != 0);
    CHECK_MESSAGE(has(r.error, part), r.error);
    CHECK_FALSE(std::filesystem::exists(place / "out"));
  };
  const std::string checkpoint = (place / "c").string();
  refused({from, "--width=32"}, "the weights of a model of width 32, 1 layers, 2 heads, context 16, not tied, got width 16");
  refused({from, "--heads=4"}, "got width 16, 1 layers, 2 heads");
  refused({from, "--tied"}, "got width 16");
  refused({"--weights=" + result.string()}, "or those of this run (none), got of rank 2 with alpha 4");
  refused({"--weights=" + result.string(), "--lora-rank=3"}, "got of rank 2 with alpha 4");
  refused({"--weights=" + checkpoint}, "got nothing about it");
  refused({"--weights=" + (place / "missing").string()}, "expected a readable file");
  refused({from, "--resume=" + checkpoint}, "--weights");
  refused({"--resume=" + checkpoint}, "checkpoint: block0.attention.qkv.lora_a: f32[2, 16], clipping group 0");
  refused({"--lora-rank=2"}, "expected --weights");
  refused({from, "--lora-rank=-1"}, "a LoRA rank >= 0 (0: none), got -1");
  refused({from, "--lora-rank=2", "--lora-alpha=0"}, "alpha > 0");
}

TEST_CASE("bad input: options out of range are refused, and nothing is written") {
  const Workplace place;
  const auto refused = [&](const Words& options, const std::string& part) {
    std::string all;
    for (const std::string& option : options) all += option + ' ';
    CAPTURE(all);
    const Result r = run(place, "out", options);
    CHECK(r.code != 0);
    CHECK_MESSAGE(has(r.error, part), r.error);
    CHECK_FALSE(has(r.out, "step "));
    CHECK_FALSE(std::filesystem::exists(place / "out"));
  };
  for (const char* bad : {"0", "-1", "nan", "inf"})
    refused({"--epsilon=" + std::string(bad)}, "expected a finite target epsilon > 0, got");
  for (const char* bad : {"0", "1", "-1e-5", "nan"})
    refused({"--delta=" + std::string(bad)}, "expected a delta in (0, 1), got");
  for (const char* bad : {"0", "-1", "nan", "inf"})
    refused({"--noise-multiplier=" + std::string(bad)}, "expected a finite noise multiplier > 0, got");
  for (const char* bad : {"0", "-1", "nan", "inf"})
    refused({"--clip=" + std::string(bad)}, "expected a finite clip threshold > 0, got");
  for (const char* name : {"steps", "batch", "evaluate-every", "evaluate-records"})
    for (const char* bad : {"0", "-3"}) refused({"--" + std::string(name) + "=" + bad}, "evaluate-records >= 1");
  for (const char* name : {"checkpoint-every", "lines", "stop-after"})
    refused({"--" + std::string(name) + "=-1"}, "stop-after >= 0");
  for (const char* bad : {"0", "-4"})
    refused({"--physical-batch=" + std::string(bad)},
            "expected a physical batch of at least one slot, got " + std::string(bad));
  refused({"--threads=-1"}, "expected a number of threads >= 0 (0: all cores), got -1");
  refused({"--heads=3"}, "heads that divide the width");
  refused({"--width=0"}, "width 0");
  refused({"--context=0"}, "context 0");
  refused({"--layers=-1"}, "layers -1");
  refused({"--dropout=1"}, "dropout rate in [0, 1), got 1");
  refused({"--learning-rate=-1"}, "expected finite learning rates >= 0, got -1");
  refused({"--warm-up=-1"}, "warm_up");
  refused({"--dtype=f8"}, "expected a dtype name (f32, bf16, f16, f64, i32), got 'f8'");
  refused({"--dtype=i32"}, "expected a floating dtype");
  refused({"--private=maybe"}, "--private");
  refused({"--steps=many"}, "--steps");
  refused({"--epsilon=3", "--noise-multiplier=1"}, "--noise-multiplier");
  refused({"--colour=red"}, "--colour");
  refused({"--private=off", "--resume=x"}, "expected --resume with private training, got --private=off");
  refused({"--moments=bf16", "--optimiser=lamb"}, "expected --optimiser adamw with --moments bf16, got lamb");
}

TEST_CASE("bad input: data that is missing, empty, too little, or no UTF-8 text is refused, and nothing is written") {
  const Workplace place;
  const auto refused = [&](const std::string& name, const std::string& part) {
    CAPTURE(name);
    const Result r = run(place, "out", {"--data=" + (place / name).string()});
    CHECK(r.code == 1);
    CHECK_MESSAGE(has(r.error, part), r.error);
    CHECK(has(r.error, name));
    CHECK_FALSE(std::filesystem::exists(place / "out"));
  };
  refused("missing", "expected a readable text file");
  std::filesystem::create_directory(place / "folder");
  refused("folder", "expected a readable text file");
  test::write_text(place / "empty", "");
  refused("empty", "expected at least one record");
  test::write_text(place / "blank", "\n\n\n");
  refused("blank", "expected at least one record");
  test::write_text(place / "latin1", "good\ncaf\xe9\n");
  refused("latin1", "byte 4 of line 2");
  test::write_text(place / "cut", "good\nsch\xc3");
  refused("cut", "byte 4 of line 2");
  test::write_text(place / "binary", std::string("a\nb\0c\n", 6));
  refused("binary", "NUL byte in line 2");
  test::write_text(place / "single", "one line\n");
  const Result r = run(place, "out", {"--data=" + (place / "single").string()});
  CHECK(r.code == 1);
  CHECK(has(r.error, "expected records to learn and records to hold out"));
  CHECK_FALSE(std::filesystem::exists(place / "out"));
  CHECK(test::Process({DPMP_TRAIN_GPT}, place.data().parent_path()).wait() != 0);  // no --data at all
}

TEST_CASE("bad input: an output folder that cannot be written to is found out before training") {
  const Workplace place;
  test::write_text(place / "file", "here first");
  // Below a regular file, and the file itself.
  for (const std::string name : {"file/out", "file"}) {
    const Result r = run(place, name, {});
    CHECK(r.code == 1);
    CHECK_MESSAGE(has(r.error, "expected a folder that can be made for --output, got '" + (place / name).string() + "'"),
                  r.error);
    CHECK_FALSE(has(r.out, "step "));
  }
  CHECK(test::read_text(place / "file") == "here first");
  // A folder whose file cannot be put in its place leaves no temporary file behind.
  std::filesystem::create_directories(place / "taken" / "weights.safetensors");
  const Result r = run(place, "taken", {});
  CHECK(r.code == 1);
  CHECK(has(r.error, "weights.safetensors"));
  CHECK_FALSE(has(r.out, "step "));
  CHECK(files(place / "taken") == std::set<std::string>{"weights.safetensors"});
}

TEST_CASE("bad input: a checkpoint that is missing, cut off, or of another model is refused, and nothing is written") {
  const Workplace place;
  checkpoint_after(place, "c", 2, {});
  const std::string whole = test::read_text(place / "c");
  const auto refused = [&](Words options, const std::string& part) {
    options.push_back("--resume=" + (place / "x").string());
    const Result r = run(place, "out", options);
    CHECK(r.code == 1);
    CHECK_MESSAGE(has(r.error, part), r.error);
    CHECK_FALSE(has(r.out, "step "));
    CHECK_FALSE(std::filesystem::exists(place / "out"));
  };
  refused({}, "expected a readable file");
  test::Rng rng;
  for (std::size_t length : {std::size_t(0), std::size_t(7), std::size_t(100), whole.size() / 2, whole.size() - 1,
                             std::size_t(rng.integer(0, std::int64_t(whole.size()) - 1))}) {
    CAPTURE(length);
    test::write_text(place / "x", whole.substr(0, length));
    refused({}, "expected");
  }
  test::write_text(place / "x", test::read_text(place / "from" / "weights.safetensors"));
  refused({}, "expected a checkpoint of a private run");
  test::write_text(place / "x", whole);
  refused({"--width=32"}, "[256, 16], clipping group 0, weight decay 0, learning rate times 1");
  refused({"--layers=2"}, "block1");
  test::write_text(place / "more text", test::read_text(place.data()) + "one\nmore\nline\n");
  refused({"--data=" + (place / "more text").string()}, "expected 1 to 57 records");
}
