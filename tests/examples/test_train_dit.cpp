// SPDX-License-Identifier: Apache-2.0
// examples/train_dit as its users run it, on a tiny data set of its own: what it prints, writes, draws again and refuses.
#include <doctest/doctest.h>
#include <png.h>

#include "../../examples/draw_pictures.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/fashion_files.hpp"
#include "support/process.hpp"

using namespace dpmp;

namespace {
using Words = std::vector<std::string>;
using examples::DiffusionTransformer;

struct Grey {
  index_t width = 0, height = 0;
  std::vector<std::uint8_t> pixels;
};
Grey read_png(const std::filesystem::path& path) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  REQUIRE(png_image_begin_read_from_file(&image, path.c_str()) != 0);
  CHECK(image.format == PNG_FORMAT_GRAY);
  image.format = PNG_FORMAT_GRAY;
  Grey grey{index_t(image.width), index_t(image.height), std::vector<std::uint8_t>(PNG_IMAGE_SIZE(image))};
  REQUIRE(png_image_finish_read(&image, nullptr, grey.pixels.data(), 0, nullptr) != 0);
  return grey;
}

struct Result {
  int code;
  std::string out, error;
};
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
/// A small model, unless the options say otherwise.
Result run(const std::filesystem::path& data, const std::filesystem::path& output, const Words& options) {
  Words all{DPMP_TRAIN_DIT};
  for (const std::string& word : {"--data=" + data.string(), "--output=" + output.string(), std::string("--threads=1"),
                                  std::string("--sampling-steps=3"), std::string("--columns=2"), std::string("--width=16"),
                                  std::string("--layers=1"), std::string("--heads=2"), std::string("--patch=7")}) {
    const auto name = word.substr(0, word.find('=') + 1);
    if (std::none_of(options.begin(), options.end(), [&](const std::string& o) { return o.starts_with(name); }))
      all.push_back(word);
  }
  all.insert(all.end(), options.begin(), options.end());
  const test::TemporaryFolder said;
  test::Process program(all, said.path());
  const int code = program.wait();
  return {code, program.out(), program.error()};
}
}  // namespace

TEST_CASE(
    "every dtype, private or not: epsilon along the way, a grid of pictures, the statement; drawing again is the same") {
  const test::FashionFiles data;
  for (const std::string dtype : {"f32", "bf16", "f16"})
    for (const bool is_private : {true, false}) {
      CAPTURE(dtype);
      CAPTURE(is_private);
      const test::TemporaryFolder place;
      const Result r = run(data.path(), place.path(),
                           {"--dtype=" + dtype, "--steps=3", "--evaluate-every=1", "--batch=20", "--physical-batch=16",
                            "--draws=2", "--epsilon=3", is_private ? "--private=on" : "--private=off"});
      CHECK(r.code == 0);
      CHECK(r.error == "");
      CHECK(has(r.out, "data: 60 images to learn, 20 to test"));
      CHECK(has(r.out, "parameters in " + dtype + ", 28 x 28 pixels, patches of 7 x 7 with 2 around, width 16, 1 layers"));
      for (int step = 1; step <= 3; ++step) CHECK(has(r.out, "step    " + std::to_string(step) + "/3  held-out loss "));
      CHECK(has(r.out, "epsilon none") == !is_private);
      CHECK(has(r.out, "samples/s") == !is_private);
      CHECK(has(r.out, "(3.0000, 1e-05)-differentially private") == is_private);
      const Grey grid = read_png(place.path() / "samples.png");
      CHECK(grid.width == 2 * 60);
      CHECK(grid.height == 10 * 60);

      // The library draws what the program has drawn, each pixel twice in both directions.
      Context ctx(Device::cpu(), 1);
      DiffusionTransformer model(ctx, {.patch = 7, .width = 16, .layers = 1, .heads = 2}, parse_dtype(dtype), 1);
      train::load_weights(place.path() / "weights.safetensors", model.parameters());
      std::vector<std::int32_t> labels;
      for (std::int32_t k = 0; k < 20; ++k) labels.push_back(k / 2);
      const auto pictures = examples::draw_pictures(model, labels, {.steps = 3});
      for (index_t k = 0; k < 20; ++k)
        for (index_t y = 0; y < 56; ++y)
          for (index_t x = 0; x < 56; ++x)
            if (grid.pixels[std::size_t((k / 2 * 60 + y + 2) * grid.width + k % 2 * 60 + x + 2)] !=
                pictures[std::size_t((k * 28 + y / 2) * 28 + x / 2)])
              FAIL("another picture: number ", k, ", pixel ", y, ", ", x);

      const std::string weights = "--generate=" + (place.path() / "weights.safetensors").string();
      const test::TemporaryFolder again;
      const std::string before = test::read_text(place.path() / "samples.png");
      CHECK(run("/nowhere", again.path(), {weights, "--dtype=" + dtype, "--physical-batch=7"}).code == 0);
      CHECK(test::read_text(again.path() / "samples.png") == before);
      CHECK(run("/nowhere", again.path(), {weights, "--dtype=" + dtype, "--seed=2"}).code == 0);
      CHECK(test::read_text(again.path() / "samples.png") != before);
    }
}

TEST_CASE("islands of f32, checkpointing and a strategy: the program says that it has them, and draws") {
  const test::FashionFiles data;
  const test::TemporaryFolder place;
  const Result r = run(data.path(), place.path(),
                       {"--steps=1", "--batch=20", "--fp32-residual", "--fp32-norms", "--fp32-logits",
                        "--checkpointing=selective", "--strategy=two-pass", "--info"});
  CHECK(r.code == 0);
  CHECK(has(r.out, "parameters in bf16, "));
  for (const char* island : {"residual stream f32", "logits f32"}) CHECK(has(r.out, island));
  CHECK(has(r.out, "products: "));
  CHECK(has(r.out, "second walk"));
  CHECK(read_png(place.path() / "samples.png").width == 2 * 60);
}

TEST_CASE("the table: a row for each dtype, batch and kind of checkpointing") {
  const test::TemporaryFolder place;
  const Result r = run("/nowhere", place.path(), {"--table", "--physical-batch=2", "--strategy=two-pass"});
  CHECK(r.error == "");
  CHECK(has(r.out, "strategy two-pass; 28 x 28 pixels"));
  for (const std::string dtype : {"f32 ", "bf16", "f16 "})
    for (const char* how : {"none", "selective", "block"}) {
      const std::string row = dtype + "        2 ";
      CHECK(has(r.out, row + std::string(14 - std::string(how).size(), ' ') + how));
    }
}

TEST_CASE("bad input: data, weights and options that fit nothing are refused") {
  const test::FashionFiles data;
  const test::TemporaryFolder place;
  const auto refused = [&](const std::filesystem::path& folder, const Words& options, const std::string& part) {
    const Result r = run(folder, place.path(), options);
    CAPTURE(r.error);
    CAPTURE(r.out);
    CHECK(r.code != 0);
    CHECK(has(r.error + r.out, part));
    CHECK_FALSE(has(r.out, "step "));
    CHECK_FALSE(std::filesystem::exists(place.path() / "samples.png"));
  };
  refused(data.path(), {"--checkpointing=some"}, "--checkpointing");
  refused(data.path(), {"--strategy=some"}, "--strategy");
  refused("/nowhere/at/all", {}, "expected the Fashion-MNIST file train-images-idx3-ubyte.gz in '/nowhere/at/all'");
  refused(data.path(), {"--batch=61"}, "expected a batch of at most the 60 images to learn, got 61");
  const Words quick{"--batch=10", "--steps=1"};
  const auto with = [&](const std::string& option) {
    Words all = quick;
    all.push_back(option);
    return all;
  };
  refused(data.path(), with("--draws=0"), "expected draws >= 1, got 0");
  refused(data.path(), with("--columns=-1"), "columns >= 0");
  refused(data.path(), with("--evaluate-records=0"), "evaluate-records");
  refused(data.path(), with("--label-dropout=2"), "--label-dropout");
  refused(data.path(), with("--sampling-noise=2"), "noise in [0, 1]");
  refused(data.path(), with("--sampling-steps=0"), "expected steps and a physical batch >= 1");
  refused(data.path(), with("--patch=5"), "expected a patch that divides the side 28, got 5");
  refused(data.path(), with("--width=18"), "a multiple of 4, got 18");
  refused(data.path(), with("--heads=3"), "heads that divide it");
  refused(data.path(), with("--margin=-1"), "margin >= 0, got -1");
  refused(data.path(), with("--dtype=i32"), "floating dtype");
  refused(data.path(), with("--epsilon=-1"), "epsilon");
  refused(data.path(), with("--private=maybe"), "--private");
  refused(data.path(), with("--output=/dev/null/x"), "expected a folder that can be made for --output");
  refused(data.path(), {"--generate=/nowhere"}, "/nowhere");
  Context ctx(Device::cpu(), 1);
  const examples::DiffusionConfig config{
      .side = 8, .patch = 4, .width = 16, .layers = 2, .heads = 2, .classes = 3, .margin = 1};
  DiffusionTransformer other(ctx, config, DType::f32, 1);
  train::save_weights(place.path() / "other", other.parameters(), {{"model", config.text()}});
  refused(
      data.path(), {"--generate=" + (place.path() / "other").string()},
      "to have the weights of a model of 28 x 28 pixels, patches of 7 x 7 with 2 around, width 16, 1 layers, 2 heads, 10 "
      "classes, got 8 x 8 pixels");
  refused(data.path(), {"--generate=" + (data / "train-images-idx3-ubyte.gz").string()}, "expected");
}
