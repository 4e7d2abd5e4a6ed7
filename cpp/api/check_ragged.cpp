// Attention over sequences that lie one after the other in memory: checks, and one problem each.
#include <string>

#include "check.h"
#include "check_view.h"
#include "numattn/attention.h"

namespace numattn {
namespace {

// Rows [first, last) of an array (total, heads, width).
View rows_of(const View& all, std::int64_t first, std::int64_t last) {
  View part = all;
  part.data = static_cast<char*>(all.data) + first * all.strides[0];
  part.shape[0] = last - first;
  return part;
}

void check_starts(const IntArray& starts, const char* name, std::int64_t total, const char* array) {
  if (starts.size < 1 || starts.data[0] != 0) {
    refuse(name, " must start at 0, not ", starts.size < 1 ? "be empty" : number(starts.data[0]));
  }
  for (std::int64_t i = 1; i < starts.size; ++i) {
    if (starts.data[i] >= starts.data[i - 1]) continue;
    refuse(name, " must not fall: ", number(starts.data[i - 1]), ", ", number(starts.data[i]),
           " at ", number(i));
  }
  if (starts.data[starts.size - 1] != total) {
    refuse(name, " must end at the ", number(total), " rows of ", array, ", not at ",
           number(starts.data[starts.size - 1]));
  }
}

void check_ranks(const AttentionParams& shared) {
  check_rank(shared.q, "q", 3, "(total, H, D)");
  check_rank(shared.k, "k", 3, "(total, H, D)");
  check_rank(shared.v, "v", 3, "(total, H, D)");
  if (shared.k.shape[0] != shared.v.shape[0]) {
    refuse("k and v must have the same number of rows, not shapes ", shape_text(shared.k), " and ",
           shape_text(shared.v));
  }
}

}  // namespace

std::vector<AttentionProblem> check_ragged(const RaggedParams& params) {
  const AttentionParams& shared = params.shared;
  check_ranks(shared);
  const IntArray& queries = params.query_starts;
  const IntArray& keys = params.key_starts;
  check_starts(queries, "cu_seqlens_q", shared.q.shape[0], "q");
  check_starts(keys, "cu_seqlens_k", shared.k.shape[0], "k");
  if (queries.size != keys.size) {
    refuse("cu_seqlens_q and cu_seqlens_k must name as many sequences, not ",
           number(queries.size - 1), " and ", number(keys.size - 1));
  }
  const std::int64_t sequences = queries.size - 1;
  if (shared.score.q_offset.size > 1 && shared.score.q_offset.size != sequences) {
    refuse("q_offset must be one number or have one per sequence (", number(sequences), "), not ",
           number(shared.score.q_offset.size));
  }
  std::vector<AttentionProblem> problems;
  problems.reserve(static_cast<std::size_t>(sequences));
  for (std::int64_t i = 0; i < sequences; ++i) {
    AttentionParams own = shared;
    own.q = rows_of(shared.q, queries.data[i], queries.data[i + 1]);
    own.k = rows_of(shared.k, keys.data[i], keys.data[i + 1]);
    own.v = rows_of(shared.v, keys.data[i], keys.data[i + 1]);
    if (shared.score.q_offset.size > 1) own.score.q_offset = {shared.score.q_offset.data + i, 1};
    problems.push_back(check_attention(own));
  }
  return problems;
}

void check_ragged_output(const RaggedParams& params, const View& output) {
  const View& q = params.shared.q;
  check_output(output, {q.shape[0], q.shape[1], params.shared.v.shape[2], 0}, 3, q.dtype, "q");
}

}  // namespace numattn
