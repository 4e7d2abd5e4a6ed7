// The product of pairs.h in the tile unit: up to four tiles of 16 × 16 sums side by side, which is
// what it takes to hide the latency of one product (52 cycles, one begun every 16).
#pragma once

#include "amx.h"
#include "pairs.h"

namespace numattn {
namespace {

// What operands are padded to with zeros: elements of the depth, rows of a.
constexpr int kDepthStep = kAmxDepth;
constexpr int kRowStep = kAmxRows;

// The tiles belong to the thread; a kernel has them for the length of a visit.
class PairUnit {
 public:
  PairUnit() { configure_tiles(); }
  ~PairUnit() { release_tiles(); }
  PairUnit(const PairUnit&) = delete;
  PairUnit& operator=(const PairUnit&) = delete;
};

// call(Count<0>{}), … call(Count<N − 1>{})
template <int N, class Call>
inline void repeat(const Call& call) {
  if constexpr (N > 0) {
    repeat<N - 1>(call);
    call(Count<N - 1>{});
  }
}

// Tiles: 0 to 3 sums, 4 and 5 rows of a in turn, 6 and 7 columns of b.
constexpr int kFirstA = 4;
constexpr int kFirstB = 6;

// Rows · 16 rows from `row` on and Columns · 16 lanes from `lane` on.
template <int Rows, int Columns, bool Add, int Parts>
inline void multiply_amx_tiles(const PairProduct<Parts>& product, std::int64_t row, int lane,
                               float* sums) {
  static_assert(Rows * Columns <= kFirstA && Columns <= 2, "more sums than tiles");
  constexpr std::int64_t kSumStride = kLaneGroup * 4;
  const auto sum_at = [&](int r, int c) {
    return sums + (row + r * kAmxRows) * kLaneGroup + lane + c * kAmxRowFloats;
  };
  repeat<Rows * Columns>([&](auto at) {
    constexpr int kTile = decltype(at)::value;
    if constexpr (Add) {
      tile_load<kTile>(sum_at(kTile / Columns, kTile % Columns), kSumStride);
    } else {
      tile_zero<kTile>();
    }
  });
  for (const PairTerm& term : product.terms) {
    const std::uint16_t* a = term.a + row * term.a_row;
    const std::uint16_t* b = term.b + 2 * lane;
    for (std::int64_t k = 0; k < product.depth; k += kAmxDepth) {
      repeat<Columns>([&](auto c) {
        constexpr int kColumn = decltype(c)::value;
        tile_load<kFirstB + kColumn>(b + kColumn * kAmxDepth, kPairLanes * 2);
      });
      repeat<Rows>([&](auto r) {
        constexpr int kRow = decltype(r)::value;
        constexpr int kA = kFirstA + kRow % 2;
        tile_load<kA>(a + kRow * kAmxRows * term.a_row, term.a_row * 2);
        repeat<Columns>([&](auto c) {
          constexpr int kColumn = decltype(c)::value;
          tile_dot_bf16<kRow * Columns + kColumn, kA, kFirstB + kColumn>();
        });
      });
      a += kAmxDepth;
      b += kAmxRowPairs * kPairLanes;
    }
  }
  repeat<Rows * Columns>([&](auto at) {
    constexpr int kTile = decltype(at)::value;
    tile_store<kTile>(sum_at(kTile / Columns, kTile % Columns), kSumStride);
  });
}

// Four or fewer tiles of rows: two by two with pairs of lanes' tiles, all at once with a single
// one.
template <int RowTiles, bool Add, int Vectors, int Parts>
inline void multiply_amx_rows(const PairProduct<Parts>& product, std::int64_t row, float* sums) {
  if constexpr (Vectors >= 2) {
    if constexpr (RowTiles >= 2) multiply_amx_tiles<2, 2, Add>(product, row, 0, sums);
    if constexpr (RowTiles == 4) {
      multiply_amx_tiles<2, 2, Add>(product, row + 2 * kAmxRows, 0, sums);
    }
    if constexpr (RowTiles % 2 == 1) {
      multiply_amx_tiles<1, 2, Add>(product, row + (RowTiles - 1) * kAmxRows, 0, sums);
    }
  }
  if constexpr (Vectors % 2 == 1) {
    multiply_amx_tiles<RowTiles, 1, Add>(product, row, (Vectors - 1) * kAmxRowFloats, sums);
  }
}

// sums[m][n] = product, or += where `Add`; rows of kLaneGroup floats. Rows up to whole steps of
// kRowStep are read and written.
template <bool Add, int Vectors, int Columns = kLaneGroup, int Parts, class RowsAheadOf>
inline void multiply_pairs(std::int64_t row_count, const PairProduct<Parts>& product, float* sums,
                           RowsAheadOf& rows_ahead) {
  static_assert(Columns == kLaneGroup, "a panel is a lane group");
  rows_ahead.fetch_rows(row_count);
  for (std::int64_t row = 0; row < row_count; row += 4 * kAmxRows) {
    switch ((row_count - row + kAmxRows - 1) / kAmxRows) {
      case 1: multiply_amx_rows<1, Add, Vectors>(product, row, sums); break;
      case 2: multiply_amx_rows<2, Add, Vectors>(product, row, sums); break;
      case 3: multiply_amx_rows<3, Add, Vectors>(product, row, sums); break;
      default: multiply_amx_rows<4, Add, Vectors>(product, row, sums);
    }
  }
}

}  // namespace
}  // namespace numattn
