// SPDX-License-Identifier: Apache-2.0
// Plots: whatever the numbers, what is drawn is on the paper and where it belongs, and no label covers another one.
#include <doctest/doctest.h>

#include <charconv>
#include <cmath>

#include "dpmp/train/report_plot.hpp"
#include "support/errors.hpp"
#include "support/markup.hpp"
#include "support/random.hpp"

using namespace dpmp;
using train::Plot;

namespace {
test::Markup read(const std::string& svg) { return test::Markup("<!DOCTYPE html>" + svg); }
double number(const std::string& text) {
  double x = NAN;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  REQUIRE((error == std::errc() && end == text.data() + text.size()));
  return x;
}
struct Words {
  double left, right, top, bottom;
  std::string text;
};
/// About where a text stands: characters of 12 pixels are less than 7 wide on average in the fonts of the style sheet.
Words place_of(const test::Element& text) {
  const double x = number(text.attributes.at("x")), y = number(text.attributes.at("y"));
  const double width = 6.5 * double(text.text.size());
  const std::string anchor = text.attributes.at("text-anchor");
  const double left = anchor == "start" ? x : anchor == "end" ? x - width : x - width / 2;
  return {left, left + width, y - 9, y + 2, text.text};
}
bool overlap(const Words& a, const Words& b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
/// The value that a tick's text stands for: 10-5 is 10 to the power of -5 in a logarithmic plot.
double tick_value(const std::string& text, bool logarithmic) {
  return logarithmic ? std::pow(10.0, number(text.substr(2))) : number(text);
}
}  // namespace

TEST_CASE("points are where the ticks say, all is on the paper, and labels do not overlap, for numbers of any size") {
  test::Rng rng;
  for (int trial = 0; trial < 400; ++trial) {
    Plot plot{.title = "a plot", .x = {.label = "steps"}, .y = {.label = "loss"}, .lines = {{"line-1", {}}}};
    plot.y.logarithmic = rng.integer(0, 1) == 1;
    plot.y.from_zero = !plot.y.logarithmic && rng.integer(0, 1) == 1;
    const int points = int(rng.integer(1, 30));
    const double size = std::pow(10.0, rng.uniform(-8, 8)), spread = std::pow(10.0, rng.uniform(-3, 0));
    const double last_step = std::floor(std::pow(10.0, rng.uniform(0, 7)));
    for (int k = 0; k < points; ++k) {
      const double y = plot.y.logarithmic ? size * std::pow(10.0, rng.uniform(-6, 0)) : size * (1 + spread * rng.uniform());
      plot.lines[0].points.emplace_back(points == 1 ? last_step : std::floor(last_step * k / (points - 1)), y);
    }
    plot.marks = {{plot.lines[0].points.back().first, plot.lines[0].points.back().second, "(7.4156, 1e-05)"}};
    const std::string svg = train::svg_of(plot);
    CAPTURE(svg);
    const test::Markup markup = read(svg);

    std::vector<std::size_t> notches;
    for (std::size_t k = 0; k < markup.named("line").size(); ++k)
      if (markup.named("line")[k].attributes.at("class") == "notch") notches.push_back(k);
    std::vector<Words> words;
    std::vector<std::pair<double, double>> x_ticks, y_ticks;  // place and value
    for (const test::Element& text : markup.named("text")) {
      words.push_back(place_of(text));
      CHECK(words.back().left >= -1);
      CHECK(words.back().right <= 381);
      CHECK(words.back().top >= 0);
      CHECK(words.back().bottom <= 262);
      if (text.attributes.at("class") != "tick") continue;
      const bool of_x = text.attributes.at("text-anchor") == "middle";
      if (of_x)
        x_ticks.emplace_back(number(markup.named("line")[notches[x_ticks.size()]].attributes.at("x1")),
                             tick_value(text.text, false));
      else
        y_ticks.emplace_back(number(text.attributes.at("y")) - 4, tick_value(text.text, plot.y.logarithmic));
    }
    for (std::size_t k = 0; k < words.size(); ++k)
      for (std::size_t j = 0; j < k; ++j) {
        CAPTURE(words[k].text);
        CAPTURE(words[j].text);
        CHECK_FALSE(overlap(words[k], words[j]));
      }
    CHECK(y_ticks.size() >= 2);
    // The mark is at the last point: from two ticks follows where that is. A tick's text has few digits, and pixels one
    // behind the point.
    const test::Element mark = markup.named("circle").back();
    const auto& [x, y] = plot.lines[0].points.back();
    const auto expected = [](const auto& ticks, double value, bool logarithmic) {
      const auto along = [&](double v) { return logarithmic ? std::log10(v) : v; };
      const auto &a = ticks.front(), &b = ticks.back();
      return a.first + (b.first - a.first) * (along(value) - along(a.second)) / (along(b.second) - along(a.second));
    };
    CHECK(std::abs(number(mark.attributes.at("cy")) - expected(y_ticks, y, plot.y.logarithmic)) < 0.5);
    if (x_ticks.size() >= 2) CHECK(std::abs(number(mark.attributes.at("cx")) - expected(x_ticks, x, false)) < 0.5);
  }
}

TEST_CASE("points that are not finite break a line, and a plot without points is refused") {
  const Plot plot{.title = "t",
                  .x = {.label = "x"},
                  .y = {.label = "y"},
                  .lines = {{"line-1", {{0, 1}, {1, 2}, {2, NAN}, {3, 1}, {4, INFINITY}, {5, 1}, {6, 2}}}}};
  const test::Markup markup = read(train::svg_of(plot));
  CHECK(markup.named("polyline").size() == 2);
  CHECK(markup.named("circle").size() == 1);  // a point between two that are not there
  Plot none = plot;
  none.lines[0].points = {{0, NAN}};
  CHECK(test::refuses([&] { train::svg_of(none); }, "expected a point to plot in 't', got none"));
  none.lines[0].points = {{0, 0}, {1, -1}};
  none.y.logarithmic = true;
  CHECK(test::refuses([&] { train::svg_of(none); }, "expected a point to plot"));
}

TEST_CASE("words of a plot are text") {
  const Plot plot{.title = "<b>&",
                  .x = {.label = "\"x\""},
                  .y = {.label = "</svg>"},
                  .lines = {{"line-1", {{0, 1}, {1, 2}}}},
                  .marks = {{1, 2, "<i>"}}};
  const test::Markup markup = read(train::svg_of(plot));
  CHECK(markup.named("title").front().text == "<b>&");
  CHECK(markup.named("b").empty());
  CHECK(markup.named("i").empty());
}
