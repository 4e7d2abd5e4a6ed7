#include "parts.h"

#include <algorithm>

#include "check_view.h"

namespace numattn {
namespace {

// The view from the index-th place of an axis on, `length` long there.
void narrow(View& view, std::size_t axis, std::int64_t index, std::int64_t length) {
  view.data = static_cast<char*>(view.data) + index * view.strides[axis];
  view.shape[axis] = length;
}

constexpr std::size_t kBatch = 0, kPosition = 2;

// The part of an array of queries or outputs, in canonical order.
void narrow_to_part(View& view, const AttentionCall& call, std::int64_t part) {
  if (call.parts == Parts::kSequences) {
    const std::int64_t* starts = call.query_starts.data() + part;
    narrow(view, kPosition, starts[0], starts[1] - starts[0]);
  } else {
    narrow(view, kBatch, part, 1);
  }
}

// The part of keys or values that do not lie in pages.
void narrow_to_part(StoredTokens& tokens, const AttentionCall& call, std::int64_t part) {
  const bool entry = call.parts == Parts::kEntries;
  const std::size_t axis = entry ? kBatch : kPosition;
  const std::int64_t* starts = call.key_starts.data() + part;
  const std::int64_t first = entry ? part : starts[0];
  const std::int64_t length = entry ? 1 : starts[1] - starts[0];
  narrow(tokens.data, axis, first, length);
  if (tokens.scale) narrow(*tokens.scale, axis, first, length);
}

// Lengths in canonical order, as the caller's layout and rank have them.
std::vector<std::int64_t> in_layout(const AttentionCall& call, std::int64_t width) {
  const AttentionProblem& whole = call.whole;
  std::vector<std::int64_t> shape{whole.batch, whole.query_heads, whole.queries, width};
  if (call.layout == Layout::kBshd) std::swap(shape[1], shape[2]);
  if (call.rank == 3) shape.erase(shape.begin());
  return shape;
}

}  // namespace

Score Score::of_entry(std::int64_t entry) const {
  Score own = *this;
  if (own.mask) narrow(*own.mask, kBatch, entry, 1);
  if (own.bias) narrow(*own.bias, kBatch, entry, 1);
  own.key_spans = key_spans.from(entry, 0);
  own.block_mask = block_mask.from(entry);
  own.q_offset.data = q_offset.of(entry);
  own.kv_lens.data = kv_lens.of(entry);
  own.alibi_slopes.data = alibi_slopes.of(entry);
  return own;
}

AttentionProblem problem_of(const AttentionCall& call, std::int64_t part) {
  AttentionProblem own = call.whole;
  if (call.parts == Parts::kOne) return own;
  own.score = call.whole.score.of_entry(part);
  own.batch = 1;
  narrow_to_part(own.q, call, part);
  own.queries = own.q.shape[kPosition];
  if (call.parts == Parts::kPagedEntries) {
    own.pages = call.table.pages + part * call.table.columns;
  } else {
    narrow_to_part(own.k, call, part);
    narrow_to_part(own.v, call, part);
  }
  if (call.parts == Parts::kSequences) {
    const std::int64_t first = call.query_starts[static_cast<std::size_t>(part)];
    own.score.key_spans = own.score.key_spans.from(0, first);
    if (!call.block_masks.empty()) {
      own.score.block_mask = call.block_masks[static_cast<std::size_t>(part)];
    }
  }
  own.keys = call.parts == Parts::kSequences ? own.k.data.shape[kPosition]
                                             : call.token_counts[static_cast<std::size_t>(part)];
  return own;
}

AttentionPart part_of(const AttentionCall& call, const Results& results, std::int64_t part) {
  const std::int64_t queries = call.whole.queries;
  const std::int64_t entry = call.whole.query_heads * queries;
  AttentionPart own{problem_of(call, part), results.output, results.lse, entry, queries};
  if (call.parts == Parts::kOne) return own;
  narrow_to_part(own.output, call, part);
  if (results.lse == nullptr) return own;
  own.lse += call.parts == Parts::kSequences ? call.query_starts[static_cast<std::size_t>(part)]
                                             : part * entry;
  return own;
}

std::vector<std::int64_t> output_shape(const AttentionCall& call) {
  return in_layout(call, call.whole.value_dim);
}

std::vector<std::int64_t> lse_shape(const AttentionCall& call) {
  std::vector<std::int64_t> shape{call.whole.batch, call.whole.query_heads, call.whole.queries};
  if (call.rank == 3) shape.erase(shape.begin());
  return shape;
}

std::vector<std::int64_t> weights_shape(const AttentionCall& call, std::int64_t row_count) {
  std::vector<std::int64_t> shape{call.whole.batch, call.whole.query_heads, row_count,
                                  call.whole.keys};
  std::int64_t bytes = 4;
  for (const std::int64_t length : shape) {
    bytes = checked_product(bytes, std::max<std::int64_t>(length, 1), "the array of weights");
  }
  if (call.rank == 3) shape.erase(shape.begin());
  return shape;
}

}  // namespace numattn
