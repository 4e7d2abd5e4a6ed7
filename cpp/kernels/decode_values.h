// The values of a tile, weighed: output[row][d] = Σ_key weight[row][key] · value[key][d].
#pragma once

#include <type_traits>

#include "decode_tile.h"

namespace numattn {
namespace {

// Vectors of a value that are added at a time for kRowsAtOnce rows: as a rule, sums, vectors and a
// weight fit the registers. But memory should be read in its order: 8 vectors of AVX-512 are all of
// a value of 128, though a few of their 32 sums do not fit; and two vectors of 8 elements of 16
// bits would be half a line. From memory, 8 heads of 4 rows in one piece and in pages of 16 tokens,
// GB/s:
//
//                           vectors   float32       bfloat16
//   Zen 4, AVX-512          4         16.1, 14.6    18.7, 13.5
//                           8         18.4, 17.0    20.0, 16.1
//   Zen 3, AVX2, one piece  2, 4      11.4, 10.9     8.5,  9.2
//
// Not kept: 4 vectors in turns of 4 to 16 tokens, which read as far apart as 8 do. Turns of 4 are
// as fast in float32 from memory and 10 % slower in the cache, bfloat16 is 10 to 15 % slower in
// all.
template <int Rows, class Element>
constexpr int value_vectors() {
  // 4 integers of 8 bits are a line, as fast as 8; of float32 beside one or two rows faster.
  if (Vec::kWidth == 16) return sizeof(Element) == 1 || (sizeof(Element) == 4 && Rows <= 2) ? 4 : 8;
  const bool halves_a_line = sizeof(Element) == 2 && Vec::kWidth == 8;
  return halves_a_line || kTileRows * kTileVectors >= 5 * kRowsAtOnce ? 4 : 2;
}

// sums[r][d] += Σ_j weights[r][j] · value[j][d] over some tokens of a tile: one chain in their
// order, however they are parted. Vectors of the rows' sums stand side by side, those of column d
// from sums + d · Rows on, so that the code has their places as constants.
template <int Rows, int Vectors, bool Partial, class Element>
inline void add_columns(const DecodeTile<Element>& in, const TilePart& part, const float* weights,
                        std::int64_t weight_stride, float* sums, std::int64_t d, int last_lanes) {
  constexpr int kBytes = Vectors * Vec::kWidth * static_cast<int>(sizeof(Element));
  constexpr int kLines = Partial ? 0 : kBytes < kLineBytes ? 1 : kBytes / kLineBytes;
  const std::int64_t at_byte = d * static_cast<std::int64_t>(sizeof(Element));
  const bool fetches = at_byte % kLineBytes == 0;  // not what the columns before have fetched
  float* from = sums + d * Rows;
  Vec sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sum[r][v] = load(from + (v * Rows + r) * Vec::kWidth);
  }
  for (std::int64_t j = part.begin; j < part.end; ++j) {
    const Element* row = in.value[j] + d;
    Vec left[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) left[r] = broadcast(weights[r * weight_stride + j]);
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      // The last vector of a partial row holds `last_lanes` elements.
      const Vec right = Partial && v == Vectors - 1
                            ? load_partial(row + v * Vec::kWidth, last_lanes)
                            : load(row + v * Vec::kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) sum[r][v] = fma(left[r], right, sum[r][v]);
    }
    if (fetches) fetch_lines<kLines>(part.fetched_at(j) + at_byte);
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) store(from + (v * Rows + r) * Vec::kWidth, sum[r][v]);
  }
}

template <int Rows, class Element>
inline void add_value_rows(const DecodeTile<Element>& in, const TilePart& part,
                           const float* weights, std::int64_t weight_stride, float* sums,
                           std::int64_t value_dim) {
  constexpr int kVectors = value_vectors<Rows, Element>();
  constexpr int kHalf = kVectors / 2 < 4 ? kVectors : kVectors / 2;
  std::int64_t d = 0;
  for (; d + kVectors * Vec::kWidth <= value_dim; d += kVectors * Vec::kWidth) {
    add_columns<Rows, kVectors, false>(in, part, weights, weight_stride, sums, d, Vec::kWidth);
  }
  for (; d + kHalf * Vec::kWidth <= value_dim; d += kHalf * Vec::kWidth) {
    add_columns<Rows, kHalf, false>(in, part, weights, weight_stride, sums, d, Vec::kWidth);
  }
  for (; d < value_dim; d += Vec::kWidth) {
    add_columns<Rows, 1, true>(in, part, weights, weight_stride, sums, d, lanes_left(d, value_dim));
  }
}

// output[r][d] = alpha[r] · output[r][d] + sums[r][d], and the sums are 0 for the next tile.
__attribute__((noinline)) void add_to_output(int rows, std::int64_t value_dim, const float* alpha,
                                             float* sums, float* output,
                                             std::int64_t output_stride) {
  for (std::int64_t d = 0; d < value_dim; d += Vec::kWidth) {
    for (int r = 0; r < rows; ++r, sums += Vec::kWidth) {
      float* at = output + r * output_stride + d;
      store(at, fma(load(at), broadcast(alpha[r]), load(sums)));
      store(sums, zero());
    }
  }
}

// A whole tile's values added to the output, where one is infinite or NaN and not every row sees
// every key: see attend.h.
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
