// Rows of x as integers, by which panels of integers are multiplied, exactly:
//
//   y[m][n] = (Σ_s (Σ_k x[m][k] · w[n][k]) · scale_x[m] · scale_w[n]) · (power_x[m] · power_w[n])
//
// with k over slice s of the depth, whose sums are integers of 32 bits, and s in order in float32
// (panel_format.h says how long slices are).
// Integers have no order of summation and the rest has this one, so a row's result has the same
// bits at every instruction set and beside any other rows.
#pragma once

#include "gemm.h"
#include "panel.h"

namespace numattn {
namespace {

// A single pass over a slice reads it in order, which the processor foresees by itself, on Zen 3
// not far enough. One row of 2048 → 2048 from memory: 18.4 GB/s there with the next slice fetched
// as below, 19.3 with nothing, 21.5 so, 19.8 twice as far ahead. On Zen 4 (AVX-512) 26 GB/s so and
// 38 with nothing, from the third level 62 and 75: with AVX-512 only the kernels of processors with
// AMX fetch for few rows, whose float32 rows gain by it (float_panels.h). For more all do
// (fetch.h): 8 rows of 2048 → 2048 on Zen 4 141 and 152 GFLOP/s.
constexpr std::int64_t kSoon = 1152;
constexpr bool kFetchesWeights = Vec::kWidth < 16;

// One slice of a panel as a tile's rows take it.
struct Int8Slice {
  const std::int8_t* weights;
  std::int64_t quads;
  bool adds;          // to the sums of the slices before
  const char* ahead;  // the next slice, if this one's passes are to ask for it; or null
};

class IntegerRows {
 public:
  static bool copies(const GemmOperands&) { return true; }

 protected:
  // Between rows of integers, so that those of a power of two do not all meet in a few sets of the
  // first-level cache: a line of 64 bytes, also where they are bytes.
  static constexpr std::int64_t kApart = 64;

  IntegerRows(Areas& areas, const GemmOperands& operands, std::int64_t rows, bool fetches_weights)
      : fetches_weights_(fetches_weights),
        in_bytes_(operands.format == PanelFormat::kW8A8),
        slice_(in_bytes_ ? kByteSlice : kInt8Slice),
        depth_(operands.depth),
        padded_(padded_int8_depth(operands.depth)),
        stride_(padded_ + kApart),
        floats_(areas.take(reads_in_place(operands.x) ? 0 : padded_floats(operands.depth))),
        scale_(areas.take(rows)),
        power_(areas.take(rows)) {}

  // Writes a row's integers; the result is the least that there might be.
  int quantize(const GemmBlock& block, int row, std::int16_t* integers) {
    const FloatRows numbers = float_rows(block.x, row, 1, depth_, floats_);
    Range range;
    range.add(numbers.data, depth_);
    const Quantum quantum = in_bytes_ ? range.bytes() : range.symmetric(kLargestActivation);
    write_or_clear(numbers.data, depth_, quantum, integers);
    scale_[row] = quantum.scale;
    power_[row] = quantum.power;
    return static_cast<int>(quantum.low);
  }

  bool is_last(std::int64_t k) const { return k + slice_ >= depth_; }

  // The slice from step k of the depth on, as so many rows take it.
  Int8Slice slice(const char* panel, std::int64_t k, int rows) const {
    const std::int64_t depth = padded_ - k < slice_ ? padded_ - k : slice_;
    const char* weights = panel + k * kPanelColumns;
    const bool fetches = fetches_weights_ || rows >= kLeastRowsToFetch;
    return {reinterpret_cast<const std::int8_t*>(weights), depth / 4, k > 0,
            fetches ? weights + depth * kPanelColumns : nullptr};
  }

  // From sums of integers to numbers.
  void scale(int row, int rows, const char* panel, float* sums) const {
    const float* scales = reinterpret_cast<const float*>(panel + int8_scales(depth_));
    for (int m = 0; m < rows; ++m) {
      const Vec row_scale = broadcast(scale_[row + m]);
      const Vec row_power = broadcast(power_[row + m]);
      for (int column = 0; column < kPanelColumns; column += Vec::kWidth) {
        float* at = sums + m * kPanelColumns + column;
        const Vec power = row_power * load(scales + kPanelColumns + column);
        store(at, load(at) * row_scale * load(scales + column) * power);
      }
    }
  }

  bool fetches_weights_;
  bool in_bytes_;
  std::int64_t slice_;
  std::int64_t depth_;
  std::int64_t padded_;  // the depth in whole steps
  std::int64_t stride_;
  float* floats_;
  float* scale_;
  float* power_;
};

}  // namespace
}  // namespace numattn
