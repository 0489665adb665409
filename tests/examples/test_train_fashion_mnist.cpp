// SPDX-License-Identifier: Apache-2.0
// examples/train_fashion_mnist as its users run it, on a tiny data set of its own: what it prints and what it refuses.
#include <doctest/doctest.h>

#include "support/fashion_files.hpp"
#include "support/process.hpp"

namespace {
using Words = std::vector<std::string>;
using Data = test::FashionFiles;
using test::idx, test::write_gzip;

struct Result {
  int code;
  std::string out, error;
};
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
Result run(const std::filesystem::path& data, const Words& options) {
  Words all{DPMP_TRAIN_FASHION_MNIST, "--data=" + data.string(), "--threads=1", "--physical-batch=16"};
  all.insert(all.end(), options.begin(), options.end());
  const test::TemporaryFolder said;
  test::Process program(all, said.path());
  const int code = program.wait();
  return {code, program.out(), program.error()};
}
double last_accuracy(const std::string& out) {
  const std::string before = "all 20 test images: ";
  return std::stod(out.substr(out.find(before) + before.size()));
}
}  // namespace

TEST_CASE("every dtype, private or not: accuracy and epsilon along the way, and the statement at the end") {
  const Data data;
  for (const std::string dtype : {"f32", "bf16", "f16"})
    for (const bool is_private : {true, false}) {
      CAPTURE(dtype);
      CAPTURE(is_private);
      const Result r = run(data.path(), {"--dtype=" + dtype, "--steps=3", "--evaluate-every=1", "--batch=20", "--epsilon=3",
                                         is_private ? "--private=on" : "--private=off"});
      CHECK(r.code == 0);
      CHECK(r.error == "");
      CHECK(has(r.out, "data: 60 images to learn, 20 to test"));
      CHECK(has(r.out, "10380 parameters in " + dtype + ", 1 threads"));
      for (int step = 1; step <= 3; ++step) CHECK(has(r.out, "step    " + std::to_string(step) + "/3  test accuracy "));
      CHECK(has(r.out, "epsilon none") == !is_private);
      CHECK(has(r.out, "epsilon 3.000  ") == is_private);
      CHECK(has(r.out,
                "After 3 of 3 planned steps, the sequence of all released parameters is (3.0000, "
                "1e-05)-differentially private") == is_private);
      CHECK(last_accuracy(r.out) >= 0);
    }
  const Result few = run(data.path(), {"--steps=1", "--batch=5", "--limit-records=30", "--info"});
  CHECK(has(few.out, "data: 30 images to learn, 20 to test"));
  CHECK(has(few.out, "sampling rate             0.1666666667"));
  CHECK(has(few.out, "products: "));
}

TEST_CASE("without privacy the network learns its tiny data set; the running average can be turned off") {
  const Data data;
  for (const char* average : {"--average=0", "--average=0.5"}) {
    const Result r = run(data.path(), {"--private=off", "--steps=100", "--batch=30", "--learning-rate=0.05", average});
    CHECK(r.code == 0);
    CHECK(last_accuracy(r.out) >= 70);  // chance is 10
  }
}

TEST_CASE("bad input: data that is missing, cut off or something else, and options that fit nothing") {
  const auto refused = [](const std::filesystem::path& folder, const Words& options, const std::string& part) {
    const Result r = run(folder, options);
    CAPTURE(r.error);
    CAPTURE(r.out);
    CHECK(r.code != 0);
    CHECK(has(r.error + r.out, part));
  };
  const Data good;
  const Words quick{"--steps=1", "--batch=10"};
  refused("/nowhere/at/all", quick,
          "expected the Fashion-MNIST file train-images-idx3-ubyte.gz in '/nowhere/at/all', got none "
          "(Debian and Ubuntu: apt install dataset-fashion-mnist");
  {
    const Data data;
    std::filesystem::remove(data / "t10k-labels-idx1-ubyte.gz");
    refused(data.path(), quick, "t10k-labels-idx1-ubyte.gz");
  }
  const std::string images = "train-images-idx3-ubyte.gz", labels = "train-labels-idx1-ubyte.gz";
  {
    const Data data;
    std::filesystem::resize_file(data / images, std::filesystem::file_size(data / images) / 2);
    refused(data.path(), quick, "expected a complete gzip file");
  }
  {
    const Data data;
    write_gzip(data / images, "\x01" + idx({1, 28, 28}, std::string(784, 'x')));
    refused(data.path(), quick, "expected an IDX file, two zero bytes first");
  }
  {
    const Data data;
    write_gzip(data / images, idx({60, 28, 27}, std::string(60 * 28 * 27, 'x')));
    refused(data.path(), quick, "expected images [n, 28, 28] and labels [n] of train");
  }
  {
    const Data data;
    write_gzip(data / labels, idx({59}, std::string(59, '\1')));
    refused(data.path(), quick, "and [59]");
  }
  {
    const Data data;
    write_gzip(data / labels, idx({60}, std::string(60, '\12')));
    refused(data.path(), quick, "expected labels 0 to 9 of train");
  }
  refused(good.path(), {"--batch=61"}, "expected a batch of at most the 60 images to learn, got 61");
  refused(good.path(), {"--batch=10", "--steps=0"}, "expected steps");
  refused(good.path(), {"--batch=10", "--limit-records=0"}, "limit-records >= 1");
  refused(good.path(), {"--batch=10", "--epsilon=-1"}, "epsilon");
  refused(good.path(), {"--batch=10", "--dtype=i32"}, "floating dtype");
  refused(good.path(), {"--batch=10", "--private=maybe"}, "--private");
  refused(good.path(), {"--batch=10", "--average=1.5"}, "--average");
  refused(good.path(), {"--batch=10", "--momentum=1"}, "momentum");
}
