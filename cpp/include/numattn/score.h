// What a score goes through on its way to a weight: as a caller says it, and checked.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "numattn/small_array.h"
#include "numattn/view.h"

namespace numattn {

// The fields of numattn._score.Score, by which these arguments come from Python, in its order.
#define NUMATTN_SCORE_FIELDS(X) \
  X(mask)                       \
  X(bias)                       \
  X(is_causal)                  \
  X(q_offset)                   \
  X(window)                     \
  X(key_spans)                  \
  X(sink_tokens)                \
  X(block_mask)                 \
  X(scale)                      \
  X(softcap)                    \
  X(kv_lens)                    \
  X(alibi_slopes)               \
  X(sinks)                      \
  X(relative)                   \
  X(skip_below)

#define NUMATTN_SCORE_FIELD(name) name,
enum class ScoreField : int { NUMATTN_SCORE_FIELDS(NUMATTN_SCORE_FIELD) };
#undef NUMATTN_SCORE_FIELD

// What leaves a query row one interval of keys; key_span() of plan/spans.h is what each means.
struct SpanRules {
  bool causal = false;
  std::int64_t window_left = -1;  // -1: unbounded
  std::int64_t window_right = -1;
  std::int64_t sink_tokens = 0;  // keys that the window does not hide, the first ones
};

// The keys [begin, end) that each query row may see, on top of these rules: contiguous, all begins
// and then all ends, each of `shape` (batch entries, query heads, queries) or 1 where all have the
// same.
struct KeySpans {
  const std::int64_t* data = nullptr;
  std::array<std::int64_t, 3> shape{};

  std::int64_t count() const { return shape[0] * shape[1] * shape[2]; }
};

// Lists of key blocks for blocks of 64 queries, each list in order and within 64-bit words'
// numbers, as the Python layer has made them: list i is entries[starts[i]] to entries[starts[i +
// 1]], each a pair (key block, 64-word bits or −1), of batch entry, query head and query block i.
struct BlockLists {
  const std::int64_t* starts = nullptr;
  const std::int32_t* entries = nullptr;
  const std::uint64_t* words = nullptr;
  std::array<std::int64_t, 4> shape{};  // batch entries and query heads or 1, queries, keys
};

// Terms by the distance of a query's position from a key, δ = position − key. With
// row(δ) = distance_rows[clip(δ − first_distance, 0, distance_rows.size − 1)]:
//
//   score(i, j) = scale · ((q_i + content_bias) · k_j + (q_i + position_bias) · query_table[row(δ)]
//                          + k_j · key_table[row(δ)])
//   output(i)   = Σ_j weight(i, j) · (v_j + value_table[row(δ)])
//
// Tables (1 or query_heads, rows, head_dim; value_dim for value_table) and biases (1 or
// query_heads, head_dim); those without data are left out.
struct RelativeTerms {
  FloatArray query_table, key_table, value_table;
  FloatArray content_bias, position_bias;
  IntArray distance_rows;
  std::int64_t first_distance = 0;
};

// As the caller gave them; the arguments of the Python function attention of the same names.
struct ScoreParams {
  std::optional<View> mask, bias;
  SpanRules spans;
  std::optional<KeySpans> key_spans;
  std::optional<BlockLists> block_mask;
  IntArray q_offset;  // 1 or B values; none is 0
  std::optional<double> scale;
  std::optional<double> softcap;
  std::optional<IntArray> kv_lens;
  std::optional<FloatArray> alibi_slopes;
  std::optional<FloatArray> sinks;
  std::optional<RelativeTerms> relative;
  double skip_below = 0.0;
};

// Numbers for each batch entry; a stride of 0 where all have the same.
template <class Number>
struct ByEntry {
  const Number* data = nullptr;
  std::int64_t stride = 0;

  const Number* of(std::int64_t entry) const {
    return data == nullptr ? nullptr : data + entry * stride;
  }
};

// Intervals for each (batch entry, query head, query); strides of 0 where all have the same.
struct RowSpans {
  const std::int64_t* begin = nullptr;  // null: none are given
  const std::int64_t* end = nullptr;
  std::array<std::int64_t, 3> strides{};

  // Those from a batch entry and a query on, whose number is then 0.
  RowSpans from(std::int64_t entry, std::int64_t query) const {
    if (begin == nullptr) return {};
    const std::int64_t skipped = place(entry, 0, query);
    return {begin + skipped, end + skipped, strides};
  }
  std::int64_t place(std::int64_t entry, std::int64_t head, std::int64_t query) const {
    return entry * strides[0] + head * strides[1] + query * strides[2];
  }
};

// Lists of each (batch entry, query head, block of 64 queries); strides of 0 where all have the
// same.
struct RowBlocks {
  BlockLists lists;  // without starts: none are given
  std::array<std::int64_t, 2> strides{};

  // The list's number.
  std::int64_t place(std::int64_t entry, std::int64_t head, std::int64_t query_block) const {
    return entry * strides[0] + head * strides[1] + query_block;
  }
  RowBlocks from(std::int64_t entry) const {
    RowBlocks own = *this;
    if (lists.starts != nullptr) own.lists.starts += entry * strides[0];
    return own;
  }
};

// Checked: what a problem's kernels are told.
struct Score {
  std::optional<View> mask, bias;  // (B, Hq, Sq, Sk), strides 0 where broadcast
  SpanRules spans;
  RowSpans key_spans;
  RowBlocks block_mask;
  ByEntry<std::int64_t> q_offset;  // without data: 0
  float scale = 0.0f;
  float softcap = 0.0f;           // 0: none
  float skip_level = 0.0f;        // log2 of skip_below; 0: none
  ByEntry<std::int64_t> kv_lens;  // without data: all keys
  ByEntry<float> alibi_slopes;    // by query head
  const float* sinks = nullptr;   // by query head
  std::optional<RelativeTerms> relative;

  // What one batch entry sees of it, as a batch of its own.
  Score of_entry(std::int64_t entry) const;
};

}  // namespace numattn
