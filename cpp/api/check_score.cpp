// The arguments of a score, once for a call, whatever its parts.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>

#include "check.h"
#include "divide_up.h"

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
  if (spans.sink_tokens < 0) {
    refuse("sink_tokens must be 0 or more, not ", number(spans.sink_tokens));
  }
  for (const std::int64_t side : {spans.window_left, spans.window_right}) {
    if (side < -1) {
      refuse("window sides must be -1 (unbounded) or at least 0, not (", number(spans.window_left),
             ", ", number(spans.window_right), ")");
    }
  }
  return spans;
}

// Each end of the spans of queries [first, last) must be in 0 … keys; begins beyond ends are empty.
void check_span_ends(const KeySpans& spans, std::int64_t first, std::int64_t last,
                     std::int64_t keys, const char* what) {
  const auto& shape = spans.shape;
  const std::int64_t rows = 2 * shape[0] * shape[1];
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t at = row * shape[2] + i;
      if (spans.data[at] >= 0 && spans.data[at] <= keys) continue;
      const std::int64_t entry = at % spans.count();
      refuse("key_spans: the ", at < spans.count() ? "begin " : "end ", number(spans.data[at]),
             " of row (", number(entry / (shape[1] * shape[2])), ", ",
             number(entry / shape[2] % shape[1]), ", ", number(i), ") is not between 0 and ", what,
             " ", number(keys));
    }
  }
}

RowSpans checked_key_spans(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.key_spans) return {};
  const KeySpans& spans = *params.key_spans;
  const AttentionProblem& problem = fit.problem;
  const std::array<std::int64_t, 3> target{problem.batch, problem.query_heads, problem.queries};
  RowSpans checked{spans.data, spans.data + spans.count(), {}};
  std::int64_t stride = 1;
  for (std::size_t axis = 3; axis-- > 0; stride *= spans.shape[axis]) {
    if (spans.shape[axis] != target[axis] && spans.shape[axis] != 1) {
      refuse("key_spans of shape (", number(spans.shape[0]), ", ", number(spans.shape[1]), ", ",
             number(spans.shape[2]), ") do not broadcast to (B, Hq, Sq) = (", number(target[0]),
             ", ", number(target[1]), ", ", number(target[2]), ")");
    }
    checked.strides[axis] = spans.shape[axis] == 1 ? 0 : stride;
  }
  if (fit.query_starts.size == 0 || spans.shape[2] == 1) {
    check_span_ends(spans, 0, spans.shape[2], problem.keys, fit.keys);
    return checked;
  }
  for (std::int64_t i = 0; i + 1 < fit.query_starts.size; ++i) {
    check_span_ends(spans, fit.query_starts.data[i], fit.query_starts.data[i + 1],
                    fit.key_starts.data[i + 1] - fit.key_starts.data[i], "the sequence's keys");
  }
  return checked;
}

RowBlocks checked_blocks(const ScoreParams& params, const ScoreFit& fit) {
  if (!params.block_mask) return {};
  return check_blocks(*params.block_mask,
                      {fit.entries, fit.problem.query_heads, fit.problem.queries, fit.problem.keys},
                      fit.keys_axis);
}

// Kernels compute in float32, in units of log 2: no score is beyond that.
constexpr double kLargestScore = 2.3e38;
constexpr double kSmallestNormal = std::numeric_limits<float>::min();

float checked_scale(const ScoreParams& params, const ScoreFit& fit) {
  const double scale =
      params.scale.value_or(1.0 / std::sqrt(static_cast<double>(fit.problem.head_dim)));
  const double size = std::abs(scale);
  if (scale != 0.0 && !(kSmallestNormal <= size && size <= kLargestScore)) {
    refuse("scale must be 0 or of a magnitude from 1.2e-38 to 2.3e38, not ", real_text(scale));
  }
  return static_cast<float>(scale);
}

// A cap above all scores leaves them nearly as they are, one below float32's least normal number
// makes them all equal: those limits are as good.
float checked_softcap(const ScoreParams& params) {
  if (!params.softcap) return 0.0f;
  const double softcap = *params.softcap;
  if (!(softcap > 0.0 && std::isfinite(softcap))) {
    refuse("softcap must be positive and finite, not ", real_text(softcap));
  }
  return static_cast<float>(std::min(std::max(softcap, kSmallestNormal), kLargestScore));
}

// One so near to 1 that its logarithm is none still leaves out something.
float checked_skip_level(const ScoreParams& params) {
  const double skip_below = params.skip_below;
  if (!(0.0 <= skip_below && skip_below < 1.0)) {
    refuse("skip_below must be at least 0 and less than 1, not ", real_text(skip_below));
  }
  return skip_below == 0.0 ? 0.0f : static_cast<float>(std::log2(skip_below));
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

RowBlocks check_blocks(const BlockLists& lists, const std::array<std::int64_t, 4>& target,
                       const char* keys_axis, std::optional<std::int64_t> sequence) {
  const std::array<std::int64_t, 4>& shape = lists.shape;
  for (std::size_t axis = 0; axis < 4; ++axis) {
    if (shape[axis] == target[axis] || (axis < 2 && shape[axis] == 1)) continue;
    refuse("block_mask", sequence ? "[" + number(*sequence) + "]" : "", " of shape (",
           number(shape[0]), ", ", number(shape[1]), ", ", number(shape[2]), ", ", number(shape[3]),
           ") does not fit (B, Hq, Sq, ", keys_axis, ") = (", number(target[0]), ", ",
           number(target[1]), ", ", number(target[2]), ", ", number(target[3]),
           "): the first two may be 1");
  }
  const std::int64_t blocks = divide_up(shape[2], kMaskBlock);
  return {lists, {shape[0] == 1 ? 0 : shape[1] * blocks, shape[1] == 1 ? 0 : blocks}};
}

Score check_score(const ScoreParams& params, const ScoreFit& fit) {
  Score score;
  score.scale = checked_scale(params, fit);
  score.softcap = checked_softcap(params);
  score.skip_level = checked_skip_level(params);
  score.spans = checked_spans(params.spans);
  score.key_spans = checked_key_spans(params, fit);
  score.block_mask = checked_blocks(params, fit);
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
