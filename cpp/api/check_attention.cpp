// q, keys and values of an attention call, and its result.
#include <algorithm>
#include <string>

#include "attention_operands.h"
#include "check.h"
#include "layout.h"

namespace numattn {
namespace {

// All shapes of a call in a message: only made for one, since it takes longer than a small call.
struct Shapes {
  const AttentionParams& params;
  const TokenNames& names;

  operator std::string() const {
    return "q " + shape_text(params.q) + ", " + names.k + " " + shape_text(params.k.data) + ", " +
           names.v + " " + shape_text(params.v.data) + " in layout " +
           (params.layout == Layout::kBhsd ? "'bhsd'" : "'bshd'");
  }
};

void check_ranks(const AttentionParams& params) {
  const char* axes =
      params.layout == Layout::kBhsd ? "(B, H, S, D) or (H, S, D)" : "(B, S, H, D) or (S, H, D)";
  if (params.q.rank != 3 && params.q.rank != 4) {
    refuse("q must have 3 or 4 dimensions ", axes, ", not shape ", shape_text(params.q));
  }
  check_rank(params.k.data, "k", params.q.rank, axes);
  check_rank(params.v.data, "v", params.q.rank, axes);
}

}  // namespace

void check_operands(const AttentionParams& params, const TokenNames& names) {
  const View& q = params.q;
  const View& k = params.k.data;
  const View& v = params.v.data;
  check_scales(params, names);
  if (!params.k.scale && (q.dtype != k.dtype || q.dtype != v.dtype)) {
    throw DTypeError(std::string("q, ") + names.k + " and " + names.v +
                     " must have one dtype, not " + dtype_name(q.dtype) + ", " +
                     dtype_name(k.dtype) + " and " + dtype_name(v.dtype) +
                     ": cast them with .astype()");
  }
  check_floating(q, "q");
  check_bytes(q, "q");
  check_bytes(k, names.k);
  check_bytes(v, names.v);
  check_num_threads(params.num_threads);
}

void take_lengths(AttentionCall& call, const AttentionParams& params, const TokenNames& names) {
  AttentionProblem& problem = call.whole;
  const Shapes shapes{params, names};
  const std::int64_t wide = params.k.wide.count;
  const View& q = problem.q;
  const View& k = problem.k.data;
  const View& v = problem.v.data;
  if (k.shape[1] != v.shape[1]) refuse("k and v must have the same number of heads: ", shapes);
  if (k.shape[2] != v.shape[2]) refuse("k and v must have the same length: ", shapes);
  if (q.shape[3] != k.shape[3] - wide) {
    if (wide == 0) refuse("q and k must have the same head dimension: ", shapes);
    refuse(names.k, " must have the head dimension of q and ", number(wide),
           " more elements for its wide channels: ", shapes);
  }
  if (q.shape[3] < 1 || v.shape[3] < 1) refuse("head dimensions must be at least 1: ", shapes);
  if (q.shape[1] < 1 || k.shape[1] < 1) refuse("there must be at least one head: ", shapes);
  if (q.shape[1] % k.shape[1] != 0) {
    refuse("the number of query heads must be a multiple of the number of key heads: ", shapes);
  }
  problem.batch = q.shape[0];
  problem.query_heads = q.shape[1];
  problem.kv_heads = k.shape[1];
  problem.queries = q.shape[2];
  problem.keys = k.shape[2];
  problem.head_dim = q.shape[3];
  problem.value_dim = v.shape[3];
  take_wide(call, params.k.wide);
}

void check_output_size(const AttentionProblem& problem) {
  std::int64_t bytes = problem.q.item_size();
  for (const std::int64_t length :
       {std::max<std::int64_t>(problem.batch, 1), problem.query_heads,
        std::max<std::int64_t>(problem.queries, 1), problem.value_dim}) {
    bytes = checked_product(bytes, length, "the output");
  }
}

namespace {

AttentionCall checked(const AttentionParams& params) {
  check_ranks(params);
  constexpr TokenNames kNames{"k", "v"};
  check_operands(params, kNames);
  AttentionCall call{};
  call.layout = params.layout;
  call.rank = params.q.rank;
  call.num_threads = params.num_threads;
  AttentionProblem& problem = call.whole;
  problem.precision = params.precision;
  problem.q = in_bhsd(params.q, params.layout);
  problem.k = in_bhsd(params.k, params.layout);
  problem.v = in_bhsd(params.v, params.layout);
  const std::int64_t batch = problem.q.shape[0];
  if (batch != problem.k.data.shape[0] || batch != problem.v.data.shape[0]) {
    refuse("q, k and v must have the same batch size: ", Shapes{params, kNames});
  }
  take_lengths(call, params, kNames);
  problem.score =
      check_score(params.score, {problem, batch, "batch entry", "the number of keys", "Sk"});
  check_output_size(problem);
  return call;
}

}  // namespace

AttentionCall check_attention(const AttentionParams& params) {
  AttentionCall call = checked(params);
  AttentionProblem& whole = call.whole;
  if (!params.score.kv_lens || !may_split(shape_of(whole))) return call;
  // An entry's keys are split as if there were no others, which the longest of its neighbours could
  // not see to.
  call.token_counts.resize(static_cast<std::size_t>(whole.batch));
  for (std::int64_t b = 0; b < whole.batch; ++b) {
    call.token_counts[static_cast<std::size_t>(b)] = *whole.score.kv_lens.of(b);
  }
  whole.score.kv_lens = {};
  call.parts = Parts::kEntries;
  call.part_count = whole.batch;
  return call;
}

AttentionCall check_weights(const AttentionParams& params) {
  check_floating(params.k.data, "k");
  AttentionParams scores = params;
  scores.v = params.k;
  if (scores.score.relative) scores.score.relative->value_table = {};
  return checked(scores);
}

void check_attention_output(const AttentionCall& call, const View& output) {
  const std::vector<std::int64_t> lengths = output_shape(call);
  std::array<std::int64_t, 4> shape{};
  std::copy(lengths.begin(), lengths.end(), shape.begin());
  check_output(output, shape, call.rank, call.whole.q.dtype, "q");
}

}  // namespace numattn
