// Which bytes of memory an array may have: those between its first and its last element.
#pragma once

#include <cstdint>

#include "numattn/view.h"

namespace numattn {

struct Extent {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;

  bool meets(const Extent& other) const { return begin < other.end && other.begin < end; }
};

// Strides are in bytes. An array without elements has no bytes.
template <class Size>
Extent extent_of(const void* data, std::int64_t rank, const Size* shape, const Size* strides,
                 std::int64_t item) {
  const auto first = reinterpret_cast<std::uintptr_t>(data);
  Extent extent{first, first + static_cast<std::uintptr_t>(item)};
  for (std::int64_t axis = 0; axis < rank; ++axis) {
    if (shape[axis] == 0) return {};
    const Size reach = (shape[axis] - 1) * strides[axis];
    (reach < 0 ? extent.begin : extent.end) += static_cast<std::uintptr_t>(reach);
  }
  return extent;
}

inline Extent extent_of(const View& view) {
  return extent_of(view.data, view.rank, view.shape.data(), view.strides.data(), view.item_size());
}

}  // namespace numattn
