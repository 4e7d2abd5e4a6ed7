// An activation of the elements of an array, in float32 whatever their type.
#pragma once

#include "activation.h"
#include "matrix.h"

namespace numattn {
namespace {

// Each vector is read before its place is written, and no place of x behind it, so the output may
// be x.
inline void activate(const ActivatedElements& elements) {
  constexpr std::int64_t kCopied = 256;
  const DType dtype = elements.dtype;
  for (std::int64_t first = 0; first < elements.count; first += kCopied) {
    const Matrix part{elements.x + first * elements.stride, dtype, elements.stride,
                      elements.stride};
    const std::int64_t left = elements.count - first;
    const std::int64_t width = left < kCopied ? left : kCopied;
    float copy[kCopied];
    const float* x = float_rows(part, 0, 1, width, copy).data;
    char* output = elements.output + first * dtype_size(dtype);
    for (std::int64_t i = 0; i < width; i += Vec::kWidth) {
      const int count = lanes_left(i, width);
      const Vec y = activated(load_lanes(x + i, count), elements.activation, DType::kFloat32);
      write_elements(output + i * dtype_size(dtype), dtype, y, count);
    }
  }
}

}  // namespace
}  // namespace numattn
