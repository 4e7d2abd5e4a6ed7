// The product of pairs.h by an instruction that multiplies two rows by two columns over four
// elements of the depth: ARM's BFMMLA. The tile of tile.h, its rows by twos.
//
// Each sum is one chain in order of the depth, two elements to a step, in whatever tile: what the
// instruction adds for one row and column does not depend on the others.
//
// Never timed on a processor.
#pragma once

#include "pairs.h"

namespace numattn {
namespace {

// What operands are padded to with zeros: elements of the depth, keys of a tile, rows of a.
constexpr int kDepthStep = 4;
constexpr int kKeyStep = 4;
constexpr int kRowStep = 1;

// Keys per tile and query rows per block, as pair_tile.h has them.
constexpr int kPairKeyBlock = 96;
constexpr int kPairBlockRows = 192;

// No state to prepare.
struct PairUnit {
  PairUnit() {}
};

// The last of an odd number of rows is its own neighbour.
template <int Rows, int Vectors, bool Add, int Columns, int Parts>
__attribute__((always_inline)) inline void multiply_square_tile(const PairProduct<Parts>& product,
                                                                std::int64_t row, float* sums) {
  constexpr int kTwos = (Rows + 1) / 2;
  const auto partner = [](int two) { return 2 * two + 1 < Rows ? 2 * two + 1 : 2 * two; };
  Vec sum[kTwos][Vectors][2];  // of a vector's first two columns, and of its last two
#pragma GCC unroll 8
  for (int t = 0; t < kTwos; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sum[t][v][0] = sum[t][v][1] = zero();
  }
  for (const PairTerm& term : product.terms) {
    const std::uint16_t* a = term.a + row * term.a_row;
    const std::uint16_t* b = term.b;
    for (std::int64_t k = 0; k < product.depth; k += kDepthStep) {
      Pairs left[kTwos];
#pragma GCC unroll 8
      for (int t = 0; t < kTwos; ++t) {
        left[t] = join_rows(a + 2 * t * term.a_row, a + partner(t) * term.a_row);
      }
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        const Pairs now = load_pairs(b + v * 2 * Vec::kWidth);
        const Pairs next = load_pairs(b + 2 * Columns + v * 2 * Vec::kWidth);
        const Pairs right[2] = {first_columns(now, next), last_columns(now, next)};
#pragma GCC unroll 8
        for (int t = 0; t < kTwos; ++t) {
          sum[t][v][0] = multiply_four(sum[t][v][0], left[t], right[0]);
          sum[t][v][1] = multiply_four(sum[t][v][1], left[t], right[1]);
        }
      }
      a += kDepthStep;
      b += 2 * (2 * Columns);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      const Vec(&both)[2] = sum[m / 2][v];
      const Vec here = m % 2 == 0 ? first_row(both[0], both[1]) : second_row(both[0], both[1]);
      float* at = sums + m * Columns + v * Vec::kWidth;
      store(at, Add ? load(at) + here : here);
    }
  }
}

// sums[m][n] = product, or += where `Add`; of b and of the sums a row has `Columns` columns. Sums
// start from zero and are then added to what is there: rounding grows with the number of tiles.
template <bool Add, int Vectors, int Columns = kLaneGroup, int Parts, class RowsAheadOf>
inline void multiply_pairs(std::int64_t row_count, const PairProduct<Parts>& product, float* sums,
                           RowsAheadOf& rows_ahead) {
  for (std::int64_t row = 0; row < row_count; row += kTileRows) {
    const std::int64_t left = row_count - row;
    rows_ahead.fetch_rows(left < kTileRows ? left : kTileRows);
    with_count<kTileRows>(left < kTileRows ? static_cast<int>(left) : kTileRows, [&](auto height) {
      multiply_square_tile<decltype(height)::value, Vectors, Add, Columns>(product, row,
                                                                           sums + row * Columns);
    });
  }
}

}  // namespace
}  // namespace numattn
