// SPDX-License-Identifier: Apache-2.0
// The programs of examples/README.md: each runs, says nothing on standard error, and learns or releases what it says.
#include <doctest/doctest.h>

#include <cmath>
#include <regex>

#include "support/process.hpp"

namespace {
/// What a program of the course writes.
std::string output_of(const std::string& program) {
  const test::TemporaryFolder folder;
  test::Process process({std::string(DPMP_COURSE) + "/" + program}, folder.path());
  CHECK_MESSAGE(process.wait() == 0, process.error());
  CHECK(process.error() == "");
  return process.out();
}
/// The numbers of the pattern's groups, match by match.
std::vector<std::vector<double>> numbers(const std::string& text, const std::string& pattern) {
  CAPTURE(text);
  const std::regex wanted(pattern);
  std::vector<std::vector<double>> found;
  for (std::sregex_iterator m(text.begin(), text.end(), wanted), end; m != end; ++m) {
    found.emplace_back();
    for (std::size_t k = 1; k < m->size(); ++k) found.back().push_back(std::stod((*m)[k].str()));
  }
  REQUIRE(!found.empty());
  return found;
}
const std::string number = "([-0-9.e]+)";
}  // namespace

TEST_CASE("course: a private mean is within six standard deviations of the ages' mean, 48") {
  const std::string text = output_of("private_mean");
  const auto rows = numbers(text, "epsilon " + number + ": mean " + number + ", noise of standard deviation " + number);
  REQUIRE(rows.size() == 3);
  // Of 10000 uniform ages in (18, 78): the mean is off by 17.3 / 100.
  for (const auto& row : rows) CHECK(std::abs(row[1] - 48) <= 6 * (row[2] + 0.18));
  CHECK(rows[0][2] > rows[1][2]);
  CHECK(rows[1][2] > rows[2][2]);
  CHECK(text.find("differentially private") != std::string::npos);
}

TEST_CASE("course: logistic regression is right without privacy and where there is little noise") {
  const auto rows = numbers(output_of("logistic_regression"), ": " + number + " % right");
  REQUIRE(rows.size() == 5);
  // 19 labels of 20 are right. At epsilon 2 and 8 the noise on a weight is at most 0.12; at less it may hide the plane.
  for (const std::size_t k : {0, 3, 4}) CHECK(rows[k][0] > 75);
}

TEST_CASE("course: networks, own layers, own loops and adapters learn") {
  const auto before_and_after = [](const std::string& program, const std::string& pattern) {
    const auto row = numbers(output_of(program), pattern);
    return std::pair(row.front().front(), row.back().back());
  };
  const auto mlp = before_and_after("mlp", ": " + number + " %");
  CHECK(mlp.second > mlp.first + 20);
  const auto gpt = before_and_after("quickstart", "loss " + number + " nats a token, " + number + " before training");
  CHECK(gpt.first < 0.9 * gpt.second);
  const std::string layer = output_of("own_layer");
  CHECK(numbers(layer, "epsilon [0-9.]+: " + number).back()[0] < 0.9 * numbers(layer, "before training: " + number)[0][0]);
  const auto loop = before_and_after("own_loop", "squared error " + number);
  CHECK(loop.first < 0.8);
  const auto lora = numbers(output_of("lora"), "(?:zero|epsilon [0-9.]+): " + number);
  CHECK(lora.back().back() < 0.9 * lora.front().front());
}

TEST_CASE("course: an audit refutes the claim where half of the noise is missing, and only there") {
  // One audit sees half of the noise in more than nine runs of ten.
  bool found = false;
  for (int run = 0; run < 6 && !found; ++run) {
    const test::TemporaryFolder folder;
    test::Process process({std::string(DPMP_COURSE) + "/audit"}, folder.path());
    const int status = process.wait();
    const std::string text = process.out();
    CHECK(process.error() == "");
    const double claim = numbers(text, "claim: epsilon " + number)[0][0];
    const auto bounds = numbers(text, "epsilon is at least " + number + ", mu at least " + number);
    REQUIRE(bounds.size() == 3);
    CHECK(bounds[0][0] > 0);
    CHECK(bounds[0][0] < claim);
    CHECK(bounds[2][0] < claim);
    CHECK(text.find("Audited: one run of 4 steps") != std::string::npos);
    CHECK(text.find("the claim is not refuted") != std::string::npos);
    found = status == 0 && text.find("refuted, as it should be") != std::string::npos;
  }
  CHECK(found);
}

TEST_CASE("course: models from public pieces learn") {
  for (const auto& row : numbers(output_of("models"), "held-out loss " + number + " -> " + number)) CHECK(row[1] < row[0]);
}

TEST_CASE("course: the program for any device trains on the one that is there") {
  const std::string text = output_of("on_a_gpu");
  CHECK(text.find("device: ") == 0);
  CHECK(text.find("trained 10 steps") != std::string::npos);
}
