// Projections whose products take pairs of bfloat16: the definition, panels and epilogue are those
// of gemm.h. x is rounded to bfloat16, or split in two where the weights are (precision "high").
#pragma once

#include "gemm.h"
#include "pairs.h"

namespace numattn {
namespace {

inline std::int64_t padded_x_rows(std::int64_t rows) { return round_up(rows, kRowStep); }

inline bool copies_x(const Matrix& x, std::int64_t rows, std::int64_t depth, PanelFormat format) {
  return format == PanelFormat::kSplit || !reads_pairs_in_place(x) || depth % kDepthStep != 0 ||
         rows % kRowStep != 0;
}

inline bool gemm_pairs_copies(const GemmOperands& operands) {
  if (operands.format == PanelFormat::kFloat32) return gemm_copies(operands);
  return copies_x(operands.x, operands.rows, operands.depth, operands.format);
}

// A tile of sums, and the block's rows as bfloat16 where they cannot be read in place.
inline std::int64_t gemm_pairs_workspace(const GemmOperands& operands, std::int64_t block_rows) {
  if (operands.format == PanelFormat::kFloat32) return gemm_workspace(operands, block_rows);
  const std::int64_t copied = padded_x_rows(block_rows) * copied_row(operands.depth);
  return kGemmRows * kPanelColumns +
         (gemm_pairs_copies(operands) ? panel_parts(operands.format) * copied / 2 : 0);
}

template <int Parts>
inline PairRows pair_rows(const GemmBlock& block, std::uint16_t* copy) {
  const Matrix& x = block.x;
  if (!copies_x(x, block.row_count, block.depth, block.format)) {
    return {{reinterpret_cast<const std::uint16_t*>(x.data), 0}, x.row_stride / 2};
  }
  const std::int64_t stride = copied_row(block.depth);
  const std::int64_t rows = padded_x_rows(block.row_count);
  with_reader(x.dtype, x.column_stride, [&](const auto& read) {
    for (std::int64_t row = 0; row < rows; ++row) {
      copy_pair_row<Parts>(x.data + row * x.row_stride, x.column_stride,
                           row < block.row_count ? block.depth : 0, stride, rows * stride, read,
                           copy + row * stride);
    }
  });
  return {{copy, rows * stride}, stride};
}

template <int Parts>
inline void multiply_pair_panels(const GemmBlock& block) {
  const PairUnit unit;
  float* sums = block.workspace;
  const PairRows x =
      pair_rows<Parts>(block, reinterpret_cast<std::uint16_t*>(sums + kGemmRows * kPanelColumns));
  const std::int64_t depth = round_up(block.depth, kDepthStep);
  for_each_panel(block, sums, [&](int row, int rows, const char* panel, float* to) {
    const PairOperand a{x.parts.data + row * x.stride, x.parts.part_stride};
    const PairOperand b{reinterpret_cast<const std::uint16_t*>(panel),
                        padded_panel_depth(block.depth) * kPanelColumns};
    multiply_pairs<false, kTileVectors>(rows, product_of<Parts>(a, x.stride, b, depth), to);
  });
}

inline void gemm_pairs(const GemmBlock& block) {
  switch (block.format) {
    case PanelFormat::kFloat32: gemm(block); break;
    case PanelFormat::kBFloat16: multiply_pair_panels<1>(block); break;
    case PanelFormat::kSplit: multiply_pair_panels<2>(block); break;
  }
}

}  // namespace
}  // namespace numattn
