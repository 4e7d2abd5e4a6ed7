// The product of pairs.h in vector registers: the tile of tile.h, two steps of the depth at a time.
#pragma once

#include "pairs.h"

namespace numattn {
namespace {

// What operands are padded to with zeros: elements of the depth, keys of a tile,
// rows of a.
constexpr int kDepthStep = 2;
constexpr int kKeyStep = 2;
constexpr int kRowStep = 1;

// Keys per tile: 18 KiB of scores and their weights stay in the first-level cache.
constexpr int kPairKeyBlock = 96;

// Query rows per block: a tile's values are transposed once for so many. Measured on Zen 4, S2048:
// 96 and 384 rows are as fast.
constexpr int kPairBlockRows = 192;

// No state to prepare; the tile unit of amx.h has one.
struct PairUnit {
  PairUnit() {}
};

template <int Rows, int Vectors, bool Add, int Parts, class RowsAheadOf, class Fetch>
__attribute__((always_inline)) inline void multiply_pair_tile(const PairProduct<Parts>& product,
                                                              std::int64_t row, float* sums,
                                                              RowsAheadOf& rows_ahead,
                                                              Fetch ahead) {
  constexpr int kPieces = kDepthPieces<Rows, RowsAheadOf>;
  if (kPieces == 1) rows_ahead.fetch_rows(Rows);
  Vec sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sum[m][v] = zero();
  }
  for (const PairTerm& term : product.terms) {
    const std::uint16_t* a = term.a + row * term.a_row;
    const std::uint16_t* b = term.b;
    std::int64_t k = 0;
    std::int64_t end = product.depth;
    for (int done = 1; done <= kPieces; ++done) {
      if constexpr (kPieces > 1) {
        if (&term == product.terms) rows_ahead.template fetch_line<Rows>();
        end = done < kPieces ? product.depth / (2 * kPieces) * 2 * done : product.depth;
      }
      for (; k < end; k += 2) {
        Pairs right[Vectors];
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) right[v] = load_pairs(b + v * 2 * Vec::kWidth);
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
          const Pairs left = broadcast_pair(a + m * term.a_row);
#pragma GCC unroll 8
          for (int v = 0; v < Vectors; ++v) sum[m][v] = dot(sum[m][v], left, right[v]);
        }
        a += 2;
        b += kPairLanes;
        ahead.fetch(k / 2);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      float* at = sums + m * kLaneGroup + v * Vec::kWidth;
      store(at, Add ? load(at) + sum[m][v] : sum[m][v]);
    }
  }
}

// sums[m][n] = product, or += where `Add`; rows of kLaneGroup floats. Sums start from zero and are
// then added to what is there: rounding grows with the number of tiles.
//
// Of a projection, which has rows ahead, each tile fetches its share of the panel that follows in
// memory, and a single one what it will read itself. Zen 4, 384 → 1536, panels that the second
// cache level does not hold, without and with it: 16 rows 169 and 199, 64 rows 200 and 209 GFLOP/s.
template <bool Add, int Vectors, int Columns = kLaneGroup, int Parts, class RowsAheadOf>
inline void multiply_pairs(std::int64_t row_count, const PairProduct<Parts>& product, float* sums,
                           RowsAheadOf& rows_ahead) {
  static_assert(Columns == kLaneGroup, "a panel is a lane group");
  constexpr bool kPanel = std::is_same_v<RowsAheadOf, RowsAhead>;
  const std::int64_t steps = product.depth / kDepthStep;
  const std::int64_t tiles = (row_count + kTileRows - 1) / kTileRows;
  using Fetch = std::conditional_t<kPanel, Ahead<3>, NothingAhead>;
  Fetch ahead{reinterpret_cast<const char*>(product.terms[0].b), 0};  // what it has already
  if (kPanel && row_count >= kLeastRowsToFetch) {
    constexpr std::int64_t kStep = kPairLanes * 2;
    ahead = share_of_panel<Fetch>(product.terms[0].b, steps * kStep, kStep, tiles);
  }
  for (std::int64_t row = 0; row < row_count; row += kTileRows) {
    const std::int64_t left = row_count - row;
    with_count<kTileRows>(left < kTileRows ? static_cast<int>(left) : kTileRows, [&](auto height) {
      multiply_pair_tile<decltype(height)::value, Vectors, Add>(
          product, row, sums + row * kLaneGroup, rows_ahead, ahead);
    });
    ahead.data += steps * ahead.stride;
  }
}

}  // namespace
}  // namespace numattn
