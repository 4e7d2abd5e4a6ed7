// A non-owning look at an array of up to four dimensions; strides are in bytes.
#pragma once

#include <array>
#include <cstdint>

#include "numattn/dtype.h"

namespace numattn {

struct View {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int rank = 0;
  std::array<std::int64_t, 4> shape{};
  std::array<std::int64_t, 4> strides{};
  bool writable = false;

  std::int64_t item_size() const { return dtype_size(dtype); }
};

}  // namespace numattn
