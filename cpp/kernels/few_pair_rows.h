// A few rows of bfloat16 in vector registers, bit for bit as the tile unit multiplies them.
//
// One row meets each weight once, and memory is the limit; loads of tiles do not run far enough
// ahead of it. Measured on Granite Rapids by a prototype, weights from memory: one row in
// tiles 14.1 to 14.5 GB/s whatever is fetched, so 16.4, two rows 16.0; from the third level 28.9
// to 30.
//
// The unit's sum over a step of 32 (amx.h): even and odd products each a chain of fused
// multiply-adds from zero over 16 pairs, then C += even + odd, subnormals as zero. vdpbf16ps, which
// takes the pairs in another order, gives other bits in nine sums of ten.
#pragma once

#include "areas.h"
#include "epilogue.h"
#include "pairs.h"

namespace numattn {
namespace {

constexpr int kFewPairRows = 4;
constexpr int kPairStep = kPanelDepthStep / 2;  // pairs that the unit takes at once
constexpr int kPanelVectors = kPanelColumns / Vec::kWidth;

// How far ahead of its use a panel is fetched, into the first cache level.
constexpr std::int64_t kPanelAhead = 1024;

struct FewRowsWorkspace {
  float* x;     // [depth][rows], each element rounded to bfloat16
  float* sums;  // [rows][kPanelColumns]

  FewRowsWorkspace(Areas& areas, std::int64_t depth)
      : x(areas.take(kFewPairRows * padded_panel_depth(depth))),
        sums(areas.take(kFewPairRows * kPanelColumns)) {}
};

inline void copy_few_rows(const GemmBlock& block, float* to) {
  const int rows = block.row_count;
  const Matrix& x = block.x;
  for (std::int64_t k = 0; k < padded_panel_depth(block.depth); k += Vec::kWidth) {
    const int count = k < block.depth ? lanes_left(k, block.depth) : 0;
    for (int row = 0; row < rows; ++row) {
      const char* from = x.data + row * x.row_stride + k * x.column_stride;
      std::uint16_t rounded[2 * Vec::kWidth];
      const Vec given = count > 0 ? read_elements(from, x.dtype, x.column_stride, count) : zero();
      store_pairs(rounded, round_in_order(given, zero()));
      for (int i = 0; i < Vec::kWidth; ++i) {
        to[(k + i) * rows + row] = float_from_bfloat16(rounded[i]);
      }
    }
  }
}

// sums[row][column] of one panel. Not inlined: see UnitRounding.
template <int Rows>
__attribute__((noinline)) void multiply_as_unit(const float* x, std::int64_t depth,
                                                const std::uint16_t* panel, float* sums) {
  Vec sum[Rows][kPanelVectors];
  for (auto& row : sum) {
    for (Vec& v : row) v = zero();
  }
  for (std::int64_t k = 0; k < depth; k += kPanelDepthStep) {
    Vec even[Rows][kPanelVectors];
    Vec odd[Rows][kPanelVectors];
#pragma GCC unroll 4
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 3
      for (int v = 0; v < kPanelVectors; ++v) even[m][v] = odd[m][v] = zero();
    }
    for (int pair = 0; pair < kPairStep; ++pair) {
      // The even half of all vectors first: x of both would not fit the registers beside the sums.
#pragma GCC unroll 3
      for (int v = 0; v < kPanelVectors; ++v) {
        const std::uint16_t* from = panel + v * 2 * Vec::kWidth;
        __builtin_prefetch(reinterpret_cast<const char*>(from) + kPanelAhead, 0, kIntoFirstLevel);
        const Vec weight = even_half(from);
#pragma GCC unroll 4
        for (int m = 0; m < Rows; ++m) even[m][v] = fma(broadcast(x[m]), weight, even[m][v]);
      }
#pragma GCC unroll 3
      for (int v = 0; v < kPanelVectors; ++v) {
        const Vec weight = odd_half(panel + v * 2 * Vec::kWidth);
#pragma GCC unroll 4
        for (int m = 0; m < Rows; ++m) odd[m][v] = fma(broadcast(x[Rows + m]), weight, odd[m][v]);
      }
      x += 2 * Rows;
      panel += kPairLanes;
    }
#pragma GCC unroll 4
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 3
      for (int v = 0; v < kPanelVectors; ++v) sum[m][v] = sum[m][v] + (even[m][v] + odd[m][v]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 3
    for (int v = 0; v < kPanelVectors; ++v)
      store(sums + m * kPanelColumns + v * Vec::kWidth, sum[m][v]);
  }
}

inline void multiply_few_pair_rows(const GemmBlock& block, const FewRowsWorkspace& work) {
  copy_few_rows(block, work.x);
  const std::int64_t depth = padded_panel_depth(block.depth);
  const char* panel = block.panels;
  for (std::int64_t column = 0; column < block.column_count; column += kPanelColumns) {
    {
      const UnitRounding rounding;
      with_count<kFewPairRows>(block.row_count, [&](auto rows) {
        multiply_as_unit<decltype(rows)::value>(
            work.x, depth, reinterpret_cast<const std::uint16_t*>(panel), work.sums);
      });
    }
    for (std::int64_t piece = 0; piece < kPanelColumns; piece += kPieceColumns) {
      if (column + piece >= block.column_count) break;
      FinishedSums finished = finished_sums(block, work.sums + piece, kPanelColumns, 0,
                                            block.row_count, column + piece);
      if (finished.columns > kPanelColumns - piece) {
        finished.columns = static_cast<int>(kPanelColumns - piece);
      }
      AnyRows finish(finished);
      for (int row = 0; row < finished.rows; ++row) finish.next_row(block, finished);
    }
    panel += panel_bytes(block.format, block.depth);
  }
}

}  // namespace
}  // namespace numattn
