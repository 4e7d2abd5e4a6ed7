// How packed weights lie in memory, and what passes over them at a time. The functions are static,
// since files of every instruction set include this.
#pragma once

#include <cstdint>

namespace numattn {

// Output features per packed panel: whole lane groups of every instruction set (48, 16, 8 lanes).
constexpr int kPanelColumns = 48;

// How the elements of a panel are stored; zero beyond the last feature and the depth.
//   kFloat32    panel[k][column]
//   kBFloat16   panel[k / 2][column][k % 2], the depth padded to whole steps of kPanelDepthStep
//   kSplit      two panels like kBFloat16, of the high and the low parts of float32 elements
//   kInt8       panel[k / 4][column][k % 4], the depth padded to whole steps of kInt8DepthStep
//   kW8A8       like kInt8, to be multiplied by rows of 8 bits instead of 16 (byte_panels.h)
//
//   kGroups8    of every 16 steps of the depth scale[column], then signed integers[k][column]
//   kGroups4    of every 32 scale[column], minimum[column], then integers of 4 bits[k][column], two
//               steps to a byte, the even one in its lower half (group_panels.h)
//
// Behind a panel of these two stand scale[column] and power[column], float32 (integers.h); of kW8A8
// then sum[k / kByteSlice][column] of the integers, of 32 bits.
// Pickled layers hold them: a change here makes another kLinearStateVersion.
enum class PanelFormat : std::uint8_t {
  kFloat32,
  kBFloat16,
  kSplit,
  kInt8,
  kW8A8,
  kGroups8,
  kGroups4
};

// The longest step in which a unit multiplies bfloat16 (a row of an AMX tile).
constexpr std::int64_t kPanelDepthStep = 32;
// And 8-bit integers.
constexpr std::int64_t kInt8DepthStep = 64;

// Of the depth, whose products with integers are summed exactly: 512 · 32639 · 127 < 2^31. Such a
// slice of a panel, 24 KB, stays in the first cache level while rows pass over it.
constexpr std::int64_t kInt8Slice = 512;
// And with bytes: 65,536 · 255 · 127 < 2^31.
constexpr std::int64_t kByteSlice = 65536;

static inline int panel_parts(PanelFormat format) { return format == PanelFormat::kSplit ? 2 : 1; }

static inline std::int64_t padded_panel_depth(std::int64_t depth) {
  return (depth + kPanelDepthStep - 1) / kPanelDepthStep * kPanelDepthStep;
}
static inline std::int64_t padded_int8_depth(std::int64_t depth) {
  return (depth + kInt8DepthStep - 1) / kInt8DepthStep * kInt8DepthStep;
}

static inline std::int64_t byte_slices(std::int64_t depth) {
  return (depth + kByteSlice - 1) / kByteSlice;
}

// Steps of the depth that have a scale in common; 1 where there are no groups.
static constexpr std::int64_t group_depth(PanelFormat format) {
  return format == PanelFormat::kGroups8 ? 16 : format == PanelFormat::kGroups4 ? 32 : 1;
}

// Of a group: its scales, and minima where it has them, and its integers.
static constexpr std::int64_t group_bytes(PanelFormat format) {
  constexpr std::int64_t kIntegers = 16 * kPanelColumns;
  return kIntegers + kPanelColumns * 4 * (format == PanelFormat::kGroups4 ? 2 : 1);
}

static inline std::int64_t panel_bytes(PanelFormat format, std::int64_t depth) {
  switch (format) {
    case PanelFormat::kFloat32: return depth * kPanelColumns * 4;
    case PanelFormat::kInt8: return (padded_int8_depth(depth) + 2 * 4) * kPanelColumns;
    case PanelFormat::kW8A8:
      return (padded_int8_depth(depth) + (2 + byte_slices(depth)) * 4) * kPanelColumns;
    case PanelFormat::kGroups8:
    case PanelFormat::kGroups4: return depth / group_depth(format) * group_bytes(format);
    default: return padded_panel_depth(depth) * kPanelColumns * 2 * panel_parts(format);
  }
}

// Rows of a strip, which stay in the first cache level while panels stream past.
constexpr int kGemmStripRows = 32;

// Panels that stay in the second cache level, beside two strips and their results,
// while strips pass over them: an even number, as equal as may be in every such block of the
// features.
//
// Measured on Granite Rapids by a prototype in bfloat16, 1024 × 768 → 2304 (GFLOP/s): all 3.4 MiB
// at once 803, 1 MiB 1,544, 512 KiB 1,511.
static inline std::int64_t strip_panels(PanelFormat format, std::int64_t depth,
                                        std::int64_t features) {
  constexpr std::int64_t kBytes = 768 * 1024;
  const std::int64_t pair_bytes = 2 * panel_bytes(format, depth > 0 ? depth : 1);
  const std::int64_t most = kBytes > pair_bytes ? kBytes / pair_bytes : 1;
  const std::int64_t pairs = (features + 2 * kPanelColumns - 1) / (2 * kPanelColumns);
  const std::int64_t blocks = (pairs + most - 1) / most;
  return blocks == 0 ? 2 : (pairs + blocks - 1) / blocks * 2;
}

}  // namespace numattn
