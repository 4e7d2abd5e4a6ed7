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
  float* tile_output;  // of the part of a tile so far: kDecodeRows rows like those of `output`
  const char** rows;   // where the tokens of three tiles lie
  std::int64_t query_stride;
  const char** copied_rows;
  float* key_scales;
  float* value_scales;

  DecodeWorkspace() = default;
  DecodeWorkspace(Areas& areas, const TileFacts& facts, const WorkspaceNeeds& needs)
      : FloatWorkspace(areas, facts, needs),
        tile_output(areas.take(kDecodeRows * padded_floats(needs.value_dim))),
        rows(areas.take<const char*>(3 * facts.key_block)),
        query_stride(padded_floats(needs.head_dim + needs.tile.wide_channels)),
        copied_rows(areas.take<const char*>(facts.key_block)),
        key_scales(areas.take(facts.key_block)),
        value_scales(areas.take(facts.key_block)) {}
};

// One head that is visited: its block, its memory, and the factors by which a tile lowers its
// rows' outputs, or that it does nothing.
struct DecodeHead {
  const AttendBlock* block;
  DecodeWorkspace work;
  float alpha[kDecodeRows];
  bool left_out = false;  // the tile is, with its values
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
                       const TilePart& part, float* scores, std::int64_t score_stride) {
  constexpr int kKeys = keys_abreast(Rows);
  std::int64_t j = part.begin;
  for (; j + kKeys <= part.end; j += kKeys) {
    for (int i = 0; i < kKeys; ++i) fetch_bytes(part.fetched_at(j + i), part.fetched_bytes);
    score_keys<Rows, kKeys>(query, query_stride, in.key.from(j), in.key_width, scores + j,
                            score_stride);
  }
  for (; j < part.end; ++j) {
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

// Vectors of a value that are added at a time for kRowsAtOnce rows: sums, vectors and a weight fit
// the registers, but for elements of 16 bits, of which two vectors of 8 would be half a line. Zen
// 3, AVX2, 8 heads of 4 rows, from memory, 2 and 4 vectors: float32 11.4 and 10.9, bfloat16 8.5 and
// 9.2 GB/s.
template <class Element>
constexpr int value_vectors() {
  const bool halves_a_line = sizeof(Element) == 2 && Vec::kWidth == 8;
  return halves_a_line || kTileRows * kTileVectors >= 5 * kRowsAtOnce ? 4 : 2;
}

// The last vector of a partial row holds `last_lanes` elements.
template <int Vectors, bool Partial, class Element>
__attribute__((always_inline)) inline void load_row(const Element* row, int last_lanes,
                                                    Vec (&vectors)[Vectors]) {
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    vectors[v] = Partial && v == Vectors - 1 ? load_partial(row + v * Vec::kWidth, last_lanes)
                                             : load(row + v * Vec::kWidth);
  }
}

// sum[r][d] = Σ_j weights[r][j] · value[j][d] over the tokens of a tile, part by part: one chain in
// their order, however they are parted. With the last, output[r][d] = alpha[r] · output[r][d] +
// sum[r][d].
template <int Rows, int Vectors, bool Partial, class Element>
inline void add_columns(const DecodeTile<Element>& in, const TilePart& part, const float* weights,
                        std::int64_t weight_stride, const float* alpha, float* sum, float* output,
                        std::int64_t output_stride, std::int64_t d, int last_lanes) {
  constexpr int kBytes = Vectors * Vec::kWidth * static_cast<int>(sizeof(Element));
  constexpr int kLines = Partial ? 0 : kBytes < kLineBytes ? 1 : kBytes / kLineBytes;
  const std::int64_t at_byte = d * static_cast<std::int64_t>(sizeof(Element));
  const bool fetches = at_byte % kLineBytes == 0;  // not what the columns before have fetched
  Vec sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      sums[r][v] = part.begin == 0 ? zero() : load(sum + r * output_stride + d + v * Vec::kWidth);
    }
  }
  for (std::int64_t j = part.begin; j < part.end; ++j) {
    Vec right[Vectors];
    load_row<Vectors, Partial>(in.value[j] + d, last_lanes, right);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec left = broadcast(weights[r * weight_stride + j]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[r][v] = fma(left, right[v], sums[r][v]);
    }
    if (fetches) fetch_lines<kLines>(part.fetched_at(j) + at_byte);
  }
  const bool is_last = part.end == in.keys.count();
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      const std::int64_t at = r * output_stride + d + v * Vec::kWidth;
      if (is_last) {
        store(output + at, fma(load(output + at), broadcast(alpha[r]), sums[r][v]));
      } else {
        store(sum + at, sums[r][v]);
      }
    }
  }
}

template <int Rows, class Element>
inline void add_value_rows(const DecodeTile<Element>& in, const TilePart& part,
                           const float* weights, std::int64_t weight_stride, const float* alpha,
                           float* sum, float* output, std::int64_t value_dim) {
  constexpr int kVectors = value_vectors<Element>();
  constexpr int kColumns = kVectors * Vec::kWidth;
  const std::int64_t stride = padded_floats(value_dim);
  std::int64_t d = 0;
  for (; d + kColumns <= value_dim; d += kColumns) {
    add_columns<Rows, kVectors, false>(in, part, weights, weight_stride, alpha, sum, output, stride,
                                       d, Vec::kWidth);
  }
  for (; d < value_dim; d += Vec::kWidth) {
    add_columns<Rows, 1, true>(in, part, weights, weight_stride, alpha, sum, output, stride, d,
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
    for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.value_dim);
      Vec sum = zero();
      for (std::int64_t j = 0; j < in.keys.count(); ++j) {
        if (!is_seen_by(row, in.keys.begin + j)) continue;
        const Element* from = in.value[j] + d;
        const Vec value = count == Vec::kWidth ? load(from) : load_partial(from, count);
        sum = fma(broadcast(weights[r * weight_stride + j]), value, sum);
      }
      float* at = output + r * output_stride + d;
      store(at, fma(load(at), broadcast(alpha[r]), sum));
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

}  // namespace
}  // namespace numattn
