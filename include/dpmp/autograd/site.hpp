// SPDX-License-Identifier: Apache-2.0
// The seam between autograd and privacy: what one use of a parameter hands over in the backward pass, and who takes it.
#pragma once
#include <memory>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/tensor/token_sums.hpp"

namespace dpmp::inline DPMP_ABI {
/// outer_product: the per-sample gradient is G_i = sum_t b_{i,t} a_{i,t}^T (Goodfellow 2015, arXiv 1510.01799; sequences: Li
/// et al. 2021, arXiv 2110.05679). vector: it is stored as it is.
enum class SiteForm : std::uint8_t { outer_product, vector };

/// Output-gradient rows b of one use of a weight [p, d] that are too many to be stored at a time: they are formed again,
/// with the same bits, as often as they are asked for. What they are made of is kept as long as this lives.
class RowSource {
 public:
  virtual ~RowSource() = default;
  /// Those of samples [first, last), [last - first, T, p]; both are multiples of samples_at_once().
  virtual Tensor rows(Context& ctx, index_t first, index_t last) const = 0;
  /// A divisor of the number of samples, from public facts: how many are to be asked for at a time.
  virtual index_t samples_at_once() const = 0;
};

/// One use of a parameter, in factored form. B samples, T rows (tokens) a sample; the parameter is [p, d] (outer product).
struct ParameterSite {
  Parameter* parameter = nullptr;
  SiteForm form = SiteForm::outer_product;
  /// outer_product: input rows [B, T, d]. Not used for a vector.
  Tensor a;
  /// outer_product: output-gradient rows [B, T, p], or i32 ids [B, T] that stand for one-hot rows (id < 0: a zero row).
  /// vector: the per-sample gradients [B, n] of the first n elements of the parameter.
  Tensor b;
  /// vector: their squared norms [B] in f64 where the rule has taken them, or Tensor().
  Tensor squares = {};
  /// outer_product, dense: the sums of b's rows over tokens are this bias' per-sample gradients. Then neither the weight nor
  /// the bias has another site in the pass. Only sinks that ask for it see one (GradientSink::takes_biases).
  Parameter* bias = nullptr;
  /// outer_product: where b comes from instead, which is then not defined; sample 0 of the
  /// site is its sample first_of_source.
  std::shared_ptr<const RowSource> source = {};
  index_t first_of_source = 0;

  index_t samples() const { return source ? a.shape().front() : b.shape().front(); }
  /// Of an outer product.
  index_t tokens() const { return source ? a.shape()[1] : b.shape()[1]; }
  bool one_hot() const { return !source && b.dtype() == DType::i32; }
  /// Of samples [first, last).
  ParameterSite part(index_t first, index_t last) const;
  /// With rows b that are stored.
  ParameterSite stored(Context& ctx) const;

  static ParameterSite outer_product(Parameter& w, const Tensor& a, const Tensor& b, Parameter* bias = nullptr);
  /// a [B, T, d], and rows of those samples from a source.
  static ParameterSite outer_product(Parameter& w, const Tensor& a, std::shared_ptr<const RowSource> source);
  static ParameterSite vector(Parameter& w, const Tensor& gradients, const Tensor& squares = Tensor());
  /// Of array k of sums that are joined.
  static ParameterSite vector(Parameter& w, const TokenSums& sums, index_t k = 0);
};

/// How a sink wants the rows b of a use that need not be stored at a time. stored: one site with all of them. parts: sites
/// of some samples, or of some tokens of one, as they are formed: for a sink that has added a site when accept() returns.
/// again: one site with a RowSource.
enum class RowsWanted : std::uint8_t { stored, parts, again };

/// Takes the sites of a backward pass, in the order of that pass. Sites share their tensors with the pass: keep them or not.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  virtual void accept(Context& ctx, const ParameterSite& site) = 0;
  /// Whether a weight's site may name a bias that comes along with it (ParameterSite::bias), for a sink that sums b's rows
  /// in the product or norm of the weight. Asked once, before the walk. All other sinks get a vector site of the bias.
  virtual bool takes_biases(const Context&) const { return false; }
  /// A sink that knows nothing of it gets what it always got, and the memory that this takes is not saved.
  virtual RowsWanted rows_wanted() const { return RowsWanted::stored; }
  /// No further site of this trainable parameter will come in this pass. Called once for each one that the tape has a use
  /// of, whether or not the losses depend on it.
  virtual void finish(Context&, Parameter&) {}
  /// The pass is over.
  virtual void end(Context&) {}
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline ParameterSite ParameterSite::outer_product(Parameter& w, const Tensor& a, const Tensor& b,
                                                                 Parameter* bias) {
  const index_t samples = b.shape().front(), d = a.shape().back();
  const index_t tokens = a.shape().numel(1, a.shape().rank() - 1);
  ParameterSite site{&w, SiteForm::outer_product, a.reshaped({samples, tokens, d}), b};
  site.b = b.dtype() == DType::i32 ? b.reshaped({samples, tokens}) : b.reshaped({samples, tokens, b.shape().back()});
  DPMP_CHECK(w.shape().rank() == 2 && w.shape().back() == d && (site.one_hot() || w.shape().front() == b.shape().back()),
             "expected rows a [.., d] and b [.., p] of the parameter ", w.name(), " ", w.shape(), ", got a ", a.shape(),
             " and b ", b.shape());
  DPMP_CHECK(!bias || (!site.one_hot() && bias->shape() == Shape{b.shape().back()}),
             "expected a bias to come along with dense rows b [.., p] and to have p elements, got ", bias->shape(),
             " with b ", b.shape(), " ", b.dtype());
  site.bias = bias;
  return site;
}

DPMP_KEPT_BODY inline ParameterSite ParameterSite::outer_product(Parameter& w, const Tensor& a,
                                                                 std::shared_ptr<const RowSource> source) {
  DPMP_CHECK(source && w.shape().rank() == 2 && a.shape().rank() == 3 && w.shape().back() == a.shape().back(),
             "expected a source of rows, and rows a [B, T, d] of the parameter ", w.name(), " ", w.shape(), ", got a ",
             a.shape());
  ParameterSite site{&w, SiteForm::outer_product, a, Tensor()};
  site.source = std::move(source);
  return site;
}

DPMP_KEPT_BODY inline ParameterSite ParameterSite::part(index_t first, index_t last) const {
  ParameterSite some = *this;
  if (a.defined()) some.a = a.rows(first, last);
  if (source)
    some.first_of_source += first;
  else
    some.b = b.rows(first, last);
  if (squares.defined()) some.squares = squares.rows(first, last);
  return some;
}

DPMP_KEPT_BODY inline ParameterSite ParameterSite::stored(Context& ctx) const {
  if (!source) return *this;
  return outer_product(*parameter, a, source->rows(ctx, first_of_source, first_of_source + samples()));
}

DPMP_KEPT_BODY inline ParameterSite ParameterSite::vector(Parameter& w, const Tensor& gradients, const Tensor& squares) {
  const index_t samples = gradients.shape().front(), n = gradients.shape().numel(1, gradients.shape().rank());
  DPMP_CHECK(n <= w.numel(), "expected at most ", w.numel(), " elements for the parameter ", w.name(), ", got ",
             gradients.shape());
  DPMP_CHECK(!squares.defined() || (squares.numel() == samples && squares.dtype() == DType::f64),
             "expected a squared norm in f64 for each of ", samples, " samples of ", w.name(), ", got ", squares.shape(),
             " ", squares.dtype());
  return {&w, SiteForm::vector, Tensor(), gradients.reshaped({samples, n}),
          squares.defined() ? squares.reshaped({samples}) : squares};
}

DPMP_KEPT_BODY inline ParameterSite ParameterSite::vector(Parameter& w, const TokenSums& sums, index_t k) {
  return vector(w, sums.whole(k), sums.whole_squares(k));
}
}  // namespace dpmp::inline DPMP_ABI
#endif
