// What a head does with a tile of keys, or with a part of one, in a visit (decode.h): scores,
// weights and values of all its rows. Part of it is compiled for each type of elements.
#pragma once

#include "decode_scores.h"
#include "decode_values.h"

namespace numattn {
namespace {

inline std::int64_t score_stride(const TileFacts& facts) { return padded_floats(facts.key_block); }

// The raw scores of a part of a tile.
template <class Keys, class Element>
inline void score_part(const DecodeHead& head, const TileRows& tile, const TilePart& part,
                       std::int64_t stride) {
  using Query = typename Keys::Query;
  const DecodeTile<Element> in(tile);
  const AttendBlock& block = *head.block;
  const DecodeWorkspace& work = head.work;
  constexpr int kToAFloat = sizeof(float) / sizeof(Query);
  for (int r = 0; r < block.row_count; r += kRowsAtOnce) {
    with_count<kRowsAtOnce>(rows_at_once(block.row_count - r), [&](auto rows) {
      const KeptQueries<Query> queries{
          reinterpret_cast<const Query*>(work.query + r * work.query_stride),
          work.query_stride * kToAFloat, ScoreFactor(block.rules).of_scores};
      score_rows<Keys, decltype(rows)::value>(queries, in, part, work.score + r * stride, stride);
    });
  }
}

// Whether a tile's final scores let it be left out.
inline bool is_left_out(const DecodeHead& head, KeyRange keys, std::int64_t stride) {
  const float level = head.block->rules.skip_level;
  if (level == 0.0f) return false;
  for (int r = 0; r < head.block->row_count; ++r) {
    if (!is_left_out(keys.count(), head.work.score + r * stride, head.work.peak[r], level)) {
      return false;
    }
  }
  return true;
}

// The scores of a tile become weights, and the rows' states move on, unless it is left out.
// `scaled` tokens are integers, whose scales are first laid out.
__attribute__((noinline)) void weigh_tile(DecodeHead& head, KeyRange keys, bool scaled,
                                          std::int64_t stride) {
  const AttendBlock& block = *head.block;
  const DecodeWorkspace& work = head.work;
  if (scaled) {
    list_scales(block.key, keys, work.key_scales);
    list_scales(block.value, keys, work.value_scales);
  }
  for (int r = 0; r < block.row_count; ++r) {
    float* scores = work.score + r * stride;
    if (scaled) multiply_row(keys.count(), work.key_scales, scores);
    finish_scores(block.rows[r], block.rules, keys, scores);
  }
  head.left_out = is_left_out(head, keys, stride);
  if (head.left_out) return;
  for (int r = 0; r < block.row_count; ++r) {
    float* scores = work.score + r * stride;
    head.alpha[r] = update_row(keys.count(), scores, work.peak + r, work.sum + r);
    if (scaled) multiply_row(keys.count(), work.value_scales, scores);
  }
}

// The values of a part of a tile, weighed.
template <class Element>
inline void add_part(const DecodeHead& head, const TileRows& tile, const TilePart& part,
                     std::int64_t stride) {
  const DecodeTile<Element> in(tile);
  const AttendBlock& block = *head.block;
  const DecodeWorkspace& work = head.work;
  const std::int64_t output_stride = padded_floats(block.value_dim);
  for (int r = 0; r < block.row_count; r += kRowsAtOnce) {
    const int count = rows_at_once(block.row_count - r);
    float* sums = work.value_sums + r * output_stride;
    with_count<kRowsAtOnce>(count, [&](auto rows) {
      add_value_rows<decltype(rows)::value>(in, part, work.score + r * stride, stride, sums,
                                            block.value_dim);
    });
    if (part.end < tile.keys.count()) continue;
    add_to_output(count, block.value_dim, head.alpha + r, sums, work.output + r * output_stride,
                  output_stride);
  }
}

// The same of a whole tile, of which not every row sees every key, where a value is infinite or
// NaN. False where none is, and nothing is done.
template <class Element>
inline bool add_where_visible(const DecodeHead& head, const TileRows& tile, std::int64_t stride) {
  const DecodeTile<Element> in(tile);
  if (!has_nonfinite(in, head.block->value_dim)) return false;
  add_visible_value_rows(*head.block, in, head.work.score, stride, head.alpha, head.work.output,
                         padded_floats(head.block->value_dim));
  return true;
}

// What of a visit depends on the type of elements.
struct ElementSteps {
  DType query;  // as queries are kept
  void (*score_part)(const DecodeHead&, const TileRows&, const TilePart&, std::int64_t);
  void (*add_part)(const DecodeHead&, const TileRows&, const TilePart&, std::int64_t);
  bool (*add_where_visible)(const DecodeHead&, const TileRows&, std::int64_t);
};

template <class Keys, class Element>
constexpr ElementSteps element_steps() {
  return {element_dtype(typename Keys::Query{}), score_part<Keys, Element>, add_part<Element>,
          add_where_visible<Element>};
}

}  // namespace
}  // namespace numattn
