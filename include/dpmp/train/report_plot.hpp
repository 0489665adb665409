// SPDX-License-Identifier: Apache-2.0
// One line plot as inline SVG, for the page of train/report.hpp: axes with round ticks, lines, marked points. Colours are
// classes of that page's style sheet.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI::train {
struct PlotAxis {
  std::string label;  // with its unit
  bool logarithmic = false;
  bool from_zero = false;
  double low = 0, high = 0;  // the range; equal: that of the points
};
struct PlotLine {
  std::string style;  // class: "line-1", "line-2", "dashed", "diagonal"
  std::vector<std::pair<double, double>> points;
};
/// A point to look at, with a few words.
struct PlotMark {
  double x = 0, y = 0;
  std::string words;
};
struct Plot {
  std::string title;
  PlotAxis x, y;
  std::vector<PlotLine> lines;
  std::vector<PlotMark> marks = {};
};

/// An SVG element, well-formed XML, without scripts and links. Points that are not finite, and those that a logarithmic
/// axis does not have, are left out and break the line. Throws where no point is left.
std::string svg_of(const Plot& plot);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <algorithm>
#include <charconv>
#include <cmath>

#include "dpmp/core/error.hpp"
#include "dpmp/core/escaped_text.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
inline std::string fixed_text(double x, int decimals) {
  char text[400];
  return std::string(text, std::to_chars(text, text + sizeof text, x, std::chars_format::fixed, decimals).ptr);
}

/// Places along one axis, in the axis' own units: the logarithm where it is logarithmic.
class PlotScale {
 public:
  struct Tick {
    double at;
    std::string text;      // plain
    std::string exponent;  // of ten, where the text is "10"
  };
  PlotScale(const PlotAxis& axis, double low, double high, int most_ticks) : logarithmic_(axis.logarithmic) {
    if (axis.low < axis.high) low = axis.low, high = axis.high;
    low = along(low), high = along(high);
    if (logarithmic_) {
      low = std::floor(low + 1e-9), high = std::max(low + 1, std::ceil(high - 1e-9));
      const int every = int(std::ceil((high - low) / most_ticks));
      for (double at = std::ceil(low / every) * every; at <= high; at += every)
        ticks_.push_back({at, "10", fixed_text(at, 0)});
    } else {
      if (axis.from_zero) low = std::min(low, 0.0);
      // One value alone gets room around it.
      if (!(high - low > 1e-9 * std::max(std::abs(low), std::abs(high))))
        high += std::max(std::abs(high) * 0.1, 1e-9), low -= axis.from_zero ? 0 : std::abs(low) * 0.1;
      const double step = round_step((high - low) / most_ticks);
      if (axis.low >= axis.high) {
        low = axis.from_zero && low == 0 ? 0 : std::floor(low / step + 1e-9) * step;
        high = std::ceil(high / step - 1e-9) * step;
      }
      for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k)
        ticks_.push_back({k * step, tick_text(k * step, step), ""});
    }
    low_ = low, high_ = high;
  }
  double along(double value) const { return logarithmic_ ? std::log10(value) : value; }
  /// In [0, 1] along the axis.
  double place(double value) const { return place_of_tick(along(value)); }
  double place_of_tick(double at) const { return std::clamp((at - low_) / (high_ - low_), 0.0, 1.0); }
  const std::vector<Tick>& ticks() const { return ticks_; }

 private:
  /// 1, 2 or 5 times a power of ten, not below x.
  static double round_step(double x) {
    const double power = std::pow(10.0, std::floor(std::log10(x)));
    for (const double digit : {1.0, 2.0, 5.0})
      if (digit * power >= x * (1 - 1e-9)) return digit * power;
    return 10 * power;
  }
  static std::string tick_text(double value, double step) {
    if (std::abs(value) < step / 2) return "0";
    if (std::abs(value) >= 1e6 || step < 1e-5) {
      char text[32];
      return std::string(text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, 6).ptr);
    }
    return fixed_text(value, std::max(0, -int(std::floor(std::log10(step) + 1e-9))));
  }
  bool logarithmic_;
  double low_ = 0, high_ = 1;
  std::vector<Tick> ticks_;
};

/// The paper that a plot is drawn on: pixels of an SVG's own coordinates, y downwards.
struct PlotFrame {
  static constexpr double width = 380, height = 262, right = 366, top = 36, bottom = 212, character = 7.2;
  double left;
  double x(double place) const { return left + place * (right - left); }
  double y(double place) const { return bottom - place * (bottom - top); }
};

inline std::string pixel(double x) { return fixed_text(x, 1); }
inline std::string attribute(const char* name, double x) { return ' ' + std::string(name) + "=\"" + pixel(x) + '"'; }
inline std::string svg_text(double x, double y, const char* style, const char* anchor, const std::string& words,
                            const std::string& raised = "") {
  std::string out = "<text class=\"" + std::string(style) + "\" text-anchor=\"" + anchor + '"' + attribute("x", x) +
                    attribute("y", y) + '>' + html_text(words);
  if (!raised.empty()) {
    const bool negative = raised[0] == '-';
    out +=
        "<tspan class=\"raised\" dy=\"-4\">" + std::string(negative ? "&#8722;" : "") + raised.substr(negative) + "</tspan>";
  }
  return out + "</text>";
}

inline std::string svg_axes(const PlotFrame& frame, const PlotScale& x, const PlotScale& y, const Plot& plot) {
  std::string out;
  for (const PlotScale::Tick& tick : y.ticks()) {
    const double at = frame.y(y.place_of_tick(tick.at));
    out += "<line class=\"rule\"" + attribute("x1", frame.left) + attribute("x2", PlotFrame::right) + attribute("y1", at) +
           attribute("y2", at) + "/>";
    out += svg_text(frame.left - 8, at + 4, "tick", "end", tick.text, tick.exponent);
  }
  for (const PlotScale::Tick& tick : x.ticks()) {
    const double place = x.place_of_tick(tick.at), at = frame.x(place);
    out += "<line class=\"notch\"" + attribute("x1", at) + attribute("x2", at) + attribute("y1", PlotFrame::bottom) +
           attribute("y2", PlotFrame::bottom + 5) + "/>";
    // A long number at the right end is moved in.
    const double half = double(tick.text.size() + tick.exponent.size()) * PlotFrame::character / 2;
    out += svg_text(std::min(at, PlotFrame::width - 2 - half), PlotFrame::bottom + 20, "tick", "middle", tick.text,
                    tick.exponent);
  }
  out += "<line class=\"axis\"" + attribute("x1", frame.left) + attribute("x2", PlotFrame::right) +
         attribute("y1", PlotFrame::bottom) + attribute("y2", PlotFrame::bottom) + "/>";
  out += svg_text(PlotFrame::right, PlotFrame::height - 8, "label", "end", plot.x.label);
  return out + svg_text(4, 16, "label", "start", plot.y.label);
}

inline std::string svg_line(const PlotFrame& frame, const PlotScale& x, const PlotScale& y, const PlotLine& line) {
  std::string out, points, single;
  const auto end_of_piece = [&](std::size_t n) {
    if (n == 1)
      out += "<circle class=\"" + line.style + " dot\" r=\"2.5\"" + single + "/>";
    else if (n > 1)
      out += "<polyline class=\"" + line.style + "\" points=\"" + points + "\"/>";
    points.clear();
  };
  std::size_t n = 0;
  for (const auto& [a, b] : line.points) {
    if (!std::isfinite(x.along(a)) || !std::isfinite(y.along(b))) {
      end_of_piece(std::exchange(n, 0));
      continue;
    }
    const double px = frame.x(x.place(a)), py = frame.y(y.place(b));
    points += (n++ ? " " : "") + pixel(px) + ',' + pixel(py);
    single = attribute("cx", px) + attribute("cy", py);
  }
  end_of_piece(n);
  return out;
}

/// A rectangle that words take.
struct WordBox {
  double left, right, top, bottom;
  bool has(double x, double y) const { return x > left && x < right && y > top && y < bottom; }
};
/// How many pixels of the lines, about, are in the rectangle.
inline int pixels_in(const WordBox& box, const PlotFrame& frame, const PlotScale& x, const PlotScale& y,
                     const std::vector<PlotLine>& lines) {
  int inside = 0;
  for (const PlotLine& line : lines)
    for (std::size_t k = 1; k < line.points.size(); ++k) {
      const auto& from = line.points[k - 1];
      const auto& to = line.points[k];
      const double x0 = frame.x(x.place(from.first)), y0 = frame.y(y.place(from.second));
      const double x1 = frame.x(x.place(to.first)), y1 = frame.y(y.place(to.second));
      const int steps = 1 + int(std::max(std::abs(x1 - x0), std::abs(y1 - y0)));
      for (int i = 0; i <= steps; ++i) inside += box.has(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps);
    }
  return inside;
}

inline std::string svg_mark(const PlotFrame& frame, const PlotScale& x, const PlotScale& y, const Plot& plot,
                            const PlotMark& mark) {
  const double px = frame.x(x.place(mark.x)), py = frame.y(y.place(mark.y));
  const double width = double(mark.words.size()) * PlotFrame::character;
  // The first place beside the point, above or below, that is on the paper and where no line is; else the one least crossed.
  WordBox best{};
  int fewest = -1;
  for (const bool left : {false, true})
    for (const bool above : {true, false}) {
      WordBox box{px + 8, px + 8 + width, py - 20, py - 5};
      if (left) box.left = px - 8 - width, box.right = px - 8;
      if (!above) box.top = py + 5, box.bottom = py + 20;
      if (box.left < frame.left || box.right > PlotFrame::right + 6 || box.top < PlotFrame::top - 14 ||
          box.bottom > PlotFrame::bottom)
        continue;
      const int inside = pixels_in(box, frame, x, y, plot.lines);
      if (fewest < 0 || inside < fewest) best = box, fewest = inside;
    }
  const bool placed = fewest >= 0;  // words wider than the paper are above it
  return "<circle class=\"mark\" r=\"4.5\"" + attribute("cx", px) + attribute("cy", py) + "/>" +
         svg_text(placed ? best.left : frame.left, placed ? best.bottom - 4 : PlotFrame::top - 4, "words", "start",
                  mark.words);
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string svg_of(const Plot& plot) {
  constexpr double infinity = HUGE_VAL;
  double low_x = infinity, high_x = -infinity, low_y = infinity, high_y = -infinity;
  const auto meet = [&](double x, double y) {
    const auto drawn = [](const PlotAxis& axis, double value) {
      return std::isfinite(value) && (!axis.logarithmic || value > 0);
    };
    if (!drawn(plot.x, x) || !drawn(plot.y, y)) return;
    low_x = std::min(low_x, x), high_x = std::max(high_x, x);
    low_y = std::min(low_y, y), high_y = std::max(high_y, y);
  };
  for (const PlotLine& line : plot.lines)
    for (const auto& [x, y] : line.points) meet(x, y);
  DPMP_CHECK(low_x <= high_x, "expected a point to plot in '", plot.title, "', got none");

  const detail::PlotScale y(plot.y, low_y, high_y, 5);
  std::size_t widest = 0;
  for (const auto& tick : y.ticks()) widest = std::max(widest, tick.text.size() + tick.exponent.size());
  const detail::PlotFrame frame{14 + detail::PlotFrame::character * double(std::max<std::size_t>(widest, 2))};
  const detail::PlotScale x(plot.x, low_x, high_x, high_x >= 1e5 && !plot.x.logarithmic ? 4 : 6);

  std::string out = "<svg viewBox=\"0 0 380 262\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\"><title>" +
                    html_text(plot.title) + "</title>";
  out += detail::svg_axes(frame, x, y, plot);
  for (const PlotLine& line : plot.lines) out += detail::svg_line(frame, x, y, line);
  for (const PlotMark& mark : plot.marks) out += detail::svg_mark(frame, x, y, plot, mark);
  return out + "</svg>";
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
