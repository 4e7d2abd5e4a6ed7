#include "check.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "check_relative.h"

namespace numattn {
namespace {

void check_inputs(const AttentionParams& params) {
  const char* axes =
      params.layout == Layout::kBhsd ? "(B, H, S, D) or (H, S, D)" : "(B, S, H, D) or (S, H, D)";
  if (params.q.rank != 3 && params.q.rank != 4) {
    refuse("q must have 3 or 4 dimensions ", axes, ", not shape ", shape_text(params.q));
  }
  check_rank(params.k, "k", params.q.rank, axes);
  check_rank(params.v, "v", params.q.rank, axes);
  check_scales(params);
  if (!params.k_scale && (params.q.dtype != params.k.dtype || params.q.dtype != params.v.dtype)) {
    throw DTypeError(std::string("q, k and v must have one dtype, not ") +
                     dtype_name(params.q.dtype) + ", " + dtype_name(params.k.dtype) + " and " +
                     dtype_name(params.v.dtype) + ": cast them with .astype()");
  }
  check_floating(params.q, "q");
  check_bytes(params.q, "q");
  check_bytes(params.k, "k");
  check_bytes(params.v, "v");
}

void check_shapes(const AttentionParams& params, const View& q, const View& k, const View& v) {
  const std::string shapes = "q " + shape_text(params.q) + ", k " + shape_text(params.k) + ", v " +
                             shape_text(params.v) + " in layout " +
                             (params.layout == Layout::kBhsd ? "'bhsd'" : "'bshd'");
  if (q.shape[0] != k.shape[0] || q.shape[0] != v.shape[0]) {
    refuse("q, k and v must have the same batch size: ", shapes);
  }
  if (k.shape[1] != v.shape[1]) refuse("k and v must have the same number of heads: ", shapes);
  if (k.shape[2] != v.shape[2]) refuse("k and v must have the same length: ", shapes);
  if (q.shape[3] != k.shape[3]) refuse("q and k must have the same head dimension: ", shapes);
  if (q.shape[3] < 1 || v.shape[3] < 1) refuse("head dimensions must be at least 1: ", shapes);
  if (q.shape[1] < 1 || k.shape[1] < 1) refuse("there must be at least one head: ", shapes);
  if (q.shape[1] % k.shape[1] != 0) {
    refuse("the number of query heads must be a multiple of the number of key heads: ", shapes);
  }
}

// Broadcasts to (B, H, Sq, Sk): missing and single axes get stride 0.
View broadcast_scores(const View& view, const char* name, const AttentionProblem& problem) {
  const std::array<std::int64_t, 4> target{problem.batch, problem.query_heads, problem.queries,
                                           problem.keys};
  View wide = view;
  wide.rank = 4;
  for (int axis = 0; axis < 4; ++axis) {
    const auto to = static_cast<std::size_t>(axis);
    const int from = axis - (4 - view.rank);
    const std::int64_t length = from < 0 ? 1 : view.shape[static_cast<std::size_t>(from)];
    if (length != target[to] && length != 1) {
      refuse(name, " of shape ", shape_text(view), " does not broadcast to (B, Hq, Sq, Sk) = (",
             number(target[0]), ", ", number(target[1]), ", ", number(target[2]), ", ",
             number(target[3]), ")");
    }
    wide.shape[to] = target[to];
    wide.strides[to] = from < 0 || length == 1 ? 0 : view.strides[static_cast<std::size_t>(from)];
  }
  return wide;
}

void check_score_operands(AttentionProblem& problem) {
  AttentionParams& params = problem.params;
  if (params.score.mask) {
    if (params.score.mask->dtype != DType::kBool) {
      throw DTypeError(std::string("mask must be bool (True = may attend), not ") +
                       dtype_name(params.score.mask->dtype) + "; pass additive values as bias");
    }
    params.score.mask = broadcast_scores(*params.score.mask, "mask", problem);
  }
  if (params.score.bias) {
    if (params.score.bias->dtype != DType::kFloat32 && params.score.bias->dtype != params.q.dtype) {
      throw DTypeError(std::string("bias must be float32 or q's dtype ") +
                       dtype_name(params.q.dtype) + ", not " +
                       dtype_name(params.score.bias->dtype) +
                       (params.score.bias->dtype == DType::kBool ? "; pass booleans as mask" : ""));
    }
    params.score.bias = broadcast_scores(*params.score.bias, "bias", problem);
  }
}

void check_scalars(const AttentionParams& params) {
  if (params.score.scale && !std::isfinite(*params.score.scale)) {
    refuse("scale must be finite, not ", std::to_string(*params.score.scale));
  }
  if (params.score.softcap &&
      !(*params.score.softcap > 0.0 && std::isfinite(*params.score.softcap))) {
    refuse("softcap must be positive and finite, not ", std::to_string(*params.score.softcap));
  }
  for (const std::int64_t side :
       {params.score.spans.window_left, params.score.spans.window_right}) {
    if (side < -1) {
      refuse("window sides must be -1 (unbounded) or at least 0, not (",
             number(params.score.spans.window_left), ", ", number(params.score.spans.window_right),
             ")");
    }
  }
  check_num_threads(params.num_threads);
}

void check_per_batch(const AttentionProblem& problem) {
  const IntArray& offset = problem.params.score.q_offset;
  if (offset.size > 1 && offset.size != problem.batch) {
    refuse("q_offset must be one number or have one per batch entry (", number(problem.batch),
           "), not ", number(offset.size));
  }
  if (!problem.params.score.kv_lens) return;
  const IntArray& lengths = *problem.params.score.kv_lens;
  if (lengths.size != problem.batch) {
    refuse("kv_lens must have one length per batch entry (", number(problem.batch), "), not ",
           number(lengths.size));
  }
  for (std::int64_t b = 0; b < lengths.size; ++b) {
    if (lengths.data[b] < 0 || lengths.data[b] > problem.keys) {
      refuse("kv_lens[", number(b), "] = ", number(lengths.data[b]),
             " is not between 0 and the number of keys ", number(problem.keys));
    }
  }
}

void check_per_head(const AttentionProblem& problem) {
  if (const auto& slopes = problem.params.score.alibi_slopes) {
    const bool flat = slopes->rank == 1 && slopes->shape[0] == problem.query_heads;
    const bool batched = slopes->rank == 2 && slopes->shape[0] == problem.batch &&
                         slopes->shape[1] == problem.query_heads;
    if (!flat && !batched) {
      const std::string got = slopes->rank == 1 ? "(" + number(slopes->shape[0]) + ",)"
                                                : "(" + number(slopes->shape[0]) + ", " +
                                                      number(slopes->shape[1]) + ")";
      refuse("alibi_slopes must have shape (Hq,) or (B, Hq) = (", number(problem.batch), ", ",
             number(problem.query_heads), "), not ", got);
    }
  }
  if (const auto& sinks = problem.params.score.sinks) {
    if (sinks->rank != 1 || sinks->shape[0] != problem.query_heads) {
      refuse("sinks must have one logit per query head (", number(problem.query_heads), "), not ",
             number(sinks->rank == 1 ? sinks->shape[0] : sinks->shape[0] * sinks->shape[1]));
    }
  }
}

}  // namespace

View with_batch(const View& view) {
  if (view.rank == 4) return view;
  View wide = view;
  wide.rank = 4;
  wide.shape = {1, view.shape[0], view.shape[1], view.shape[2]};
  wide.strides = {0, view.strides[0], view.strides[1], view.strides[2]};
  return wide;
}

View in_bhsd(const View& view, Layout layout) {
  View ordered = with_batch(view);
  if (layout == Layout::kBshd) {
    std::swap(ordered.shape[1], ordered.shape[2]);
    std::swap(ordered.strides[1], ordered.strides[2]);
  }
  return ordered;
}

Layout parse_layout(const std::string& name) {
  if (name == "bhsd") return Layout::kBhsd;
  if (name == "bshd") return Layout::kBshd;
  refuse("layout must be 'bhsd' or 'bshd', not '", name, "'");
}

Precision parse_precision(const std::string& name) {
  if (name == "highest") return Precision::kHighest;
  if (name == "high") return Precision::kHigh;
  refuse("precision must be 'highest' or 'high', not '", name, "'");
}

View contiguous_view(const std::vector<std::int64_t>& shape, DType dtype, const char* name) {
  if (shape.size() > 4) {
    refuse(name, " must have 3 or 4 dimensions, not ",
           number(static_cast<std::int64_t>(shape.size())));
  }
  View view;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  std::int64_t stride = view.item_size();
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    if (shape[axis] < 0) refuse(name, " has the negative length ", number(shape[axis]));
    view.shape[axis] = shape[axis];
    view.strides[axis] = stride;
    stride = checked_product(stride, std::max<std::int64_t>(shape[axis], 1), name);
  }
  return view;
}

AttentionProblem check_attention(const AttentionParams& params) {
  check_inputs(params);
  AttentionProblem problem{};
  problem.params = params;
  AttentionParams& canonical = problem.params;
  canonical.q = in_bhsd(params.q, params.layout);
  canonical.k = in_bhsd(params.k, params.layout);
  canonical.v = in_bhsd(params.v, params.layout);
  if (params.k_scale) {
    canonical.k_scale = in_bhsd(with_unit_axis(*params.k_scale), params.layout);
    canonical.v_scale = in_bhsd(with_unit_axis(*params.v_scale), params.layout);
  }
  check_shapes(params, canonical.q, canonical.k, canonical.v);
  problem.batch = canonical.q.shape[0];
  problem.query_heads = canonical.q.shape[1];
  problem.kv_heads = canonical.k.shape[1];
  problem.queries = canonical.q.shape[2];
  problem.keys = canonical.k.shape[2];
  problem.head_dim = canonical.q.shape[3];
  problem.value_dim = canonical.v.shape[3];
  check_scalars(params);
  check_per_batch(problem);
  check_per_head(problem);
  check_relative(problem);
  check_score_operands(problem);
  const double scale =
      params.score.scale.value_or(1.0 / std::sqrt(static_cast<double>(problem.head_dim)));
  problem.scale = static_cast<float>(scale);
  problem.rank = params.q.rank;
  std::int64_t bytes = canonical.q.item_size();
  for (const std::int64_t length :
       {std::max<std::int64_t>(problem.batch, 1), problem.query_heads,
        std::max<std::int64_t>(problem.queries, 1), problem.value_dim}) {
    bytes = checked_product(bytes, length, "the output");
  }
  std::array<std::int64_t, 4>& shape = problem.output_shape;
  shape = {problem.batch, problem.query_heads, problem.queries, problem.value_dim};
  if (params.layout == Layout::kBshd) std::swap(shape[1], shape[2]);
  if (problem.rank == 3) shape = {shape[1], shape[2], shape[3], 0};
  return problem;
}

std::array<std::int64_t, 4> weights_shape(const AttentionProblem& problem, std::int64_t row_count) {
  const std::array<std::int64_t, 4> shape{problem.batch, problem.query_heads, row_count,
                                          problem.keys};
  std::int64_t bytes = 4;
  for (const std::int64_t length : shape) {
    bytes = checked_product(bytes, std::max<std::int64_t>(length, 1), "the array of weights");
  }
  return shape;
}

void check_attention_output(const AttentionProblem& problem, const View& output) {
  check_output(output, problem.output_shape, problem.rank, problem.params.q.dtype, "q");
}

Activation parse_activation(const std::string& name) {
  if (name.empty()) return Activation::kNone;
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "silu") return Activation::kSilu;
  refuse("activation must be None, 'relu', 'gelu', 'gelu_tanh' or 'silu', not '", name, "'");
}

DType parse_storage(const std::string& name) {
  if (name == "float32") return DType::kFloat32;
  if (name == "bfloat16") return DType::kBFloat16;
  refuse("dtype must be float32 or bfloat16, the storage types, not ", name);
}

void check_linear_weight(const View& weight, const std::optional<View>& bias) {
  check_rank(weight, "weight", 2, "(out_features, in_features)");
  if (weight.shape[0] < 1 || weight.shape[1] < 1) {
    refuse("weight must have at least one row and one column, not shape ", shape_text(weight));
  }
  check_floating(weight, "weight");
  check_bytes(weight, "weight");
  if (!bias) return;
  check_rank(*bias, "bias", 1, "(out_features,)");
  if (bias->shape[0] != weight.shape[0]) {
    refuse("bias of shape ", shape_text(*bias), " does not fit weight of shape ",
           shape_text(weight), ": one number per output feature");
  }
}

void check_linear_call(const PackedLinear& linear, const PackedLinear::Call& call) {
  check_floating(call.x, "x");
  if (call.x.shape[1] != linear.in_features()) {
    refuse("x must have ", number(linear.in_features()), " features in its last dimension, not ",
           number(call.x.shape[1]));
  }
  check_num_threads(call.num_threads);
  const std::array<std::int64_t, 4> shape{call.x.shape[0], linear.out_features(), 0, 0};
  checked_product(checked_product(std::max<std::int64_t>(shape[0], 1), shape[1], "the output"),
                  call.x.item_size(), "the output");
  check_same_shape(call.output, "out", shape, 2);
  // Between layers of bfloat16 weights, results pass in the type that the next layer reads.
  if (linear.stores_bfloat16()) {
    if (call.output.dtype == DType::kBool || call.output.dtype == DType::kInt8) {
      refuse("out must be floating-point, not of dtype ", dtype_name(call.output.dtype));
    }
  } else {
    check_same_dtype(call.output, "out", call.x.dtype, "x");
  }
  check_writable(call.output, "out");
  if (!call.residual) return;
  check_same_shape(*call.residual, "residual", shape, 2);
  check_same_dtype(*call.residual, "residual", call.output.dtype, "the output");
}

void check_norm(const NormParams& params) {
  check_floating(params.x, "x");
  const std::int64_t width = params.x.shape[1];
  if (width < 1) refuse("x must have at least one element in its last dimension");
  const auto check_vector = [width](const View& vector, const char* name) {
    if (vector.rank == 1 && vector.shape[0] == width) return;
    refuse(name, " must have shape (", number(width), ",) like x's last dimension, not ",
           shape_text(vector));
  };
  check_vector(params.weight, "weight");
  if (params.bias) check_vector(*params.bias, "bias");
  if (!(params.epsilon >= 0.0) || !std::isfinite(params.epsilon)) {
    refuse("eps must be finite and not negative, not ", std::to_string(params.epsilon));
  }
  check_num_threads(params.num_threads);
  check_output(params.output, params.x.shape, 2, params.x.dtype, "x");
}

}  // namespace numattn
