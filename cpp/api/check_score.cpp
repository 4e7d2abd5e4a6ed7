// The arguments of a score, once for a call, whatever its parts.
#include <cmath>
#include <limits>
#include <string>

#include "check.h"

namespace numattn {
namespace {

// Broadcasts to (B, Hq, Sq, Sk): missing and single axes get stride 0.
View broadcast_scores(const View& view, const char* name, const ScoreFit& fit) {
  const std::array<std::int64_t, 4> target{fit.entries, fit.problem.query_heads,
                                           fit.problem.queries, fit.problem.keys};
  View wide = view;
  wide.rank = 4;
  for (int axis = 0; axis < 4; ++axis) {
    const auto to = static_cast<std::size_t>(axis);
    const int from = axis - (4 - view.rank);
    const std::int64_t length = from < 0 ? 1 : view.shape[static_cast<std::size_t>(from)];
    if (length != target[to] && length != 1) {
      refuse(name, " of shape ", shape_text(view), " does not broadcast to (B, Hq, Sq, ",
             fit.keys_axis, ") = (", number(target[0]), ", ", number(target[1]), ", ",
             number(target[2]), ", ", number(target[3]), ")");
    }
    wide.shape[to] = target[to];
    wide.strides[to] = from < 0 || length == 1 ? 0 : view.strides[static_cast<std::size_t>(from)];
  }
  return wide;
}

std::optional<View> checked_mask(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.mask) return std::nullopt;
  if (params.mask->dtype != DType::kBool) {
    throw DTypeError(std::string("mask must be bool (True = may attend), not ") +
                     dtype_name(params.mask->dtype) + "; pass additive values as bias");
  }
  return broadcast_scores(*params.mask, "mask", fit);
}

std::optional<View> checked_bias(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.bias) return std::nullopt;
  const DType dtype = params.bias->dtype;
  const DType query_dtype = fit.problem.q.dtype;
  if (dtype != DType::kFloat32 && dtype != query_dtype) {
    throw DTypeError(std::string("bias must be float32 or q's dtype ") + dtype_name(query_dtype) +
                     ", not " + dtype_name(dtype) +
                     (dtype == DType::kBool ? "; pass booleans as mask" : ""));
  }
  return broadcast_scores(*params.bias, "bias", fit);
}

SpanRules checked_spans(const SpanRules& spans) {
  for (const std::int64_t side : {spans.window_left, spans.window_right}) {
    if (side < -1) {
      refuse("window sides must be -1 (unbounded) or at least 0, not (", number(spans.window_left),
             ", ", number(spans.window_right), ")");
    }
  }
  return spans;
}

// Kernels compute in float32, in units of log 2.
bool fits_kernels(double value) {
  constexpr double kLog2E = 1.4426950408889634;
  return std::abs(value) <= std::numeric_limits<float>::max() / kLog2E;
}

float checked_scale(const ScoreParams& params, const ScoreFit& fit) {
  const double scale =
      params.scale.value_or(1.0 / std::sqrt(static_cast<double>(fit.problem.head_dim)));
  if (!fits_kernels(scale)) {
    refuse("scale must be finite, and below 2.3e38 for float32 arithmetic, not ", real_text(scale));
  }
  return static_cast<float>(scale);
}

float checked_softcap(const ScoreParams& params) {
  if (!params.softcap) return 0.0f;
  const double softcap = *params.softcap;
  if (!(softcap >= std::numeric_limits<float>::denorm_min() && fits_kernels(softcap))) {
    refuse("softcap must be positive and finite, from 1.5e-45 to 2.3e38 for float32 arithmetic, ",
           "not ", real_text(softcap));
  }
  return static_cast<float>(softcap);
}

ByEntry<std::int64_t> checked_offsets(const IntArray& offsets, const ScoreFit& fit) {
  if (offsets.size == 0) return {};
  if (offsets.size > 1 && offsets.size != fit.entries) {
    refuse("q_offset must be one number or have one per ", fit.entry, " (", number(fit.entries),
           "), not ", number(offsets.size));
  }
  return {offsets.data, offsets.size == 1 ? 0 : 1};
}

ByEntry<std::int64_t> checked_lengths(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.kv_lens) return {};
  const IntArray& lengths = *params.kv_lens;
  if (lengths.size != fit.entries) {
    refuse("kv_lens must have one length per ", fit.entry, " (", number(fit.entries), "), not ",
           number(lengths.size));
  }
  for (std::int64_t b = 0; b < lengths.size; ++b) {
    if (lengths.data[b] < 0 || lengths.data[b] > fit.problem.keys) {
      refuse("kv_lens[", number(b), "] = ", number(lengths.data[b]), " is not between 0 and ",
             fit.keys, " ", number(fit.problem.keys));
    }
  }
  return {lengths.data, 1};
}

ByEntry<float> checked_slopes(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.alibi_slopes) return {};
  const FloatArray& slopes = *params.alibi_slopes;
  const std::int64_t heads = fit.problem.query_heads;
  if (slopes.rank == 1 && slopes.shape[0] == heads) return {slopes.data, 0};
  if (slopes.rank != 2 || slopes.shape[0] != fit.entries || slopes.shape[1] != heads) {
    refuse("alibi_slopes must have shape (Hq,) or (B, Hq) = (", number(fit.entries), ", ",
           number(heads), "), not ", shape_text(slopes));
  }
  return {slopes.data, heads};
}

const float* checked_sinks(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.sinks) return nullptr;
  if (params.sinks->rank != 1 || params.sinks->shape[0] != fit.problem.query_heads) {
    refuse("sinks must have one logit per query head (", number(fit.problem.query_heads),
           "), not shape ", shape_text(*params.sinks));
  }
  return params.sinks->data;
}

}  // namespace

Score check_score(const ScoreParams& params, const ScoreFit& fit) {
  Score score;
  score.scale = checked_scale(params, fit);
  score.softcap = checked_softcap(params);
  score.spans = checked_spans(params.spans);
  score.q_offset = checked_offsets(params.q_offset, fit);
  score.kv_lens = checked_lengths(params, fit);
  score.alibi_slopes = checked_slopes(params, fit);
  score.sinks = checked_sinks(params, fit);
  if (params.relative) check_relative(*params.relative, fit.problem);
  score.relative = params.relative;
  score.mask = checked_mask(params, fit);
  score.bias = checked_bias(params, fit);
  return score;
}

}  // namespace numattn
