// What an epilogue will write and read, asked for line by line while its tiles multiply.
//
// Not all at once: each line that is under way takes one of the few misses that the first cache
// level keeps track of, and loads of the tile's own operands wait for one to be free. Measured on
// Zen 4, 2048 × 384 → 1536: the lines of 64 rows at once, those of 8 at once, or none, 103 GFLOP/s
// in float32 and 193 in bfloat16; spread over the tiles, 111 and 217.
//
// Not kept: float32 results stored past the caches, 111 as well, but whoever reads them next would
// read memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include "fetch.h"

namespace numattn {
namespace {

// Nothing is asked for.
struct NoRowsAhead {
  void fetch_rows(std::int64_t) const {}
};

// Rows of one or more arrays, of which up to kMostLines lines each are asked for. Whoever passes
// over the same rows more than once, by slices of the depth or groups of columns, asks in one pass
// alone. Not kept: a count of the rows that are left, which would spare the others an empty one of
// these: the loops of float32 took 3 % longer (Zen 4, GCC 12).
class RowsAhead {
 public:
  static constexpr int kMostLines = 3;  // of a row of a panel

  RowsAhead() = default;
  explicit RowsAhead(std::int64_t bytes) : bytes_(bytes) {}

  void add(const char* first, std::int64_t stride) { arrays_[count_++] = {first, stride}; }

  // The next line of every array: Rows · kMostLines calls go through those of so many rows. One row
  // after the other and not line after line, which looks like a stream to be run ahead of (float32
  // as above: 107).
  template <int Rows>
  void fetch_line() {
    if (line_ * kLineBytes < bytes_) {
      for (int i = 0; i < count_; ++i) {
        fetch_lines<1>(arrays_[i].first + row_ * arrays_[i].stride + line_ * kLineBytes);
      }
    }
    if (++row_ < Rows) return;
    row_ = 0;
    if (++line_ < kMostLines) return;
    line_ = 0;
    for (int i = 0; i < count_; ++i) arrays_[i].first += Rows * arrays_[i].stride;
  }

  // All lines of the next rows.
  __attribute__((noinline)) void fetch_rows(std::int64_t rows) {
    for (int i = 0; i < count_; ++i) {
      for (std::int64_t row = 0; row < rows; ++row) {
        fetch_bytes(arrays_[i].first, bytes_);
        arrays_[i].first += arrays_[i].stride;
      }
    }
  }

 private:
  struct Array {
    const char* first;  // of the rows that are gone through
    std::int64_t stride;
  };
  static constexpr int kMostArrays = 3;  // results, factor, residual

  std::int64_t bytes_ = 0;
  std::int64_t row_ = 0;
  std::int64_t line_ = 0;
  int count_ = 0;
  Array arrays_[kMostArrays] = {};
};

// The pieces of the depth of a tile of `Rows` rows, in whole steps, before each of which it asks
// for a line. What is lower than a full tile asks for all of them first: few do, and loops cut in
// pieces are twice the code.
template <int Rows, class RowsAheadOf>
constexpr int kDepthPieces =
    std::is_same_v<RowsAheadOf, RowsAhead> && Rows == Vec::kTileRows ? Rows * RowsAhead::kMostLines
                                                                     : 1;

}  // namespace
}  // namespace numattn
