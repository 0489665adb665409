// SPDX-License-Identifier: Apache-2.0
// How a parameter starts: normal, uniform, truncated normal, orthogonal, constant, from a function or from given values.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "dpmp/core/philox.hpp"
#include "dpmp/core/shape.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// What the random numbers of one parameter are keyed by, and nothing else: the seed of its model and its number there.
struct InitStream {
  std::uint64_t seed = 0, parameter = 0;
};

/// An initialisation, for the options of layers: `nn::Linear(scope, 8, 4, {.weight = nn::init::truncated_normal(0.02)})`.
/// Cheap to copy.
class Init {
 public:
  /// Writes the values of a parameter of this shape, row-major; values has as many as the shape.
  using Fill = std::function<void(const Shape& shape, const InitStream& stream, std::span<double> values)>;
  /// One of the user's own.
  explicit Init(Fill fill);
  std::vector<double> values(const Shape& shape, const InitStream& stream) const;

 private:
  std::shared_ptr<const Fill> fill_;
};

/// Random ones are independent for each parameter. All throw on numbers that are not finite.
namespace init {
Init constant(double value);
Init normal(double standard_deviation);
/// Normal with standard deviation 1 / sqrt(inputs), inputs = the values of a row: what one output of a layer sees. It keeps
/// the size of activations (LeCun et al. 1998, "Efficient BackProp").
Init fan_in_normal();
/// In (low, high).
Init uniform(double low, double high);
/// Normal values drawn again until they are within two standard deviations. standard_deviation is that of the normal before
/// it is cut, as in PyTorch; the values have 0.8796 of it.
Init truncated_normal(double standard_deviation);
/// A random orthogonal matrix times gain (Saxe, McClelland, Ganguli 2014, arXiv 1312.6120): of the matrix [axis 0, all other
/// axes] the rows are orthonormal, or the columns where there are fewer of them. Every such matrix is equally likely. The
/// time grows with the square of the smaller side: 1024 x 1024 takes seconds. Throws on a shape of no axes.
Init orthogonal(double gain = 1);
/// Value k, row-major, is value(k).
Init from_index(std::function<double(index_t)> value);
/// These, row-major; throws, when used, on a parameter of another number of values.
Init from_values(std::vector<double> values);
}  // namespace init
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
namespace detail {
/// The standard normals of a stream, one after the other.
class Normals {
 public:
  explicit Normals(const InitStream& stream) : stream_(stream) {}
  double next() {
    if (left_ == 0) {
      const PhiloxBlock block = philox_block(stream_.seed, stream_.parameter, block_++);
      const NormalPair first = normal_pair(block.word[0], block.word[1]), second = normal_pair(block.word[2], block.word[3]);
      four_[0] = first.first, four_[1] = first.second, four_[2] = second.first, four_[3] = second.second;
      left_ = 4;
    }
    return double(four_[4 - left_--]);
  }

 private:
  InitStream stream_;
  std::uint64_t block_ = 0;
  float four_[4] = {};
  int left_ = 0;
};

inline void check_finite(const char* what, double value) {
  DPMP_CHECK(std::isfinite(value), "expected a finite ", what, ", got ", value);
}
inline void check_deviation(double value) {
  DPMP_CHECK(value >= 0 && std::isfinite(value), "expected a finite standard deviation >= 0, got ", value);
}

/// Makes the rows of q [rows, columns >= rows] orthonormal. Twice for each: what rounding leaves of the earlier rows after
/// one pass is taken out by the second (Giraud, Langou 2002: "twice is enough").
inline void orthonormalise(std::span<double> q, std::size_t rows, std::size_t columns) {
  const auto dot = [&](const double* x, const double* y) {
    double sum = 0;
    for (std::size_t j = 0; j < columns; ++j) sum += x[j] * y[j];
    return sum;
  };
  for (std::size_t r = 0; r < rows; ++r) {
    double* row = q.data() + r * columns;
    for (int pass = 0; pass < 2; ++pass)
      for (std::size_t earlier = 0; earlier < r; ++earlier) {
        const double* other = q.data() + earlier * columns;
        const double along = dot(row, other);
        for (std::size_t j = 0; j < columns; ++j) row[j] -= along * other[j];
      }
    const double scale = 1 / std::sqrt(dot(row, row));
    for (std::size_t j = 0; j < columns; ++j) row[j] *= scale;
  }
}
}  // namespace detail

DPMP_KEPT_BODY inline Init::Init(Fill fill) : fill_(std::make_shared<const Fill>(std::move(fill))) {
  DPMP_CHECK(*fill_, "expected a function that fills in initial values, got an empty one");
}

DPMP_KEPT_BODY inline std::vector<double> Init::values(const Shape& shape, const InitStream& stream) const {
  std::vector<double> values(std::size_t(shape.numel()));
  (*fill_)(shape, stream, values);
  return values;
}

namespace init {
DPMP_KEPT_BODY inline Init constant(double value) {
  detail::check_finite("initial value", value);
  return Init(
      [=](const Shape&, const InitStream&, std::span<double> values) { std::fill(values.begin(), values.end(), value); });
}

DPMP_KEPT_BODY inline Init normal(double standard_deviation) {
  detail::check_deviation(standard_deviation);
  return Init([=](const Shape&, const InitStream& stream, std::span<double> values) {
    detail::Normals normals(stream);
    for (double& v : values) v = standard_deviation * normals.next();
  });
}

DPMP_KEPT_BODY inline Init fan_in_normal() {
  return Init([](const Shape& shape, const InitStream& stream, std::span<double> values) {
    const index_t inputs = shape.rank() == 0 ? 1 : shape.numel(1, shape.rank());
    const double standard_deviation = 1 / std::sqrt(double(std::max<index_t>(1, inputs)));
    detail::Normals normals(stream);
    for (double& v : values) v = standard_deviation * normals.next();
  });
}

DPMP_KEPT_BODY inline Init uniform(double low, double high) {
  DPMP_CHECK(low <= high && std::isfinite(low) && std::isfinite(high) && std::isfinite(high - low),
             "expected finite bounds low <= high, got ", low, " and ", high);
  return Init([=](const Shape&, const InitStream& stream, std::span<double> values) {
    for (std::size_t k = 0; k < values.size(); k += 4) {
      const PhiloxBlock block = philox_block(stream.seed, stream.parameter, k / 4);
      for (std::size_t j = 0; j < 4 && k + j < values.size(); ++j)
        values[k + j] = low + (high - low) * double(uniform_open(block.word[j]));
    }
  });
}

DPMP_KEPT_BODY inline Init truncated_normal(double standard_deviation) {
  detail::check_deviation(standard_deviation);
  return Init([=](const Shape&, const InitStream& stream, std::span<double> values) {
    detail::Normals normals(stream);
    for (double& v : values) {
      double z = normals.next();
      while (std::fabs(z) > 2) z = normals.next();
      v = standard_deviation * z;
    }
  });
}

DPMP_KEPT_BODY inline Init orthogonal(double gain) {
  detail::check_finite("gain", gain);
  return Init([=](const Shape& shape, const InitStream& stream, std::span<double> values) {
    DPMP_CHECK(shape.rank() >= 1, "expected a parameter of at least one axis to start orthogonal, got ", shape);
    const std::size_t rows = std::size_t(shape[0]), columns = std::size_t(shape.numel(1, shape.rank()));
    const bool wide = rows <= columns;
    std::vector<double> q(values.size());
    detail::Normals normals(stream);
    for (double& v : q) v = normals.next();
    detail::orthonormalise(q, wide ? rows : columns, wide ? columns : rows);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c) values[r * columns + c] = gain * q[wide ? r * columns + c : c * rows + r];
  });
}

DPMP_KEPT_BODY inline Init from_index(std::function<double(index_t)> value) {
  DPMP_CHECK(value, "expected a function of the index, got an empty one");
  return Init([value = std::move(value)](const Shape&, const InitStream&, std::span<double> values) {
    for (std::size_t k = 0; k < values.size(); ++k) {
      values[k] = value(index_t(k));
      detail::check_finite("initial value from a function", values[k]);
    }
  });
}

DPMP_KEPT_BODY inline Init from_values(std::vector<double> given) {
  for (const double v : given) detail::check_finite("initial value", v);
  return Init([given = std::move(given)](const Shape& shape, const InitStream&, std::span<double> values) {
    DPMP_CHECK(given.size() == values.size(), "expected ", values.size(), " initial values for the shape ", shape, ", got ",
               given.size());
    std::copy(given.begin(), given.end(), values.begin());
  });
}
}  // namespace init
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
