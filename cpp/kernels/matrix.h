// Reading and writing rows of any element type as float32 vectors.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace numattn {
namespace {

// Whether results may be elements of the type.
template <class Element>
constexpr bool kIsNumber = dtype_role(element_dtype(Element{})) == Role::kNumber;

inline float read_element(const char* from, DType dtype) {
  return with_element(dtype, [from](auto element) {
    __builtin_memcpy(&element, from, sizeof element);
    return to_float(element);
  });
}

// kWidth contiguous elements.
inline Vec read_vector(const char* from, DType dtype) {
  return with_element(dtype, [from](auto element) {
    return load(reinterpret_cast<const decltype(element)*>(from));
  });
}

// The first `count` <= kWidth elements, `stride` bytes apart; the other lanes are 0.
inline Vec read_elements(const char* from, DType dtype, std::int64_t stride, int count) {
  if (stride == dtype_size(dtype)) {
    if (count == Vec::kWidth) return read_vector(from, dtype);
    if (dtype == DType::kFloat32) return load_partial(reinterpret_cast<const float*>(from), count);
  }
  float values[Vec::kWidth] = {};
  for (int i = 0; i < count; ++i) values[i] = read_element(from + i * stride, dtype);
  return load(values);
}

// Calls call(read) with read(from, count) = read_elements(), the usual case of each element type
// told apart once instead of at every vector.
template <class Call>
inline void with_reader(DType dtype, std::int64_t stride, const Call& call) {
  const auto any_elements = [=](const char* from, int count) {
    return read_elements(from, dtype, stride, count);
  };
  if (stride != dtype_size(dtype) || dtype_role(dtype) == Role::kFlag) {
    call(any_elements);
    return;
  }
  with_element(dtype, [&](auto element) {
    using Element = decltype(element);
    if constexpr (dtype_role(element_dtype(Element{})) != Role::kFlag) {
      call([&](const char* from, int count) {
        return count == Vec::kWidth ? load(reinterpret_cast<const Element*>(from))
                                    : any_elements(from, count);
      });
    }
  });
}

// The first `count` lanes; the others are 0 and not read, or not written.
template <class Element>
inline Vec load_partial(const Element* from, int count) {
  Element elements[Vec::kWidth] = {};
  for (int i = 0; i < count; ++i) elements[i] = from[i];
  return load(elements);
}
template <class Element>
inline void store_partial(Element* to, Vec a, int count) {
  Element elements[Vec::kWidth];
  store(elements, a);
  for (int i = 0; i < count; ++i) to[i] = elements[i];
}

// Writes the first `count` <= kWidth lanes as contiguous elements.
inline void write_elements(char* to, DType dtype, Vec a, int count) {
  with_element(dtype, [&](auto element) {
    using Element = decltype(element);
    if constexpr (kIsNumber<Element>) {
      Element* elements = reinterpret_cast<Element*>(to);
      if (count == Vec::kWidth) {
        store(elements, a);
      } else {
        store_partial(elements, a, count);
      }
    }
  });
}

inline int lanes_left(std::int64_t from, std::int64_t end) {
  return end - from < Vec::kWidth ? static_cast<int>(end - from) : Vec::kWidth;
}

// The first `count` <= kWidth lanes; the others are 0, and not read or written.
inline Vec load_lanes(const float* from, int count) {
  return count == Vec::kWidth ? load(from) : load_partial(from, count);
}
inline void store_lanes(float* to, Vec a, int count) {
  if (count == Vec::kWidth) {
    store(to, a);
  } else {
    store_partial(to, a, count);
  }
}

// A matrix as the tile kernels read it: rows of contiguous elements.
template <class Element>
struct ElementRows {
  const Element* data;
  std::int64_t stride;  // elements from row to row
};
using FloatRows = ElementRows<float>;

template <class Read>
inline void copy_row(const char* from, std::int64_t stride, std::int64_t width, const Read& read,
                     float* to) {
  for (std::int64_t column = 0; column < width; column += Vec::kWidth) {
    const int count = lanes_left(column, width);
    const Vec values = read(from + column * stride, count);
    if (count == Vec::kWidth) {
      store(to + column, values);
    } else {
      store_partial(to + column, values, count);
    }
  }
}

// Rows [first, first + count): where they lie, or copied to `copy` (count × padded width floats).
__attribute__((noinline)) inline FloatRows float_rows(const Matrix& matrix, std::int64_t first,
                                                      std::int64_t count, std::int64_t width,
                                                      float* copy) {
  const char* from = matrix.data + first * matrix.row_stride;
  if (reads_in_place(matrix)) {
    return {reinterpret_cast<const float*>(from), matrix.row_stride / 4};
  }
  const std::int64_t stride = padded_floats(width);
  with_reader(matrix.dtype, matrix.column_stride, [&](const auto& read) {
    for (std::int64_t row = 0; row < count; ++row) {
      copy_row(from + row * matrix.row_stride, matrix.column_stride, width, read,
               copy + row * stride);
    }
  });
  return {copy, stride};
}

// Whether the matrix lies as rows of contiguous, aligned elements of that type.
template <class Element>
inline bool lies_in_rows(const Matrix& matrix) {
  constexpr std::int64_t kSize = sizeof(Element);
  return matrix.dtype == element_dtype(Element{}) && matrix.column_stride == kSize &&
         matrix.row_stride % kSize == 0 &&
         reinterpret_cast<std::uintptr_t>(matrix.data) % sizeof(Element) == 0;
}

// Whether any element is an infinity or a NaN: x · 0 is 0 for every other.
template <class Element>
inline bool has_nonfinite(ElementRows<Element> rows, std::int64_t row_count, std::int64_t width) {
  Vec sum = zero();
  for (std::int64_t row = 0; row < row_count; ++row) {
    const Element* from = rows.data + row * rows.stride;
    for (std::int64_t column = 0; column < width; column += Vec::kWidth) {
      const int count = lanes_left(column, width);
      const Vec values =
          count == Vec::kWidth ? load(from + column) : load_partial(from + column, count);
      sum = fma(values, zero(), sum);
    }
  }
  const float total = reduce_add(sum);
  return total != total;
}

}  // namespace
}  // namespace numattn
