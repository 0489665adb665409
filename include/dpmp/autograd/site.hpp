// SPDX-License-Identifier: Apache-2.0
// The seam between autograd and privacy: what one use of a parameter hands over in the backward pass, and who takes it.
#pragma once
#include "dpmp/autograd/parameter.hpp"
#include "dpmp/tensor/token_sums.hpp"

namespace dpmp::inline DPMP_ABI {
/// outer_product: the per-sample gradient is G_i = sum_t b_{i,t} a_{i,t}^T (Goodfellow 2015, arXiv 1510.01799; sequences: Li
/// et al. 2021, arXiv 2110.05679). vector: it is stored as it is.
enum class SiteForm : std::uint8_t { outer_product, vector };

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

  index_t samples() const { return b.shape().front(); }
  bool one_hot() const { return b.dtype() == DType::i32; }

  static ParameterSite outer_product(Parameter& w, const Tensor& a, const Tensor& b, Parameter* bias = nullptr);
  static ParameterSite vector(Parameter& w, const Tensor& gradients, const Tensor& squares = Tensor());
  /// Of array k of sums that are joined.
  static ParameterSite vector(Parameter& w, const TokenSums& sums, index_t k = 0);
};

/// Takes the sites of a backward pass, in the order of that pass. Sites share their tensors with the pass: keep them or not.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  virtual void accept(Context& ctx, const ParameterSite& site) = 0;
  /// Whether a weight's site may name a bias that comes along with it (ParameterSite::bias), for a sink that sums b's rows
  /// in the product or norm of the weight. Asked once, before the walk. All other sinks get a vector site of the bias.
  virtual bool takes_biases(const Context&) const { return false; }
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
