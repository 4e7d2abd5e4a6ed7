// The products of queries and the keys of a tile: score[row][key] = Σ_d query[row][d] ·
// key[key][d].
#pragma once

#include <type_traits>

#include "decode_tile.h"
#include "score_factor.h"

namespace numattn {
namespace {

// Keys whose products with `Rows` rows are accumulated side by side: enough independent chains to
// hide the latency of a fused multiply-add (4 cycles, up to 2 a cycle), few enough to stay in
// registers.
//
// Not kept, with AVX-512: keys one after the other, in the order of memory, which from memory was
// as fast, in the cache 3 % faster, and half as much code again; to sum the lanes of 16 scores at
// once, 6 % slower on Zen 4, on Zen 5 5 to 17 % faster in the cache and not from memory.
constexpr int keys_abreast(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 2 : 1; }

// How keys of an element meet queries: both as float32, the factor of the scores in the queries.
template <class Element>
struct FloatKeys {
  using Query = float;  // as queries are kept
  using Lanes = Vec;
  static constexpr int kStep = Vec::kWidth;  // elements

  template <class Any>
  static Lanes read(const Any* from) {
    return load(from);
  }
  template <class Any>
  static Lanes read(const Any* from, int count) {
    return load_partial(from, count);
  }
  static Vec multiply(Vec sum, Lanes key, Lanes query) { return fma(key, query, sum); }
};

// Queries as they are kept, and by what their products are still to be multiplied.
template <class Query>
struct KeptQueries {
  const Query* rows;
  std::int64_t stride;  // elements
  float factor;         // of no account for float32
};

template <class Keys, int Rows, int Count, class Element>
inline void score_keys(const KeptQueries<typename Keys::Query>& queries, ListedRows<Element> keys,
                       std::int64_t key_width, float* scores, std::int64_t score_stride) {
  using Lanes = typename Keys::Lanes;
  const Element* key[Count];
#pragma GCC unroll 8
  for (int j = 0; j < Count; ++j) key[j] = keys[j];
  Vec sums[Count][Rows];
#pragma GCC unroll 8
  for (int j = 0; j < Count; ++j) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[j][r] = zero();
  }
  const auto add = [&](std::int64_t d, const auto& read) {
    Lanes left[Count];
#pragma GCC unroll 8
    for (int j = 0; j < Count; ++j) left[j] = read(key[j] + d);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Lanes right = read(queries.rows + r * queries.stride + d);
#pragma GCC unroll 8
      for (int j = 0; j < Count; ++j) sums[j][r] = Keys::multiply(sums[j][r], left[j], right);
    }
  };
  std::int64_t d = 0;
  for (; d + Keys::kStep <= key_width; d += Keys::kStep) {
    add(d, [](const auto* from) { return Keys::read(from); });
  }
  if (d < key_width) {
    const int count = static_cast<int>(key_width - d);
    add(d, [count](const auto* from) { return Keys::read(from, count); });
  }
  static_assert(Count * Rows <= 8, "more sums than are reduced at once");
  Vec all[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) all[i] = i < Count * Rows ? sums[i / Rows % Count][i % Rows] : zero();
  float totals[8];
  reduce_add(all, totals);
  if constexpr (!std::is_same_v<typename Keys::Query, float>) {
    for (float& total : totals) total *= queries.factor;
  }
#pragma GCC unroll 8
  for (int i = 0; i < Count * Rows; ++i) {
    scores[i % Rows * score_stride + i / Rows] = totals[i];
  }
}

template <class Keys, int Rows, class Element>
inline void score_rows(const KeptQueries<typename Keys::Query>& queries,
                       const DecodeTile<Element>& in, const TilePart& part, float* scores,
                       std::int64_t score_stride) {
  constexpr int kKeys = keys_abreast(Rows);
  std::int64_t j = part.begin;
  for (; j + kKeys <= part.end; j += kKeys) {
    for (int i = 0; i < kKeys; ++i) fetch_bytes(part.fetched_at(j + i), part.fetched_bytes);
    score_keys<Keys, Rows, kKeys>(queries, in.key.from(j), in.key_width, scores + j, score_stride);
  }
  for (; j < part.end; ++j) {
    score_keys<Keys, Rows, 1>(queries, in.key.from(j), in.key_width, scores + j, score_stride);
  }
}

}  // namespace
}  // namespace numattn
