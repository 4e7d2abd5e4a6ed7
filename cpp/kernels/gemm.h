// Projections: out = activation(x · weightᵗ + bias) · factor + residual, weight packed
// once.
//
// A panel holds kPanelColumns output features, panel[k][column]: features in lanes, x rows
// broadcast, kLaneGroup columns at a time. Depth is cut into slices, so that a slice of the panel
// stays in the first two cache levels while the block's rows pass over it; each slice's sums start
// from zero and are added in order, which keeps rounding near the square root of the slice.
//
// What multiplies is a class of this form (float_panels.h, pair_panels.h, int8_panels.h):
//
//   struct Panels {
//     static copies(operands)             // whether rows of x must be copied first
//     Panels(areas, operands, rows)       // its areas of the workspace, for blocks of so many rows
//     begin(block)                        // rows of x as it multiplies them
//     multiply(row, rows, panel, sums)    // sums[row][column] of one panel, whole depth
//   };
#pragma once

#include "activation.h"
#include "areas.h"
#include "matrix.h"
#include "tile.h"

namespace numattn {
namespace {

// What becomes of up to kWidth sums side by side; bias, factor and residual, of the first one, null
// without.
inline Vec finished(const GemmBlock& block, Vec sum, const float* bias, const char* factor,
                    const char* residual, int lanes) {
  if (bias != nullptr) sum = sum + load_partial(bias, lanes);
  Vec value = activated(sum, block.activation, block.output_dtype);
  const auto read = [&](const char* from, const Companion& companion) {
    return read_elements(from, block.output_dtype, companion.column_stride, lanes);
  };
  if (factor != nullptr) value = value * read(factor, block.factor);
  return residual == nullptr ? value : value + read(residual, block.residual);
}

// The epilogue of one panel: rows [first, first + row_count), columns [column, column + count).
// Not inlined: a copy of it for every kind of panel would be a fifth of all their code.
__attribute__((noinline)) inline void write_panel(const GemmBlock& block, int first, int row_count,
                                                  std::int64_t column, std::int64_t count,
                                                  const float* sums) {
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int i = 0; i < row_count; ++i) {
    const std::int64_t row = first + i;
    char* output = block.output + row * block.output_row_stride + column * item;
    for (std::int64_t n = 0; n < count; n += Vec::kWidth) {
      const int lanes = lanes_left(n, count);
      const float* bias = block.bias == nullptr ? nullptr : block.bias + column + n;
      const Vec value =
          finished(block, load(sums + i * kPanelColumns + n), bias,
                   block.factor.at(row, column + n), block.residual.at(row, column + n), lanes);
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
    const auto fetch = [&](const Companion& companion) {
      const char* from = companion.at(row, column);
      if (from != nullptr && companion.data != block.output) fetch_bytes(from, count * item);
    };
    fetch(block.factor);
    fetch(block.residual);
  }
}

inline float* take_sums(Areas& areas) { return areas.take(kGemmRows * kPanelColumns); }

// Every panel and every kGemmRows rows of the block, and the epilogue after each.
template <class Panels>
inline void gemm(const GemmBlock& block) {
  Areas areas(block.workspace);
  float* sums = take_sums(areas);
  Panels panels(areas, {block.x, block.row_count, block.depth, block.format, block.column_count},
                block.row_count);
  panels.begin(block);
  const std::int64_t bytes = panel_bytes(block.format, block.depth);
  const char* panel = block.panels;
  for (std::int64_t column = 0; column < block.column_count; column += kPanelColumns) {
    const std::int64_t left = block.column_count - column;
    const std::int64_t columns = left < kPanelColumns ? left : kPanelColumns;
    for (int row = 0; row < block.row_count; row += kGemmRows) {
      const int rows = block.row_count - row < kGemmRows ? block.row_count - row : kGemmRows;
      fetch_results(block, row, rows, column, columns);
      panels.multiply(row, rows, panel, sums);
      write_panel(block, row, rows, column, columns, sums);
    }
    panel += bytes;
  }
}

template <class T>
struct Type {
  using type = T;
};

// The kernel over Products::with(format, call), which calls call(Type<Panels>{}).
template <class Products>
constexpr GemmKernel gemm_kernel() {
  return {[](const GemmOperands& operands) {
            return Products::with(operands.format, [&](auto panels) {
              return decltype(panels)::type::copies(operands);
            });
          },
          [](const GemmOperands&) { return false; },
          [](const GemmOperands& operands, std::int64_t block_rows) {
            return Products::with(operands.format, [&](auto panels) {
              Areas areas(nullptr);
              take_sums(areas);
              const typename decltype(panels)::type layout(areas, operands, block_rows);
              return areas.floats();
            });
          },
          [](const GemmBlock& block) {
            Products::with(block.format,
                           [&](auto panels) { gemm<typename decltype(panels)::type>(block); });
          }};
}

}  // namespace
}  // namespace numattn
