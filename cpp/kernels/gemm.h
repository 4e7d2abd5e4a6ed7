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
//     multiply(row, rows, panel, results, sums)  // sums[row][column] of one panel, whole depth,
//                                                // while lines of the results are asked for
//   };
#pragma once

#include "areas.h"
#include "panel_results.h"
#include "tile.h"

namespace numattn {
namespace {

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
      RowsAhead results = rows_of_results(block, row, column, columns);
      panels.multiply(row, rows, panel, results, sums);
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

template <class Products>
constexpr GemmKernel kGemmOf = gemm_kernel<Products>();

template <class Products, const Kernels& (*Others)()>
inline const GemmKernel& kernel_for(PanelFormat format) {
  return Products::has(format) ? kGemmOf<Products> : Others().gemm;
}

// The kernel over the formats that Products has, and another table's for the others.
template <class Products, const Kernels& (*Others)()>
constexpr GemmKernel gemm_kernel_beside() {
  return {
      [](const GemmOperands& operands) {
        return kernel_for<Products, Others>(operands.format).copies(operands);
      },
      [](const GemmOperands&) { return false; },
      [](const GemmOperands& operands, std::int64_t block_rows) {
        return kernel_for<Products, Others>(operands.format).workspace(operands, block_rows);
      },
      [](const GemmBlock& block) { kernel_for<Products, Others>(block.format).multiply(block); }};
}

}  // namespace
}  // namespace numattn
