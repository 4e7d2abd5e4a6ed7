// Non-owning looks at small contiguous arrays: numbers for each head, batch entry or distance.
#pragma once

#include <array>
#include <cstdint>

namespace numattn {

struct IntArray {
  const std::int64_t* data = nullptr;
  std::int64_t size = 0;
};

struct FloatArray {
  const float* data = nullptr;
  int rank = 0;
  std::array<std::int64_t, 3> shape{};
};

}  // namespace numattn
