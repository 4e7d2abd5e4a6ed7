// Attention of few query rows over many keys: the head dimension lies in lanes, keys and values are
// streamed once for all rows of their head. Same definition and same state as attend.h, row by row:
//
//   score[row][key] = Σ_d query[row][d] · key[key][d],   output[row][d] = Σ_key weight[row][key] ·
//   value[key][d]
//
// Scores lie with keys contiguous, so masks and biases are read along their own rows.
#pragma once

#include "left_out.h"
#include "softmax.h"

namespace numattn {
namespace {

constexpr int kDecodeRows = 8;

// Rows that are multiplied at a time; more go over the tile again, which then is in the cache.
//
// Not kept: to halve 5 to 8 rows evenly and fetch nothing during the second half, which was slower
// for any number of rows; to compile all eight heights, as fast, and a quarter more code in all.
constexpr int kRowsAtOnce = 4;

inline int rows_at_once(int left) { return left < kRowsAtOnce ? left : kRowsAtOnce; }

// A tile's tokens as one head has them, wherever they lie: rows of any element.
struct TileRows {
  KeyRange keys;
  std::int64_t key_width;  // elements of a key's row, and of the queries that it meets
  const char* const* key_rows;
  std::int64_t key_offset;  // bytes, of the head in a row
  const char* const* value_rows;
  std::int64_t value_offset;
  const float* value_scales;  // null where elements are the numbers themselves
};

// The same as rows of Element.
template <class Element>
struct DecodeTile {
  KeyRange keys;
  std::int64_t key_width;  // elements of a key's row, and of the queries that it meets
  ListedRows<Element> key;
  ListedRows<Element> value;
  const float* value_scales;

  explicit DecodeTile(const TileRows& rows)
      : keys(rows.keys),
        key_width(rows.key_width),
        key{rows.key_rows, rows.key_offset},
        value{rows.value_rows, rows.value_offset},
        value_scales(rows.value_scales) {}
};

// Some tokens of a tile, [begin, end) within it, and what is fetched while they are at work: a
// place for each. Memory is the limit here, so it must never idle.
struct TilePart {
  std::int64_t begin, end;
  const char* const* fetched;
  std::int64_t fetched_offset;
  std::int64_t fetched_bytes;

  const char* fetched_at(std::int64_t token) const {
    return fetched[token - begin] + fetched_offset;
  }
};

struct DecodeWorkspace : FloatWorkspace {
  float* value_sums;  // of a tile so far (decode_values.h): as many floats as `output`
  const char** rows;  // where the tokens of three tiles lie
  std::int64_t query_stride;
  const char** copied_rows;
  float* key_scales;
  float* value_scales;

  DecodeWorkspace() = default;
  DecodeWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs)
      : FloatWorkspace(areas, facts, needs),
        value_sums(areas.take(kDecodeRows * padded_floats(needs.value_dim))),
        rows(areas.take<const char*>(3 * facts.key_block)),
        query_stride(padded_floats(needs.head_dim + needs.tile.wide_channels)),
        copied_rows(areas.take<const char*>(facts.key_block)),
        key_scales(areas.take(facts.key_block)),
        value_scales(areas.take(facts.key_block)) {}
};

// One head that is visited: its block, its memory, and the factors by which a tile lowers its
// rows' outputs, or that it does nothing.
struct DecodeHead {
  const AttendBlock* block = nullptr;
  DecodeWorkspace work;
  float alpha[kDecodeRows];
  bool left_out = false;  // the tile is, with its values
};

// row[j] · factors[j], in place.
inline void multiply_row(std::int64_t count, const float* factors, float* row) {
  for (std::int64_t j = 0; j < count; j += Vec::kWidth) {
    store(row + j, load(row + j) * load(factors + j));
  }
}

// One row's raw scores become logits in place, keys in lanes.
inline void finish_scores(const QueryRow& row, const ScoreRules& rules, KeyRange keys,
                          float* scores) {
  const KeyLanes lanes(row, rules, keys);
  Transforms::apply(rules, lanes, scores);
  const Vec excluded = broadcast(-kInfinity);
  const bool by_bits = row.blocks != nullptr;
  std::uint64_t bits = 0;
  if (by_bits)
    bits = row.seen_bits(keys.begin, row.block_at(keys.begin)) & keys.bits_from(keys.begin);
  const KeyRange seen = row.seen(keys, nullptr).from(keys.begin);
  const Vec begin = broadcast(static_cast<float>(seen.begin));
  const Vec end = broadcast(static_cast<float>(seen.end));
  lanes.change(scores, [&](const KeyLanes::Place& at, Vec score) {
    if (row.mask != nullptr) {
      const char* from = row.mask + (keys.begin + at.j) * rules.mask_key_stride;
      const Vec allowed =
          read_elements(from, DType::kBool, rules.mask_key_stride, lanes_left(at.j, keys.count()));
      score = select(equal(allowed, zero()), excluded, score);
    }
    if (by_bits) {
      return select(mask_from_bits(static_cast<std::uint16_t>(bits >> at.j)), score, excluded);
    }
    const Vec key = at.key();
    return select(less_equal(begin, key) & less(key, end), score, excluded);
  });
}

// The row's scores become weights; its peak and sum move on; returns the old state's factor α.
inline float update_row(std::int64_t key_count, float* scores, float* peak, float* sum) {
  Vec peaks = broadcast(*peak);
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) peaks = max(load(scores + j), peaks);
  const float top = reduce_max(peaks);
  const float shift = top == -kInfinity ? 0.0f : top;
  Vec total = zero();
  for (std::int64_t j = 0; j < key_count; j += Vec::kWidth) {
    const Vec weight = exp2(load(scores + j) - broadcast(shift));
    store(scores + j, weight);
    total = total + weight;
  }
  float alpha[Vec::kWidth];
  store(alpha, exp2(broadcast(*peak - shift)));
  *peak = top;
  *sum = *sum * alpha[0] + reduce_add(total);
  return alpha[0];
}

}  // namespace
}  // namespace numattn
