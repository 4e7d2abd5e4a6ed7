// Projections: out = activation(x · weightᵗ + bias) + residual, weight packed once.
//
// A panel holds kPanelColumns output features, panel[k][column], for every instruction set alike:
// features in lanes, x rows broadcast, kLaneGroup columns at a time.
// Depth is cut into slices, so that a slice of the panel stays in the first two cache levels while
// the block's rows pass over it; each slice's sums start from zero and are added in order, which
// keeps rounding near the square root of the slice.
#pragma once

#include "activation.h"
#include "matrix.h"
#include "tile.h"

namespace numattn {
namespace {

// 512 · 48 · 4 bytes = 96 KiB of panel per slice: a fraction of every second-level cache.
constexpr std::int64_t kDepthSlice = 512;

inline void pack_float_panel(const PackWeight& pack) {
  float* packed = reinterpret_cast<float*>(pack.packed);
  const Matrix& weight = pack.weight;
  const std::int64_t first = pack.panel * kPanelColumns;
  for (int lane = 0; lane < kPanelColumns; lane += Vec::kWidth) {
    for (std::int64_t k = 0; k < pack.depth; k += Vec::kWidth) {
      const int count = lanes_left(k, pack.depth);
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        const std::int64_t row = first + lane + i;
        const char* from = weight.data + row * weight.row_stride + k * weight.column_stride;
        square[i] = row < pack.row_count
                        ? read_elements(from, weight.dtype, weight.column_stride, count)
                        : zero();
      }
      transpose(square);
      for (int i = 0; i < count; ++i) store(packed + (k + i) * kPanelColumns + lane, square[i]);
    }
  }
}

// bfloat16 panels are packed once, element by element.
inline void pack_pair_panel(const PackWeight& pack) {
  const Matrix& weight = pack.weight;
  const std::int64_t depth = padded_panel_depth(pack.depth);
  std::uint16_t* packed = reinterpret_cast<std::uint16_t*>(pack.packed);
  for (int column = 0; column < kPanelColumns; ++column) {
    const std::int64_t row = pack.panel * kPanelColumns + column;
    for (std::int64_t k = 0; k < depth; ++k) {
      const char* from = weight.data + row * weight.row_stride + k * weight.column_stride;
      const bool present = row < pack.row_count && k < pack.depth;
      float rest = present ? read_element(from, weight.dtype) : 0.0f;
      for (int part = 0; part < panel_parts(pack.format); ++part) {
        std::uint16_t bits = bfloat16_from_float(rest);
        // An infinity or a NaN is carried by the last part alone (pairs.h).
        if ((bits & 0x7F80u) == 0x7F80u && part + 1 < panel_parts(pack.format)) bits = 0;
        packed[((part * depth + k) / 2 * kPanelColumns + column) * 2 + k % 2] = bits;
        rest = rest - float_from_bfloat16(bits);
      }
    }
  }
}

inline void pack_weight(const PackWeight& pack) {
  if (pack.format == PanelFormat::kFloat32) {
    pack_float_panel(pack);
  } else {
    pack_pair_panel(pack);
  }
}

// Steps [first, first + depth) of a panel of bfloat16, `first` even, as float32: floats[k][column].
inline void unpack_panel(const GemmBlock& block, const char* panel, std::int64_t first,
                         std::int64_t depth, float* floats) {
  const std::uint16_t* pairs = reinterpret_cast<const std::uint16_t*>(panel);
  const std::int64_t part_elements = padded_panel_depth(block.depth) * kPanelColumns;
  for (std::int64_t k = 0; k < depth; k += 2) {
    for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
      const std::uint16_t* from = pairs + (first + k) * kPanelColumns + 2 * column;
      Halves elements = load_halves(from);
      if (block.format == PanelFormat::kSplit) {
        const Halves low = load_halves(from + part_elements);
        elements = {elements.even + low.even, elements.odd + low.odd};
      }
      float* to = floats + k * kPanelColumns + column;
      store(to, elements.even);
      store(to + kPanelColumns, elements.odd);
    }
  }
}

// sums[row][column] of one panel over one slice of the depth, added to what is there or not. Each
// of the slice's tiles fetches its share of the slice that follows in memory, so that weights from
// afar arrive while others are at work.
//
// Not kept: fetching the lines that the epilogue will write. Measured 2 to 4% slower on Zen 4.
template <bool Add, int AheadLines>
inline void multiply_slice(FloatRows x, int row_count, std::int64_t depth, const float* panel,
                           std::int64_t tiles, float* sums) {
  const std::int64_t step = kPanelColumns * 4 / tiles;
  Ahead<AheadLines> ahead{reinterpret_cast<const char*>(panel + depth * kPanelColumns), step};
  for (int column = 0; column < kPanelColumns; column += kLaneGroup) {
    for (int row = 0; row < row_count; row += kTileRows) {
      const int rows = row_count - row < kTileRows ? row_count - row : kTileRows;
      float* to = sums + row * kPanelColumns + column;
      const auto finish = [to](int m, int v, Vec sum) {
        float* at = to + m * kPanelColumns + v * Vec::kWidth;
        store(at, Add ? load(at) + sum : sum);
      };
      multiply_rows<kTileVectors>(rows,
                                  TileOperands<float>{depth, x.data + row * x.stride, x.stride, 1,
                                                      panel + column, kPanelColumns},
                                  finish, Vec::kWidth, ahead);
      ahead.data += depth * step;
    }
  }
}

template <int AheadLines>
inline void multiply_panel(FloatRows x, int row_count, std::int64_t depth, const float* panel,
                           std::int64_t tiles, float* sums) {
  for (std::int64_t k = 0; k < depth; k += kDepthSlice) {
    const std::int64_t slice = depth - k < kDepthSlice ? depth - k : kDepthSlice;
    const FloatRows part{x.data + k, x.stride};
    if (k == 0) {
      multiply_slice<false, AheadLines>(part, row_count, slice, panel, tiles, sums);
    } else {
      multiply_slice<true, AheadLines>(part, row_count, slice, panel + k * kPanelColumns, tiles,
                                       sums);
    }
  }
}

inline void multiply_panel(FloatRows x, int row_count, std::int64_t depth, const float* panel,
                           float* sums) {
  const std::int64_t tiles = (row_count + kTileRows - 1) / kTileRows * (kPanelColumns / kLaneGroup);
  switch (tiles) {  // a step of the depth is three cache lines of the panel
    // A single tile reads the panel in order, which the processor foresees by itself: fetching as
    // well read one row of 2048 → 2048 at 28 GB/s instead of 41.
    case 1: multiply_panel<0>(x, row_count, depth, panel, tiles, sums); break;
    case 2: multiply_panel<2>(x, row_count, depth, panel, tiles, sums); break;
    default: multiply_panel<1>(x, row_count, depth, panel, tiles, sums);
  }
}

// The epilogue of one panel: rows [first, first + row_count), columns [column, column + count).
inline void write_panel(const GemmBlock& block, int first, int row_count, std::int64_t column,
                        std::int64_t count, const float* sums) {
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int i = 0; i < row_count; ++i) {
    const std::int64_t row = first + i;
    char* output = block.output + row * block.output_row_stride + column * item;
    for (std::int64_t n = 0; n < count; n += Vec::kWidth) {
      const int lanes = lanes_left(n, count);
      Vec value = load(sums + i * kPanelColumns + n);
      if (block.bias != nullptr) value = value + load_partial(block.bias + column + n, lanes);
      value = activated(value, block.activation);
      if (block.residual != nullptr) {
        const char* from = block.residual + row * block.residual_row_stride +
                           (column + n) * block.residual_column_stride;
        value =
            value + read_elements(from, block.output_dtype, block.residual_column_stride, lanes);
      }
      write_elements(output + n * item, block.output_dtype, value, lanes);
    }
  }
}

// Asks for the lines that write_panel() will write, and read, when the panel has been multiplied.
inline void fetch_results(const GemmBlock& block, int first, int row_count, std::int64_t column,
                          std::int64_t count) {
  const std::int64_t item = dtype_size(block.output_dtype);
  for (std::int64_t row = first; row < first + row_count; ++row) {
    fetch_bytes(block.output + row * block.output_row_stride + column * item, count * item);
    if (block.residual == nullptr || block.residual == block.output) continue;
    fetch_bytes(
        block.residual + row * block.residual_row_stride + column * block.residual_column_stride,
        count * item);
  }
}

// multiply(row, rows, panel, sums) for every panel and every kGemmRows rows of the block, and the
// epilogue after each.
template <class Multiply>
inline void for_each_panel(const GemmBlock& block, float* sums, const Multiply& multiply) {
  const std::int64_t bytes = panel_bytes(block.format, block.depth);
  const char* panel = block.panels;
  for (std::int64_t column = 0; column < block.column_count; column += kPanelColumns) {
    const std::int64_t left = block.column_count - column;
    const std::int64_t columns = left < kPanelColumns ? left : kPanelColumns;
    for (int row = 0; row < block.row_count; row += kGemmRows) {
      const int rows = block.row_count - row < kGemmRows ? block.row_count - row : kGemmRows;
      fetch_results(block, row, rows, column, columns);
      multiply(row, rows, panel, sums);
      write_panel(block, row, rows, column, columns, sums);
    }
    panel += bytes;
  }
}

// Panels of bfloat16 are multiplied in float32, a short slice at a time that stays in the first
// cache level between its conversion and its use.
constexpr std::int64_t kUnpackedSlice = 128;

// Few rows use a converted element too seldom to store it first.
constexpr int kFewRows = 8;

// multiply_slice() for up to four rows, elements converted on the way: the same sums, bit by bit.
template <bool Add, int Rows>
inline void multiply_halves(FloatRows x, std::int64_t depth, const std::uint16_t* pairs,
                            float* sums) {
  Vec sum[Rows][kTileVectors];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) sum[m][v] = zero();
  }
  const auto add = [&](const float* a, const Vec(&right)[kTileVectors]) {
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
      const Vec left = broadcast(a[m * x.stride]);
#pragma GCC unroll 8
      for (int v = 0; v < kTileVectors; ++v) sum[m][v] = fma(left, right[v], sum[m][v]);
    }
  };
  for (std::int64_t k = 0; k < depth; k += 2) {
    Vec even[kTileVectors];
    Vec odd[kTileVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) {
      const Halves halves = load_halves(pairs + k * kPanelColumns + v * 2 * Vec::kWidth);
      even[v] = halves.even;
      odd[v] = halves.odd;
    }
    add(x.data + k, even);
    if (k + 1 < depth) add(x.data + k + 1, odd);
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) {
      float* at = sums + m * kPanelColumns + v * Vec::kWidth;
      store(at, Add ? load(at) + sum[m][v] : sum[m][v]);
    }
  }
}

template <bool Add>
inline void multiply_few_rows(FloatRows x, int row_count, std::int64_t depth,
                              const std::uint16_t* pairs, float* sums) {
  for (int column = 0; column < kPanelColumns; column += kLaneGroup) {
    for (int row = 0; row < row_count; row += 4) {
      with_count<4>(row_count - row < 4 ? row_count - row : 4, [&](auto rows) {
        constexpr int kRows = decltype(rows)::value;
        multiply_halves<Add, kRows>({x.data + row * x.stride, x.stride}, depth, pairs + 2 * column,
                                    sums + row * kPanelColumns + column);
      });
    }
  }
}

inline void multiply_unpacked(const GemmBlock& block, FloatRows x, int row_count, const char* panel,
                              float* slice, float* sums) {
  for (std::int64_t k = 0; k < block.depth; k += kUnpackedSlice) {
    const std::int64_t left = block.depth - k;
    const std::int64_t depth = left < kUnpackedSlice ? left : kUnpackedSlice;
    const FloatRows part{x.data + k, x.stride};
    if (block.format == PanelFormat::kBFloat16 && row_count <= kFewRows) {
      const auto* pairs = reinterpret_cast<const std::uint16_t*>(panel) + k * kPanelColumns;
      if (k == 0) {
        multiply_few_rows<false>(part, row_count, depth, pairs, sums);
      } else {
        multiply_few_rows<true>(part, row_count, depth, pairs, sums);
      }
      continue;
    }
    unpack_panel(block, panel, k, depth, slice);
    if (k == 0) {
      multiply_slice<false, 0>(part, row_count, depth, slice, 1, sums);
    } else {
      multiply_slice<true, 0>(part, row_count, depth, slice, 1, sums);
    }
  }
}

inline bool gemm_copies(const GemmOperands& operands) { return !reads_in_place(operands.x); }

// A tile of sums, a slice of an unpacked panel, and the block's rows as float32 where they cannot
// be read in place.
inline std::int64_t gemm_workspace(const GemmOperands& operands, std::int64_t block_rows) {
  const bool unpacks = operands.format != PanelFormat::kFloat32;
  return kGemmRows * kPanelColumns + (unpacks ? kUnpackedSlice * kPanelColumns : 0) +
         (gemm_copies(operands) ? block_rows * padded_floats(operands.depth) : 0);
}

inline void gemm(const GemmBlock& block) {
  float* sums = block.workspace;
  float* slice = sums + kGemmRows * kPanelColumns;
  const bool unpacks = block.format != PanelFormat::kFloat32;
  float* copy = slice + (unpacks ? kUnpackedSlice * kPanelColumns : 0);
  const FloatRows x = float_rows(block.x, 0, block.row_count, block.depth, copy);
  for_each_panel(block, sums, [&](int row, int rows, const char* panel, float* to) {
    const FloatRows part{x.data + row * x.stride, x.stride};
    if (unpacks) {
      multiply_unpacked(block, part, rows, panel, slice, to);
    } else {
      multiply_panel(part, rows, block.depth, reinterpret_cast<const float*>(panel), to);
    }
  });
}

}  // namespace
}  // namespace numattn
