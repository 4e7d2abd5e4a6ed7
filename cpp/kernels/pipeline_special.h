// Values that are not in the tiles (pipeline_pack.h): the unit would spread what is infinite or NaN
// to rows that do not see it, and lose products with what is small. Here they are multiplied as
// float32, in vector registers, and added up apart. Nothing that a row does not see changes a bit
// of its output.
#pragma once

#include "pipeline_walk.h"

namespace numattn {
namespace {

// A row's weights of a body, in order of the keys: pairs are (p, 16 + p) of each 32.
template <int Parts>
inline void unpack_weights(const BodyRows& rows, int r, float* weights) {
  const std::uint16_t* from = rows.weights + r * kWeightsRow;
  for (int j = 0; j < kBodyKeys; j += kDepthTile) {
    const Pairs high = load_pairs(from + j);
    Vec first = even_of(high);
    Vec last = odd_of(high);
    if constexpr (Parts == 2) {
      const Pairs low = load_pairs(from + j + kUnitWeights);
      first = first + even_of(low);
      last = last + odd_of(low);
    }
    store(weights + j, first);
    store(weights + j + Vec::kWidth, last);
  }
}

// One vector of columns of a body's values, 0 where they are in the tiles.
struct SpecialColumns {
  Vec values[kBodyKeys];
  std::uint64_t keys = 0;  // that have any

  // Of the body's tokens whose bit of `present` is set; others are not read.
  SpecialColumns(const AttendBlock& block, const Body& body, std::uint64_t present,
                 std::int64_t column) {
    const Matrix& matrix = block.value.matrix;
    for (int j = 0; j < kBodyKeys; ++j) {
      const std::int64_t token = body.key + j;
      if ((present >> j & 1u) == 0) continue;
      const Vec elements =
          read_scattered(token_row(block.value, token) + column * matrix.column_stride,
                         matrix.dtype, matrix.column_stride, lanes_left(column, block.value_dim));
      if (all_ordinary(elements)) continue;
      values[j] = select(equal(ordinary_or_zero(elements), elements), zero(), elements);
      keys |= std::uint64_t{1} << j;
    }
  }
};

// A body's sums are added to the state's as one.
template <int Parts>
__attribute__((noinline)) void add_special_values(const AttendBlock& block, const Body& body,
                                                  const BodyRows& rows, int row_count,
                                                  std::uint64_t present,
                                                  std::int64_t output_columns) {
  RowsState& state = *body.state;
  state.begin_apart(output_columns);
  float weights[kBodyRows][kBodyKeys];
  for (int r = 0; r < row_count; ++r) unpack_weights<Parts>(rows, r, weights[r]);
  for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
    const SpecialColumns special(block, body, present, d);
    if (special.keys == 0) continue;
    for (int r = 0; r < row_count; ++r) {
      std::uint64_t keys = rows.visible == nullptr ? special.keys : special.keys & rows.visible[r];
      Vec sum = zero();
      for (; keys != 0; keys &= keys - 1) {
        const int j = __builtin_ctzll(keys);
        sum = fma(special.values[j], broadcast(weights[r][j]), sum);
      }
      const std::int64_t at = RowsState::place(output_columns, r, d);
      add_term_to(sum, state.apart + at, state.apart_rest + at);
    }
  }
}

}  // namespace
}  // namespace numattn
