// What a score goes through on its way to a weight: as a caller says it, and checked.
#pragma once

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
  X(scale)                      \
  X(softcap)                    \
  X(kv_lens)                    \
  X(alibi_slopes)               \
  X(sinks)                      \
  X(relative)

#define NUMATTN_SCORE_FIELD(name) name,
enum class ScoreField : int { NUMATTN_SCORE_FIELDS(NUMATTN_SCORE_FIELD) };
#undef NUMATTN_SCORE_FIELD

// What leaves a query row one interval of keys; key_span() of plan/spans.h is what each means.
struct SpanRules {
  bool causal = false;
  std::int64_t window_left = -1;  // -1: unbounded
  std::int64_t window_right = -1;
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
  IntArray q_offset;  // 1 or B values; none is 0
  std::optional<double> scale;
  std::optional<double> softcap;
  std::optional<IntArray> kv_lens;
  std::optional<FloatArray> alibi_slopes;
  std::optional<FloatArray> sinks;
  std::optional<RelativeTerms> relative;
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

// Checked: what a problem's kernels are told.
struct Score {
  std::optional<View> mask, bias;  // (B, Hq, Sq, Sk), strides 0 where broadcast
  SpanRules spans;
  ByEntry<std::int64_t> q_offset;  // without data: 0
  float scale = 0.0f;
  float softcap = 0.0f;           // 0: none
  ByEntry<std::int64_t> kv_lens;  // without data: all keys
  ByEntry<float> alibi_slopes;    // by query head
  const float* sinks = nullptr;   // by query head
  std::optional<RelativeTerms> relative;

  // What one batch entry sees of it, as a batch of its own.
  Score of_entry(std::int64_t entry) const;
};

}  // namespace numattn
