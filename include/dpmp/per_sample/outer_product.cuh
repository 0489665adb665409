// SPDX-License-Identifier: Apache-2.0
// The GPU's half of per_sample/outer_product.hpp: which kernel takes which sites. Dense rows go to the ghost norm, the fused
// instantiation and the weighted sum of kernels/; one-hot rows to the segment kernels. The cross term of a tied weight,
// 2 <sum_t b_t a_t^T, sum_s e_{x_s} a'_s^T> = 2 sum_s a'_s . (sum_t b_t[x_s] a_t), is one gathered matrix, one product and a
// dot product of rows: nothing of the size of the table.
#pragma once
#include <optional>

#include "dpmp/kernels/cuda/norms/ghost_norm.cuh"
#include "dpmp/kernels/cuda/norms/instantiate_norm.cuh"
#include "dpmp/kernels/cuda/sums/segment_sum.cuh"
#include "dpmp/kernels/cuda/sums/weighted_sum.cuh"
#include "dpmp/per_sample/certificate.hpp"
#include "dpmp/per_sample/outer_product.hpp"
#include "dpmp/per_sample/tied_norm.cuh"
#include "dpmp/runtime/launch_cuda.cuh"

namespace dpmp::inline DPMP_ABI::per_sample::detail {
template <class T>
inline constexpr bool has_cuda_norms = !std::is_same_v<T, double>;
[[noreturn]] inline void refuse_double() {
  throw Error("expected f32, bf16 or f16 for per-sample norms and sums on a GPU, got f64: use a context on the CPU");
}

/// The tokens of a one-hot site in the order of their ids, within each sample or over the batch.
class SortedTokens {
 public:
  SortedTokens(Context& ctx, const ParameterSite& site)
      : ids_(site.b), buffers_(ctx.allocate(2 * ids_.numel() * index_t(sizeof(kernels::TokenKey)))) {
    auto* first = static_cast<kernels::TokenKey*>(buffers_.data());
    keys_ = kernels::sort_tokens(dpmp::detail::stream_of(ctx), ids_.data<std::int32_t>(), {first, first + ids_.numel()},
                                 ids_.shape()[0], ids_.shape()[1]);
  }
  void merge(Context& ctx) {
    keys_ = kernels::merge_samples(dpmp::detail::stream_of(ctx), keys_, ids_.shape()[0], ids_.shape()[1]);
  }
  template <class T>
  kernels::SegmentOperands<T> operands(const ParameterSite& site) const {
    const Shape& table = site.parameter->shape();
    return {site.a.data<T>(), keys_.keys, ids_.shape()[0], ids_.shape()[1], table[0], table[1]};
  }

 private:
  Tensor ids_;
  Buffer buffers_;
  kernels::TokenKeys keys_{};
};

template <class T>
kernels::SampleRows<T> rows_of(const Tensor& x) {
  return {x.data<T>(), x.shape()[2], x.shape()[2]};
}

/// squared [B]: of the gradients of one-hot rows.
template <class T>
Tensor segment_squares(Context& ctx, const ParameterSite& site) {
  const Tensor squared = Tensor::empty(ctx, {site.samples()}, DType::f64);
  const SortedTokens sorted(ctx, site);
  kernels::segment_norms(dpmp::detail::stream_of(ctx), sorted.operands<T>(site), squared.data<double>());
  return squared;
}

/// Sums of b's rows over slices of tokens that a kernel makes in passing, for the bias that comes along with a site, if any.
inline TokenSums bias_sums(Context& ctx, const ParameterSite& site, index_t slices) {
  return TokenSums(ctx, {.samples = site.samples(),
                         .tokens = site.b.shape()[1],
                         .width = site.b.shape()[2],
                         .slices = slices,
                         .squares = TokenSquares::by_join,
                         .wanted = site.bias != nullptr});
}
inline void add_bias(Context& ctx, const ParameterSite& site, TokenSums& sums, Biases& biases) {
  if (!site.bias) return;
  sums.join(ctx);
  biases.push_back(ParameterSite::vector(*site.bias, sums));
}

/// Adds a parameter whose dense rows have squares, with a bound that the kernel found or (null) the relative one of a tile,
/// and whose looked-up rows are still to come. rows, certificate: of the dense ones.
template <class T>
void add_tied(Context& ctx, const SiteList& sites, NormBounds& bounds, const double* dense, const double* dense_bound,
              const kernels::RowNormSums& rows, kernels::Certificate certificate) {
  const index_t samples = bounds.samples(), looked_up = sites[1].b.shape()[1];
  const certificate::on_cuda::Extents x = certificate::on_cuda::extents_of(sites[0]);
  const Tensor segments = segment_squares<T>(ctx, sites[1]), numbers = Tensor::empty(ctx, {2, samples}, DType::f64);
  const CrossTerms cross = cross_terms<T>(ctx, sites[0], sites[1]);
  // Underflow: an element of the cross term's product loses up to 2 w a token, next to each looked-up number, an element of
  // b that is gathered up to w, a square of segments up to w.
  dpmp::detail::launch_library_elements_on_cuda(
      ctx, samples,
      JoinTied{.dense = dense,
               .dense_bound = dense_bound,
               .segments = segments.data<double>(),
               .cross = cross.products.data<double>(),
               .inputs = cross.inputs.data<double>(),
               .looked_up = cross.looked_up.data<double>(),
               .gathered = cross.gathered.data<double>(),
               .dense_square = certificate.square,
               .segments_square = certificate::on_cuda::squares_of_segments,
               .cross_bound = certificate::on_cuda::cross_term(x, looked_up),
               .constant = certificate::tiny_float * x.d * (4 * double(x.tokens) * double(x.tokens) + 1) * double(looked_up),
               .inputs_tiny = 4 * certificate::tiny_float * double(x.tokens),
               .looked_up_tiny = 4 * certificate::tiny_float * double(looked_up),
               .squared = numbers.data<double>(),
               .quadratic = numbers.data<double>() + samples});
  certificate.square = 0;
  const kernels::NormTerms terms{.squared = numbers.data<double>(),
                                 .quadratic = numbers.data<double>() + samples,
                                 .rows = rows,
                                 .certificate = certificate};
  bounds.add(ctx, {&terms, 1});
}

/// Norms of parameters with the same dense inputs; each list may have a one-hot site after the dense one.
template <class T>
Biases shared_norms_on_cuda(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds) {
  if constexpr (!has_cuda_norms<T>) {
    refuse_double();
  } else {
    constexpr std::size_t most = kernels::GhostNormTiles<T, 64>::max_outputs;
    const index_t samples = bounds.samples(), tokens = lists[0][0].a.shape()[1], d = lists[0][0].a.shape()[2];
    // A Gram that is shared is whole: of inputs wider than a block and than the outputs it is better not shared.
    const bool shared = d <= kernels::gram_block || std::all_of(lists.begin(), lists.end(), [&](const SiteList& sites) {
                          return sites[0].b.shape()[2] >= d;
                        });
    const std::size_t each = shared ? most : 1;
    Biases biases;
    for (std::size_t first = 0; first < lists.size(); first += each) {
      const std::span<const SiteList> part = lists.subspan(first, std::min(each, lists.size() - first));
      std::vector<kernels::SampleRows<T>> outputs;
      std::vector<TokenSums> sums;
      std::vector<float*> slice_sums;
      for (std::size_t k = 0; k < part.size(); ++k) {
        outputs.push_back(rows_of<T>(part[k][0].b));
        sums.push_back(bias_sums(ctx, part[k][0], kernels::ghost_norm_slices<T>(tokens)));
        slice_sums.push_back(sums.back().sums<float>());
      }
      const index_t count = index_t(part.size());
      const Tensor numbers = Tensor::empty(ctx, {kernels::GhostNormResults::arrays, count, samples}, DType::f64);
      const auto results = kernels::GhostNormResults::in(numbers.data<double>(), count * samples);
      const Buffer scratch = ctx.allocate(kernels::ghost_norm_scratch<T>(samples, tokens, count) * 8);
      kernels::ghost_norm<T>(dpmp::detail::stream_of(ctx), samples, tokens, rows_of<T>(part[0][0].a), outputs,
                             static_cast<double*>(scratch.data()), results, slice_sums);
      for (std::size_t k = 0; k < part.size(); ++k) add_bias(ctx, part[k][0], sums[k], biases);
      for (std::size_t k = 0; k < part.size(); ++k) {
        const SiteList& sites = part[k];
        const index_t at = index_t(k) * samples;
        const kernels::NormTerms terms{
            .squared = results.squared + at,
            .quadratic = results.quadratic + at,
            .rows = {results.product_sum + at, results.input_sum + at, results.output_sum + at},
            .certificate = certificate::on_cuda::gram(certificate::on_cuda::extents_of(sites[0]))};
        if (sites.size() == 1)
          bounds.add(ctx, {&terms, 1});
        else
          add_tied<T>(ctx, sites, bounds, terms.squared, terms.quadratic, terms.rows, terms.certificate);
      }
    }
    return biases;
  }
}

template <class T>
Biases norms_on_cuda(Context& ctx, const SiteList& sites, NormBounds& bounds, NormMethod method) {
  if constexpr (!has_cuda_norms<T>) {
    refuse_double();
  } else {
    if (method == NormMethod::gram && !sites[0].one_hot()) return shared_norms_on_cuda<T>(ctx, {&sites, 1}, bounds);
    if (sites[0].one_hot()) {
      bounds.add(ctx, segment_squares<T>(ctx, sites[0]).template data<double>(), {},
                 certificate::on_cuda::segments(certificate::on_cuda::extents_of(sites[0])));
      return {};
    }
    DPMP_CHECK(method == NormMethod::instantiate, "expected a method for the norms of outer products, got '",
               name_of(method), "'");
    const index_t samples = bounds.samples(), tokens = sites[0].a.shape()[1], p = sites[0].b.shape()[2],
                  d = sites[0].a.shape()[2];
    const Tensor squared = Tensor::empty(ctx, {samples}, DType::f64);
    const Buffer scratch = ctx.allocate(kernels::instantiate_norm_scratch<T>(samples, d, p) * 8);
    TokenSums token_sums = bias_sums(ctx, sites[0], 1);
    kernels::instantiate_norm<T>(dpmp::detail::stream_of(ctx), samples, tokens, rows_of<T>(sites[0].a),
                                 rows_of<T>(sites[0].b), static_cast<double*>(scratch.data()), squared.data<double>(),
                                 token_sums.sums<float>());
    Biases biases;
    add_bias(ctx, sites[0], token_sums, biases);
    const kernels::Certificate certificate = certificate::on_cuda::instantiated(certificate::on_cuda::extents_of(sites[0]));
    std::optional<RowNorms> rows;
    if (certificate.linear_products > 0) rows.emplace(ctx, SiteList{sites[0]});
    const kernels::RowNormSums sums = rows ? rows->sums() : kernels::RowNormSums{};
    if (sites.size() == 1)
      bounds.add(ctx, squared.data<double>(), sums, certificate);
    else
      add_tied<T>(ctx, sites, bounds, squared.data<double>(), nullptr, sums, certificate);
    return biases;
  }
}

/// output[i, :] = G_i, in the accumulate dtype or in T. Dense rows in one product; looked-up rows are added after it, an id
/// at a time.
template <class T>
void gradients_on_cuda(Context& ctx, const SiteList& sites, const Tensor& output, const Tensor& bias_sums) {
  const index_t samples = sites[0].samples(), p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  if (sites[0].one_hot()) ctx.backend().set_zero(output.raw(), output.bytes());
  for (const ParameterSite& site : sites) {
    if (site.one_hot()) {
      if constexpr (!has_cuda_norms<T>) {
        refuse_double();
      } else {
        const SortedTokens sorted(ctx, site);
        const auto add = [&](auto* gradients) {
          kernels::segment_add<T>(dpmp::detail::stream_of(ctx), sorted.operands<T>(site), gradients);
        };
        if (output.dtype() == dtype_of<T>)
          add(output.data<T>());
        else
          add(output.data<float>());
      }
      continue;
    }
    if (samples == 0) continue;
    GemmSpec spec = product_of({site.b, true}, {site.a}, output.reshaped({samples, p, d}));
    spec.row_sums = bias_sums.defined() ? bias_sums.raw() : nullptr;
    gemm(ctx, spec);
  }
}

template <class T>
void weighted_sum_on_cuda(Context& ctx, const SiteList& sites, const SampleFactors& factors, const Tensor& sum) {
  if constexpr (!has_cuda_norms<T>) {
    refuse_double();
  } else {
    const auto stream = dpmp::detail::stream_of(ctx);
    const float* c = factors.on(ctx);
    for (const ParameterSite& site : sites) {
      if (site.one_hot()) {
        SortedTokens sorted(ctx, site);
        sorted.merge(ctx);
        kernels::segment_sum(stream, sorted.operands<T>(site), c, sum.data<double>());
        continue;
      }
      const index_t samples = site.samples(), tokens = site.b.shape()[1], p = sum.shape()[0], d = sum.shape()[1];
      const kernels::WeightedSumPlan plan =
          kernels::plan_weighted_sum<T>(samples, tokens, p, d, ctx.backend().multiprocessors());
      const index_t doubles = plan.scratch(p, d);
      const Buffer scratch = ctx.allocate(doubles * 8);
      kernels::weighted_sum<T>(stream, {site.a.data<T>(), site.b.data<T>(), c, sum.data<double>(), samples, tokens, p, d},
                               plan, static_cast<double*>(scratch.data()), doubles);
    }
  }
}
}  // namespace dpmp::inline DPMP_ABI::per_sample::detail
