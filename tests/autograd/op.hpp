// SPDX-License-Identifier: Apache-2.0
// An entry of the op table: an operation, and how random problems for it are drawn.
#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dpmp/autograd/tape.hpp"
#include "support/random.hpp"

namespace test {
using dpmp::index_t;
using dpmp::Shape;
using dpmp::Variable;
using Variables = std::vector<Variable>;
using Parameters = std::vector<dpmp::Parameter*>;

struct Values {
  Shape shape;
  std::vector<double> values;
};
/// Ids or numbers of the records that a problem's forward holds, as many of each sample. Shared with it, so that a test can
/// put the records into other slots.
struct HeldRows {
  std::vector<std::int32_t> ids = {};
  std::vector<double> numbers = {};
};
using Held = std::shared_ptr<HeldRows>;

/// One drawn use of an op. All values are small multiples of 2^-6, so every dtype stores them exactly and the f64 result is
/// the truth for all of them.
struct Problem {
  index_t samples = 0;
  std::vector<Values> inputs, parameters;
  std::function<Variables(dpmp::Tape&, const Variables& inputs, const Parameters& parameters)> forward;
  /// How many roundings of intermediate values there are on the way to a result, next to those of an element-wise op.
  double amplification = 1;
  /// What intermediate values are of the order of, where results may be much smaller than the terms they are made of.
  double scale = 0;
  /// What forward holds of the records beside the inputs.
  std::vector<Held> held = {};
  Problem holding(std::vector<Held> rows) && {
    held = std::move(rows);
    return std::move(*this);
  }
};

/// Sizes that are not to be drawn (-1: drawn).
struct FixedSizes {
  index_t samples = -1, tokens = -1, width = -1;
};

/// Draws sizes, 0 and 1 often among them, and values.
class Draw {
 public:
  /// head_width_unit: what every head width of an attention is a multiple of (a GPU asks for 8).
  explicit Draw(std::uint64_t stream, index_t head_width_unit = 1, const FixedSizes& fixed = {})
      : rng_(seed(), stream), head_width_unit_(head_width_unit), fixed_(fixed) {}
  index_t integer(index_t low, index_t high) { return rng_.integer(low, high); }
  bool coin() { return integer(0, 1) == 1; }
  index_t samples() { return fixed_.samples >= 0 ? fixed_.samples : any_of({0, 1, 1, 2, 3, 5}); }
  index_t tokens() { return fixed_.tokens >= 0 ? fixed_.tokens : any_of({0, 1, 1, 2, 3, 5, 7}); }
  index_t width() { return fixed_.width >= 0 ? fixed_.width : any_of({0, 1, 2, 3, 4, 7, 8, 16, 17, 33, 64, 70}); }
  index_t positive_width() { return std::max<index_t>(1, width()); }
  index_t head_width() { return head_width_unit_ * integer(1, 5); }
  /// [samples, ..] of rank 2 to 4.
  Shape shape() {
    Shape s{samples()};
    for (index_t k = integer(0, 2); k > 0; --k) s.push_back(tokens());
    s.push_back(width());
    return s;
  }
  /// Multiples of 2^-6 in [-2, 2], none of them nearer to 0 than `away_from_zero`.
  Values values(const Shape& shape, double away_from_zero = 0) {
    Values v{shape, std::vector<double>(std::size_t(shape.numel()))};
    for (double& x : v.values) {
      do {
        x = double(integer(-128, 128)) / 64;
      } while (std::abs(x) < away_from_zero);
    }
    return v;
  }
  std::vector<std::int32_t> ids(index_t n, index_t low, index_t high) {
    std::vector<std::int32_t> r(static_cast<std::size_t>(n));
    for (auto& id : r) id = std::int32_t(integer(low, high));
    return r;
  }
  Held held_ids(index_t n, index_t low, index_t high) {
    return std::make_shared<HeldRows>(HeldRows{.ids = ids(n, low, high)});
  }

 private:
  index_t any_of(const std::vector<index_t>& choices) {
    return choices[std::size_t(integer(0, index_t(choices.size()) - 1))];
  }
  Rng rng_;
  index_t head_width_unit_;
  FixedSizes fixed_;
};

struct Op {
  std::string name;
  std::function<Problem(Draw&)> make;
};

namespace detail {
/// An op of n inputs of one random shape and nothing else.
template <class F>
Op elementwise(std::string name, int inputs, F forward, double away_from_zero = 0) {
  return {std::move(name), [=](Draw& draw) {
            const Shape shape = draw.shape();
            Problem p{.samples = shape.front(), .inputs = {}, .parameters = {}, .forward = {}};
            for (int k = 0; k < inputs; ++k) p.inputs.push_back(draw.values(shape, away_from_zero));
            p.forward = [=](dpmp::Tape&, const Variables& x, const Parameters&) { return Variables{forward(x)}; };
            return p;
          }};
}
}  // namespace detail
}  // namespace test
