// Packed weights of projections, panel by panel: kPanelColumns output features each, for every
// instruction set alike.
#pragma once

#include "integers.h"

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

// Where the scales of a panel's columns lie, and behind them their powers.
inline std::int64_t int8_scales(std::int64_t depth) {
  return padded_int8_depth(depth) * kPanelColumns;
}

// Where the sums of a panel of kW8A8 lie.
inline std::int64_t int8_sums(std::int64_t depth) { return panel_bytes(PanelFormat::kInt8, depth); }

constexpr std::int64_t kQuadBytes = 4 * kPanelColumns;  // four steps of the depth

// Calls call(k, count, numbers) for stretches of a row of the weight, as float32.
template <class Call>
inline void each_stretch(const Matrix& weight, std::int64_t row, std::int64_t depth,
                         const Call& call) {
  constexpr std::int64_t kStretch = 64;
  float copy[kStretch];
  for (std::int64_t k = 0; k < depth; k += kStretch) {
    const std::int64_t count = depth - k < kStretch ? depth - k : kStretch;
    Matrix part = weight;
    part.data += k * weight.column_stride;
    call(k, count, float_rows(part, row, 1, count, copy).data);
  }
}

// `sums`: of the row's integers, slice by slice, or null.
inline void pack_int8_row(const PackWeight& pack, std::int64_t row, std::int8_t* packed,
                          float* scale, std::int32_t* sums) {
  Range range;
  each_stretch(
      pack.weight, row, pack.depth,
      [&](std::int64_t, std::int64_t count, const float* numbers) { range.add(numbers, count); });
  const Quantum quantum = range.symmetric(kLargestWeight);
  scale[0] = quantum.scale;
  scale[kPanelColumns] = quantum.power;
  if (quantum.per_scale == 0.0f) return;
  each_stretch(pack.weight, row, pack.depth,
               [&](std::int64_t k, std::int64_t count, const float* numbers) {
                 std::int16_t integers[kInt8DepthStep];
                 write_integers(numbers, count, quantum, integers);
                 for (std::int64_t i = 0; i < count; ++i) {
                   packed[(k + i) / 4 * kQuadBytes + i % 4] = static_cast<std::int8_t>(integers[i]);
                   if (sums != nullptr) sums[k / kByteSlice * kPanelColumns] += integers[i];
                 }
               });
}

inline void pack_int8_panel(const PackWeight& pack) {
  __builtin_memset(pack.packed, 0, static_cast<std::size_t>(panel_bytes(pack.format, pack.depth)));
  float* scales = reinterpret_cast<float*>(pack.packed + int8_scales(pack.depth));
  auto* sums = reinterpret_cast<std::int32_t*>(pack.packed + int8_sums(pack.depth));
  for (int column = 0; column < kPanelColumns; ++column) {
    const std::int64_t row = pack.panel * kPanelColumns + column;
    if (row >= pack.row_count) break;
    pack_int8_row(pack, row, reinterpret_cast<std::int8_t*>(pack.packed) + 4 * column,
                  scales + column, pack.format == PanelFormat::kW8A8 ? sums + column : nullptr);
  }
}

inline void pack_weight(const PackWeight& pack) {
  switch (pack.format) {
    case PanelFormat::kFloat32: pack_float_panel(pack); break;
    case PanelFormat::kInt8:
    case PanelFormat::kW8A8: pack_int8_panel(pack); break;
    default: pack_pair_panel(pack);
  }
}

}  // namespace
}  // namespace numattn
