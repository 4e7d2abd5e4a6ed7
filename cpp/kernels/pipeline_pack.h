// Operands of the pipeline as tiles of 1 KiB, in which every row is one cache line:
//
//   queries   A, tile (half, s): row r = elements 32s … 32s + 31 of row 16 · half + r
//   keys      B, tile (t, s): row p, column n = elements (32s + 2p, 32s + 2p + 1) of key 16t + n
//   values    B, tile (k, c): row p, column n = element 16c + n of keys (32k + p, 32k + 16 + p)
//
// Zeros beyond the last row, key and element. In two parts (precision "high") the tiles of the low
// parts follow those of the high ones.
#pragma once

#include <type_traits>

#include "pipeline.h"
#include "tokens.h"

namespace numattn {
namespace {

constexpr int kDepthTile = kAmxDepth;  // elements of a row of a tile
constexpr int kStripTokens = kAmxDepth;

// Steps of 32 that so many elements take.
inline std::int64_t depth_steps(std::int64_t width) {
  return (width + kDepthTile - 1) / kDepthTile;
}

// What operands in so many parts are made of.
template <int Parts>
using Whole = std::conditional_t<Parts == 1, BFloat16, float>;

__attribute__((noinline)) Vec read_scattered(const char* from, DType dtype, std::int64_t stride,
                                             int count) {
  return read_elements(from, dtype, stride, count);
}

// A row's elements in parts, each changed before: 32 columns at to + step · step_stride, zeros up
// to whole steps.
template <int Parts, class Change>
inline void split_row(const char* from, std::int64_t column_stride, std::int64_t width,
                      const Change& change, std::int64_t step_stride, std::int64_t part_stride,
                      std::uint16_t* to) {
  using Element = Whole<Parts>;
  const bool contiguous = column_stride == sizeof(Element);
  const auto vector_at = [&](std::int64_t column) {
    if (column >= width) return zero();
    const char* at = from + column * column_stride;
    const int count = lanes_left(column, width);
    return change(contiguous && count == Vec::kWidth
                      ? load(reinterpret_cast<const Element*>(at))
                      : read_scattered(at, element_dtype(Element{}), column_stride, count));
  };
  for (std::int64_t column = 0; column < width; column += kDepthTile) {
    Vec first = vector_at(column);
    Vec last = vector_at(column + Vec::kWidth);
    for (int p = 0; p < Parts; ++p) {
      const bool final = p + 1 == Parts;
      const Pairs rounded = final ? round_in_order(first, last)
                                  : round_in_order(finite_or_zero(first), finite_or_zero(last));
      store_pairs(to + p * part_stride + column / kDepthTile * step_stride, rounded);
      if (final) break;
      first = first - first_half(rounded);
      last = last - last_half(rounded);
    }
  }
}

// Queries of up to 32 rows, · factor.
template <int Parts>
inline void pack_query_tiles(const AttendBlock& block, const QueryRow* rows, int row_count,
                             Vec factor, std::uint16_t* packed) {
  const std::int64_t steps = depth_steps(block.head_dim);
  const auto row_at = [&](int r) {
    return packed + (r / kAmxRows * steps * kAmxRows + r % kAmxRows) * kDepthTile;
  };
  const std::int64_t part_stride = 2 * steps * kTileElements;
  for (int r = 0; r < row_count; ++r) {
    split_row<Parts>(
        rows[r].query, block.query_column_stride, block.head_dim,
        [=](Vec elements) { return elements * factor; }, kTileElements, part_stride, row_at(r));
  }
  for (int r = row_count; r < kBodyRows; ++r) {
    for (std::int64_t s = 0; s < Parts * steps; ++s) {
      const std::int64_t part = s / steps;
      store_pairs(row_at(r) + part * part_stride + s % steps * kTileElements, no_pairs());
    }
  }
}

// Rows of up to 32 tokens as bfloat16: where they lie, or copied to a strip.
template <int Parts>
class TokenStrip {
 public:
  TokenStrip(const TokenRows& tokens, std::int64_t width, std::uint16_t* strip)
      : tokens_(tokens),
        width_(width),
        in_place_(Parts == 1 && lies_in_rows<BFloat16>(tokens)),
        row_stride_(depth_steps(width) * kDepthTile),
        strip_(strip) {}

  static std::int64_t elements(std::int64_t width) {
    return Parts * kStripTokens * depth_steps(width) * kDepthTile;
  }

  // Tokens first … first + 31; those whose bit of `present` is 0 are zero, and are not read.
  // `change` has a look at vectors of what is copied.
  template <class Change>
  void take(std::int64_t first, std::uint64_t present, const Change& change) {
    const Matrix& matrix = tokens_.matrix;
    for (int i = 0; i < kStripTokens; ++i) {
      rows_[i] = nullptr;
      const std::int64_t token = first + i;
      if ((present >> i & 1u) == 0) continue;
      const char* from = token_row(tokens_, token);
      rows_[i] =
          in_place_ ? reinterpret_cast<const std::uint16_t*>(from) : strip_ + i * row_stride_;
      if (in_place_) continue;
      split_row<Parts>(from, matrix.column_stride, width_, change, kDepthTile, part_stride(),
                       strip_ + i * row_stride_);
    }
  }

  bool in_place() const { return in_place_; }

  // 32 elements of a token taken, from `column` on.
  Pairs elements_of(int i, int part, std::int64_t column) const {
    if (rows_[i] == nullptr) return no_pairs();
    const std::uint16_t* from = rows_[i] + part * part_stride() + column;
    const std::int64_t left = width_ - column;
    return left >= kDepthTile ? load_pairs(from) : load_pairs(from, static_cast<int>(left));
  }

 private:
  std::int64_t part_stride() const { return kStripTokens * row_stride_; }

  const TokenRows& tokens_;
  const std::int64_t width_;
  const bool in_place_;
  const std::int64_t row_stride_;
  std::uint16_t* const strip_;
  const std::uint16_t* rows_[kStripTokens];
};

// The tiles of 32 keys.
template <int Parts>
inline void pack_keys(const TokenStrip<Parts>& strip, std::int64_t head_dim,
                      std::int64_t part_stride, std::uint16_t* packed) {
  const std::int64_t steps = depth_steps(head_dim);
  for (int p = 0; p < Parts; ++p) {
    for (int t = 0; t < kStripTokens / kAmxRows; ++t) {
      for (std::int64_t s = 0; s < steps; ++s) {
        Vec square[kAmxRows];
        for (int i = 0; i < kAmxRows; ++i) {
          square[i] = as_lanes(strip.elements_of(t * kAmxRows + i, p, s * kDepthTile));
        }
        transpose(square);
        std::uint16_t* to = packed + p * part_stride + (t * steps + s) * kTileElements;
        for (int i = 0; i < kAmxRows; ++i) store_pairs(to + i * kDepthTile, as_pairs(square[i]));
      }
    }
  }
}

// The tiles of 32 keys' values. False if there are some that add_special_values() is for.
template <int Parts>
inline bool pack_values(const TokenStrip<Parts>& strip, std::int64_t value_dim,
                        std::int64_t part_stride, std::uint16_t* packed) {
  const std::int64_t steps = depth_steps(value_dim);
  bool ordinary = true;
  for (int p = 0; p < Parts; ++p) {
    for (int i = 0; i < kAmxRows; ++i) {
      for (std::int64_t s = 0; s < steps; ++s) {
        Pairs upper = strip.elements_of(i, p, s * kDepthTile);
        Pairs lower = strip.elements_of(kAmxRows + i, p, s * kDepthTile);
        if (strip.in_place()) {
          upper = ordinary_or_zero(upper, ordinary);
          lower = ordinary_or_zero(lower, ordinary);
        }
        std::uint16_t* to = packed + p * part_stride + 2 * s * kTileElements + i * kDepthTile;
        store_pairs(to, join_first_halves(upper, lower));
        store_pairs(to + kTileElements, join_last_halves(upper, lower));
      }
    }
  }
  return ordinary;
}

// Keys and values of 64 tokens, and whether all values are in the tiles.
template <int Parts>
__attribute__((noinline)) bool pack_tokens(const AttendBlock& block, std::int64_t first,
                                           std::uint64_t present, std::uint16_t* strip,
                                           std::int64_t key_part, std::uint16_t* keys,
                                           std::int64_t value_part, std::uint16_t* values) {
  bool ordinary = true;
  for (int half = 0; half < kBodyKeys; half += kStripTokens) {
    TokenStrip<Parts> key(block.key, block.head_dim, strip);
    key.take(first + half, present >> half, [](Vec elements) { return elements; });
    pack_keys<Parts>(key, block.head_dim, key_part,
                     keys + half * depth_steps(block.head_dim) * kDepthTile);
    TokenStrip<Parts> value(block.value, block.value_dim, strip);
    value.take(first + half, present >> half, [&](Vec elements) {
      ordinary &= all_ordinary(elements);
      return ordinary_or_zero(elements);
    });
    ordinary &= pack_values<Parts>(value, block.value_dim, value_part,
                                   values + half * depth_steps(block.value_dim) * kDepthTile);
  }
  return ordinary;
}

}  // namespace
}  // namespace numattn
