// Attention of few query rows over many keys: the head dimension lies in lanes, keys and values are
// streamed once for all rows of their head. Same definition and same state as attend.h, row by row:
//
//   score[row][key] = Σ_d query[row][d] · key[key][d],   output[row][d] = Σ_key weight[row][key] ·
//   value[key][d]
//
// Scores lie with keys contiguous, so masks and biases are read along their own rows.
#pragma once

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

// A tile's tokens, wherever they lie. Memory is the limit here, so it must never idle: while a
// tile's keys are multiplied its values are fetched, and while its values are added the next tile's
// keys.
template <class Element>
struct DecodeTile {
  KeyRange keys;
  std::int64_t key_width;  // elements of a key's row, and of the queries that it meets
  ListedRows<Element> key;
  ListedRows<Element> value;
  const float* key_scales;  // null where elements are the numbers themselves
  const float* value_scales;
  // What to fetch, as many places as the tile has tokens.
  const char* const* fetched_first;  // with its keys, so many bytes each
  std::int64_t first_bytes;
  const char* const* fetched_second;  // with its values, as much as those have
};

struct DecodeWorkspace : FloatWorkspace {
  std::int64_t query_stride;
  const char** key_rows;  // of two tiles
  const char** value_rows;
  const char** copied_rows;
  const char** share_rows;
  float* key_scales;
  float* value_scales;

  DecodeWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs)
      : FloatWorkspace(areas, facts, needs),
        query_stride(padded_floats(needs.head_dim + needs.tile.wide_channels)),
        key_rows(areas.take<const char*>(2 * facts.key_block)),
        value_rows(areas.take<const char*>(facts.key_block)),
        copied_rows(areas.take<const char*>(facts.key_block)),
        share_rows(areas.take<const char*>(facts.key_block)),
        key_scales(areas.take(facts.key_block)),
        value_scales(areas.take(facts.key_block)) {}
};

// Keys whose products with `Rows` rows are accumulated side by side: enough independent chains to
// hide the latency of a fused multiply-add (4 cycles, up to 2 a cycle), few enough to stay in
// registers.
constexpr int keys_abreast(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 2 : 1; }

template <int Rows, int Keys, class Element>
inline void score_keys(const float* query, std::int64_t query_stride, ListedRows<Element> keys,
                       std::int64_t head_dim, float* scores, std::int64_t score_stride) {
  const Element* key[Keys];
#pragma GCC unroll 8
  for (int j = 0; j < Keys; ++j) key[j] = keys[j];
  Vec sums[Keys][Rows];
#pragma GCC unroll 8
  for (int j = 0; j < Keys; ++j) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[j][r] = zero();
  }
  const auto add = [&](std::int64_t d, const auto& read) {
    Vec left[Keys];
#pragma GCC unroll 8
    for (int j = 0; j < Keys; ++j) left[j] = read(key[j] + d);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec right = read(query + r * query_stride + d);
#pragma GCC unroll 8
      for (int j = 0; j < Keys; ++j) sums[j][r] = fma(left[j], right, sums[j][r]);
    }
  };
  std::int64_t d = 0;
  for (; d + Vec::kWidth <= head_dim; d += Vec::kWidth) {
    add(d, [](const auto* from) { return load(from); });
  }
  if (d < head_dim) {
    const int count = static_cast<int>(head_dim - d);
    add(d, [count](const auto* from) { return load_partial(from, count); });
  }
  static_assert(Keys * Rows <= 8, "more sums than are reduced at once");
  Vec all[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) all[i] = i < Keys * Rows ? sums[i / Rows % Keys][i % Rows] : zero();
  float totals[8];
  reduce_add(all, totals);
#pragma GCC unroll 8
  for (int i = 0; i < Keys * Rows; ++i) {
    scores[i % Rows * score_stride + i / Rows] = totals[i];
  }
}

template <int Rows, class Element>
inline void score_rows(const float* query, std::int64_t query_stride, const DecodeTile<Element>& in,
                       float* scores, std::int64_t score_stride) {
  constexpr int kKeys = keys_abreast(Rows);
  std::int64_t j = 0;
  for (; j + kKeys <= in.keys.count(); j += kKeys) {
    for (int i = 0; i < kKeys; ++i) fetch_bytes(in.fetched_first[j + i], in.first_bytes);
    score_keys<Rows, kKeys>(query, query_stride, in.key.from(j), in.key_width, scores + j,
                            score_stride);
  }
  for (; j < in.keys.count(); ++j) {
    score_keys<Rows, 1>(query, query_stride, in.key.from(j), in.key_width, scores + j,
                        score_stride);
  }
}

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
  const KeyRange seen = row.span.both(keys).from(keys.begin);
  const Vec begin = broadcast(static_cast<float>(seen.begin));
  const Vec end = broadcast(static_cast<float>(seen.end));
  lanes.change(scores, [&](const KeyLanes::Place& at, Vec score) {
    if (row.mask != nullptr) {
      const char* from = row.mask + (keys.begin + at.j) * rules.mask_key_stride;
      const Vec allowed =
          read_elements(from, DType::kBool, rules.mask_key_stride, lanes_left(at.j, keys.count()));
      score = select(equal(allowed, zero()), excluded, score);
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

// output[r][d] = alpha[r] · output[r][d] + Σ_j weights[r][j] · value[j][d]
template <class Element>
inline void add_value_rows(int rows, std::int64_t value_dim, const DecodeTile<Element>& in,
                           const float* weights, std::int64_t weight_stride, const float* alpha,
                           float* output, std::int64_t output_stride) {
  constexpr int kVectors = 4;
  constexpr int kColumns = kVectors * Vec::kWidth;
  constexpr int kBytes = kColumns * static_cast<int>(sizeof(Element));
  constexpr int kLines = kBytes < kLineBytes ? 1 : kBytes / kLineBytes;
  const auto finish_at = [&](std::int64_t d) {
    return [=](int r, int v, Vec sum) {
      float* at = output + r * output_stride + d + v * Vec::kWidth;
      store(at, fma(load(at), broadcast(alpha[r]), sum));
    };
  };
  const auto operands_at = [&](std::int64_t d) {
    return ListedOperands<Element>{in.keys.count(), weights, weight_stride, 1, in.value, d};
  };
  std::int64_t d = 0;
  for (; d + kColumns <= value_dim; d += kColumns) {
    const ListedAhead<kLines> ahead{in.fetched_second,
                                    d * static_cast<std::int64_t>(sizeof(Element))};
    multiply_rows<kVectors, false, kRowsAtOnce>(rows, operands_at(d), finish_at(d), Vec::kWidth,
                                                ahead);
  }
  for (; d < value_dim; d += Vec::kWidth) {
    multiply_rows<1, true, kRowsAtOnce>(rows, operands_at(d), finish_at(d),
                                        lanes_left(d, value_dim));
  }
}

// The same where a value is infinite or NaN and not every row sees every key: see attend.h.
template <class Element>
inline void add_visible_value_rows(const AttendBlock& block, const DecodeTile<Element>& in,
                                   const float* weights, std::int64_t weight_stride,
                                   const float* alpha, float* output, std::int64_t output_stride) {
  for (int r = 0; r < block.row_count; ++r) {
    const QueryRow& row = block.rows[r];
    for (std::int64_t d = 0; d < block.value_dim; ++d) {
      float sum = 0.0f;
      for (std::int64_t j = 0; j < in.keys.count(); ++j) {
        const std::int64_t key = in.keys.begin + j;
        if (key < row.span.begin || key >= row.span.end) continue;
        sum += weights[r * weight_stride + j] * to_float(in.value[j][d]);
      }
      float* at = output + r * output_stride + d;
      *at = *at * alpha[r] + sum;
    }
  }
}

// Whether a value is an infinity or a NaN: x · 0 is 0 for every other. 8-bit integers are neither,
// but their scales may be.
template <class Element>
inline bool has_nonfinite(const DecodeTile<Element>& in, std::int64_t width) {
  Vec sum = zero();
  for (std::int64_t j = 0; j < in.keys.count(); ++j) {
    if (in.value_scales != nullptr) sum = fma(broadcast(in.value_scales[j]), zero(), sum);
    for (std::int64_t d = 0; in.value_scales == nullptr && d < width; d += Vec::kWidth) {
      const int count = lanes_left(d, width);
      const Element* from = in.value[j] + d;
      sum = fma(count == Vec::kWidth ? load(from) : load_partial(from, count), zero(), sum);
    }
  }
  const float total = reduce_add(sum);
  return total != total;
}

// copy_values() puts the tile's values where `in` lists them, if they are copied: only then, since
// the copy may replace the keys in the cache.
template <class Element, class CopyValues>
inline void decode_tile(const AttendBlock& block, const DecodeTile<Element>& in, bool all_visible,
                        const TileFacts& facts, const DecodeWorkspace& work,
                        const CopyValues& copy_values) {
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const std::int64_t score_stride = padded_floats(facts.key_block);
  float* weights = work.score;
  for (int r = 0; r < block.row_count; r += kRowsAtOnce) {
    with_count<kRowsAtOnce>(rows_at_once(block.row_count - r), [&](auto rows) {
      score_rows<decltype(rows)::value>(work.query + r * work.query_stride, work.query_stride, in,
                                        weights + r * score_stride, score_stride);
    });
  }
  float alpha[kDecodeRows];
  for (int r = 0; r < block.row_count; ++r) {
    float* scores = weights + r * score_stride;
    if (in.key_scales != nullptr) multiply_row(in.keys.count(), in.key_scales, scores);
    finish_scores(block.rows[r], block.rules, in.keys, scores);
    alpha[r] = update_row(in.keys.count(), scores, work.peak + r, work.sum + r);
    if (in.value_scales != nullptr) multiply_row(in.keys.count(), in.value_scales, scores);
  }
  copy_values();
  float* output = work.output;
  if (!all_visible && has_nonfinite(in, block.value_dim)) {
    add_visible_value_rows(block, in, weights, score_stride, alpha, output, output_stride);
    return;
  }
  for (int r = 0; r < block.row_count; r += kRowsAtOnce) {
    add_value_rows(rows_at_once(block.row_count - r), block.value_dim, in,
                   weights + r * score_stride, score_stride, alpha + r, output + r * output_stride,
                   output_stride);
  }
}

}  // namespace
}  // namespace numattn
