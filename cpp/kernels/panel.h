// Packed weights of projections, panel by panel: kPanelColumns output features each, for every
// instruction set alike.
#pragma once

#include "matrix.h"

namespace numattn {
namespace {

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

}  // namespace
}  // namespace numattn
