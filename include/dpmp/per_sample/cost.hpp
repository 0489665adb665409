// SPDX-License-Identifier: Apache-2.0
// What each way to a norm and to a clipped sum costs, as a pure function of public shapes, and the choice that follows from
// it. Nothing is remembered between passes: another number of tokens gets another choice.
#pragma once
#include <algorithm>
#include <optional>
#include <string_view>

#include "dpmp/kernels/gram_constants.hpp"
#include "dpmp/per_sample/certificate.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// gram: <A A^T, B B^T> (ghost norm). instantiate: form the gradient tile, square it, throw it away. segments: one-hot rows
/// only: sum the input rows of equal ids, square. rank_one: one token: |a|^2 |b|^2. stored: a per-sample vector is there.
enum class NormMethod : std::uint8_t { rank_one, segments, instantiate, gram, stored };
/// What is kept of a parameter from its norm to its clipped sum. sites: a and b. gradients: the per-sample gradients.
/// second_walk: nothing; the same backward pass is walked again.
enum class Keep : std::uint8_t { sites, gradients, second_walk };

/// How a pass gets from norms to clipped sums. book_keeping keeps sites, materialised keeps per-sample gradients, two_pass
/// keeps nothing; automatic keeps what costs least, parameter by parameter.
enum class Strategy : std::uint8_t { automatic, book_keeping, two_pass, materialised };
/// How per-sample gradients that are kept are stored. accumulate: in the accumulate dtype. compute: those of bf16 parameters
/// rounded once to bf16, which is half the bytes and moves half of them; norm, certificate and sum are of the rounded
/// numbers, so clipping is as exact as ever, and a coordinate of one sample's gradient is off by up to 2^-8 of itself; where
/// a GPU adds looked-up rows also by 2^-8 of what it adds them to. f16 parameters keep FP32: their gradients would leave
/// its range.
enum class GradientStorage : std::uint8_t { accumulate, compute };
/// Norms of outer products: the cheaper one ("mixed ghost clipping", Bu et al. 2022, arXiv 2205.10683), or always one kind.
enum class NormChoice : std::uint8_t { automatic, gram, instantiate };
struct StrategyOptions {
  Strategy strategy = Strategy::automatic;
  NormChoice norms = NormChoice::automatic;
  GradientStorage gradients = GradientStorage::accumulate;
  /// Most bytes that a pass may keep between norms and sums, all its groups together (automatic only). What does not fit is
  /// done by a second walk of the same pass. Not set: no second walk.
  std::optional<index_t> byte_budget = {};
  /// Most bytes a sample that a pass may keep as per-sample gradients (automatic only), in the order of the walk; where they
  /// would be more, sites are kept. Not set: no limit of its own. Less is less memory, and more work.
  std::optional<index_t> gradient_bytes = {};
};

std::string_view name_of(NormMethod m);
std::string_view name_of(Keep k);
std::string_view name_of(Strategy s);

/// The public facts that a choice rests on: B samples, T rows a sample over all sites, a parameter [p, d].
struct SiteShape {
  index_t samples = 0, tokens = 0, p = 0, d = 0;
  DType dtype = DType::f32;
  index_t site_bytes = 0;
  /// Rows a sample, of all its tokens, that are formed again for the norm and for the sum (RowSource).
  index_t formed = 0;
  bool vector = false, one_hot_only = false, any_one_hot = false, on_cuda = false;
};
SiteShape shape_of(const SiteList& sites);

/// The dtype of gradients that are kept.
DType kept_dtype(const SiteShape& s, GradientStorage storage);

/// What the certificate of a norm is predicted to cost: certified over exact norm, less 1, for tokens that are orthogonal to
/// each other and of one size, where S = sqrt(T) |G|. A signal that is clipped by so much more than it must be.
double predicted_slack(const SiteShape& s, NormMethod method);
/// More than that, and a Gram is not chosen (but may be asked for).
inline constexpr double largest_slack = 0.01;

/// How one parameter's sites are dealt with: the method of its norm and what is kept until its clipped sum, with the price
/// of both in multiply-adds of one sample, and the bytes kept.
struct NormPlan {
  NormMethod norm = NormMethod::stored;
  Keep keep = Keep::sites;
  double cost = 0;
  index_t kept_bytes = 0;
  double slack = 0;  // predicted_slack
};

/// The cheaper method for outer products that are not kept as gradients.
NormMethod choose_norm_method(const SiteShape& s, NormChoice choice = NormChoice::automatic);
inline NormMethod choose_norm_method(const SiteList& sites) { return choose_norm_method(shape_of(sites)); }

/// The price of computing results of operations again, `bytes` of them, and so many multiply-adds of products, in those of
/// NormPlan::cost.
double recomputation_cost(DType dtype, bool on_cuda, double bytes, double multiply_adds);

/// The cheapest plan that the options allow. kept_bytes: what this pass keeps already; kept_gradients: as gradients.
NormPlan plan_parameter(const SiteShape& s, const StrategyOptions& options, index_t kept_bytes, index_t kept_gradients = 0);
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
namespace detail {
/// In multiply-adds of the kernels of norms and clipped sums.
struct Prices {
  double element;         // moving an FP32 element to or from memory
  double stored_product;  // a multiply-add of a product whose result is kept: a library's
};
/// CPU: memory is slow compared with arithmetic, and bf16 arithmetic is twice as fast (measured, docs/benchmarks.md). GPU:
/// from the peaks of an H100 and the shares of them that docs/benchmarks.md assumes (predicted): for 16-bit operands 0.37 of
/// 989 TFLOP/s against 0.7 for the library, for FP32 0.5 of 67 TFLOP/s against 0.7, and 0.8 of 3.35 TB/s.
inline Prices prices_of(const SiteShape& s) {
  if (!s.on_cuda) return {s.dtype == DType::bf16 ? 24.0 : 14.0, 1};
  return size_of(s.dtype) == 2 ? Prices{270, 0.53} : Prices{25, 0.7};
}

/// A CPU writes Grams and tiles to memory, and its Grams are in double, at half the rate. A GPU's stay in registers: it pays
/// for reading a and b. Both form the blocks of 64 tokens up to the diagonal.
inline double norm_cost(const SiteShape& s, NormMethod method) {
  const double t = double(s.tokens), p = double(s.p), d = double(s.d), e = prices_of(s).element;
  const double rows = (s.on_cuda ? 0.25 * double(size_of(s.dtype)) : 0.1) * e * t * (p + d);
  switch (method) {
    case NormMethod::gram: return s.on_cuda ? t * (t + 64) / 2 * (p + d) + rows : t * (t + 64) * (p + d + 0.25 * e) + rows;
    case NormMethod::instantiate: return t * p * d + (s.on_cuda ? rows : e * p * d);
    case NormMethod::segments: return e * t * d;
    case NormMethod::rank_one: return 0.1 * e * (p + d);
    case NormMethod::stored: return 0;
  }
  return 0;
}

/// Of forming rows again: a product with the weight, and a row read and written twice.
inline double forming_cost(const SiteShape& s) {
  const Prices price = prices_of(s);
  return double(s.formed) * double(s.p) * (price.stored_product * double(s.d) + 2 * price.element);
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string_view name_of(NormMethod m) {
  constexpr std::string_view names[] = {"rank one", "segments", "instantiate", "gram", "stored"};
  return names[std::size_t(m)];
}

DPMP_KEPT_BODY inline std::string_view name_of(Keep k) {
  constexpr std::string_view names[] = {"sites", "gradients", "second walk"};
  return names[std::size_t(k)];
}

DPMP_KEPT_BODY inline std::string_view name_of(Strategy s) {
  constexpr std::string_view names[] = {"automatic", "book-keeping", "two-pass", "materialised"};
  return names[std::size_t(s)];
}

DPMP_KEPT_BODY inline SiteShape shape_of(const SiteList& sites) {
  SiteShape s{.samples = sites[0].samples(), .dtype = sites[0].parameter->dtype()};
  s.vector = sites[0].form == SiteForm::vector;
  s.on_cuda = sites[0].parameter->value().device().kind == DeviceKind::cuda;
  for (const ParameterSite& site : sites) {
    if (site.source)
      s.formed += site.tokens();
    else
      s.site_bytes += site.b.numel() * size_of(site.b.dtype());
    if (s.vector) continue;
    s.site_bytes += site.a.numel() * size_of(site.a.dtype());
    s.any_one_hot = s.any_one_hot || site.one_hot();
  }
  if (s.vector) return s;
  s.p = sites[0].parameter->shape()[0];
  s.d = sites[0].parameter->shape()[1];
  s.tokens = total_tokens(sites);
  s.one_hot_only = std::all_of(sites.begin(), sites.end(), [](const ParameterSite& x) { return x.one_hot(); });
  return s;
}

DPMP_KEPT_BODY inline DType kept_dtype(const SiteShape& s, GradientStorage storage) {
  return storage == GradientStorage::compute && s.dtype == DType::bf16 ? DType::bf16 : accumulate_dtype(s.dtype);
}

DPMP_KEPT_BODY inline double predicted_slack(const SiteShape& s, NormMethod method) {
  if (s.vector || s.tokens == 0) return 0;
  if (s.on_cuda) {
    if (method == NormMethod::gram) return kernels::gram_slack_on_cuda(size_of(s.dtype) == 2, s.tokens, s.p, s.d);
    return kernels::gamma_float(35);  // squares inside of a tile, and what one token's product is off by
  }
  const auto extents = certificate::on_host::extents_of(s.p, s.d, s.tokens, s.dtype);
  const kernels::Certificate c = method == NormMethod::gram       ? certificate::on_host::gram(extents)
                                 : method == NormMethod::rank_one ? certificate::on_host::rank_one(extents)
                                                                  : certificate::on_host::released(extents);
  const double t = double(s.tokens);
  return std::sqrt(1 + c.square + c.products * t) - 1 + c.linear_products * std::sqrt(t);
}

DPMP_KEPT_BODY inline NormMethod choose_norm_method(const SiteShape& s, NormChoice choice) {
  if (s.vector) return NormMethod::stored;
  if (s.one_hot_only) return NormMethod::segments;
  if (choice != NormChoice::automatic) return choice == NormChoice::gram ? NormMethod::gram : NormMethod::instantiate;
  if (s.tokens == 1) return NormMethod::rank_one;
  const bool cheaper = detail::norm_cost(s, NormMethod::gram) < detail::norm_cost(s, NormMethod::instantiate);
  return cheaper && predicted_slack(s, NormMethod::gram) <= largest_slack ? NormMethod::gram : NormMethod::instantiate;
}

DPMP_KEPT_BODY inline double recomputation_cost(DType dtype, bool on_cuda, double bytes, double multiply_adds) {
  const detail::Prices price = detail::prices_of({.dtype = dtype, .on_cuda = on_cuda});
  // Read and written once each.
  return 2 * price.element * bytes / double(size_of(DType::f32)) + price.stored_product * multiply_adds;
}

DPMP_KEPT_BODY inline NormPlan plan_parameter(const SiteShape& s, const StrategyOptions& options, index_t kept_bytes,
                                              index_t kept_gradients) {
  const double release = double(s.tokens) * double(s.p) * double(s.d), element = double(s.p) * double(s.d);
  const detail::Prices price = detail::prices_of(s);
  const DType kept = kept_dtype(s, options.gradients);
  const double narrow = double(size_of(kept)) / double(size_of(accumulate_dtype(s.dtype)));
  NormPlan sites{choose_norm_method(s, options.norms), Keep::sites, 0, s.site_bytes};
  sites.cost = detail::norm_cost(s, sites.norm) + release + price.element * element;
  if (s.one_hot_only) sites.cost = 2 * detail::norm_cost(s, sites.norm);
  sites.cost += 2 * detail::forming_cost(s);
  sites.slack = predicted_slack(s, sites.norm);
  // Formed, squared and stored, then read once: the product is not done again.
  const NormPlan gradients{NormMethod::instantiate, Keep::gradients,
                           price.stored_product * release + 2 * narrow * price.element * element + detail::forming_cost(s),
                           s.samples * s.p * s.d * size_of(kept)};
  const bool can_store = !s.vector && !s.one_hot_only;
  NormPlan again = sites;
  again.keep = Keep::second_walk;
  again.kept_bytes = 0;
  switch (options.strategy) {
    case Strategy::book_keeping: return sites;
    case Strategy::two_pass: return again;
    case Strategy::materialised: return s.vector ? sites : gradients;
    case Strategy::automatic: break;
  }
  const index_t left = options.byte_budget ? *options.byte_budget - kept_bytes : 5 * sites.kept_bytes;
  const bool fits =
      can_store && gradients.kept_bytes <= left &&
      (!options.gradient_bytes || kept_gradients + gradients.kept_bytes <= *options.gradient_bytes * s.samples);
  if (fits && gradients.cost < sites.cost) return gradients;
  if (options.byte_budget && sites.kept_bytes > left) return fits ? gradients : again;
  return sites;
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
