// Reading and writing rows of any element type as float32 vectors.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace numattn {
namespace {

inline float read_element(const char* from, DType dtype) {
  if (dtype == DType::kFloat32) {
    float value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
  }
  if (dtype == DType::kBool) return *from != 0 ? 1.0f : 0.0f;
  if (dtype == DType::kInt8) return static_cast<float>(static_cast<signed char>(*from));
  std::uint16_t bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return dtype == DType::kFloat16 ? float_from_float16(bits) : float_from_bfloat16(bits);
}

inline void write_element(char* to, DType dtype, float value) {
  if (dtype == DType::kFloat32) {
    __builtin_memcpy(to, &value, sizeof value);
    return;
  }
  const std::uint16_t bits =
      dtype == DType::kFloat16 ? float16_from_float(value) : bfloat16_from_float(value);
  __builtin_memcpy(to, &bits, sizeof bits);
}

// kWidth contiguous elements.
inline Vec read_vector(const char* from, DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return load(reinterpret_cast<const float*>(from));
    case DType::kFloat16: return load_float16(reinterpret_cast<const std::uint16_t*>(from));
    case DType::kBFloat16: return load_bfloat16(reinterpret_cast<const std::uint16_t*>(from));
    case DType::kInt8: return load_int8(reinterpret_cast<const std::int8_t*>(from));
    case DType::kBool: break;
  }
  return load_bool(reinterpret_cast<const std::uint8_t*>(from));
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
  const auto whole_or = [&](const auto& load_vector) {
    call([&](const char* from, int count) {
      return count == Vec::kWidth ? load_vector(from) : any_elements(from, count);
    });
  };
  if (stride == 2 && dtype == DType::kBFloat16) {
    whole_or([](const char* from) { return read_vector(from, DType::kBFloat16); });
  } else if (stride == 2 && dtype == DType::kFloat16) {
    whole_or([](const char* from) { return read_vector(from, DType::kFloat16); });
  } else if (stride == 1 && dtype == DType::kInt8) {
    whole_or([](const char* from) { return read_vector(from, DType::kInt8); });
  } else if (stride == 4 && dtype == DType::kFloat32) {
    whole_or([](const char* from) { return read_vector(from, DType::kFloat32); });
  } else {
    call(any_elements);
  }
}

// Writes the first `count` <= kWidth lanes as contiguous elements.
inline void write_elements(char* to, DType dtype, Vec a, int count) {
  if (count == Vec::kWidth) {
    switch (dtype) {
      case DType::kFloat32: store(reinterpret_cast<float*>(to), a); return;
      case DType::kFloat16: store_float16(reinterpret_cast<std::uint16_t*>(to), a); return;
      case DType::kBFloat16: store_bfloat16(reinterpret_cast<std::uint16_t*>(to), a); return;
      case DType::kBool:
      case DType::kInt8: return;  // no result has these types
    }
  }
  if (dtype == DType::kFloat32) {
    store_partial(reinterpret_cast<float*>(to), a, count);
    return;
  }
  float values[Vec::kWidth];
  store(values, a);
  for (int i = 0; i < count; ++i) write_element(to + i * dtype_size(dtype), dtype, values[i]);
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

// One vector of elements, by their type.
inline Vec load(const Float16* from) { return load_float16(&from->bits); }
inline Vec load(const BFloat16* from) { return load_bfloat16(&from->bits); }
inline Vec load(const Int8* from) { return load_int8(&from->number); }

// The first `count` lanes; the others are 0 and not read.
template <class Element>
inline Vec load_partial(const Element* from, int count) {
  Element elements[Vec::kWidth] = {};
  for (int i = 0; i < count; ++i) elements[i] = from[i];
  return load(elements);
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
inline FloatRows float_rows(const Matrix& matrix, std::int64_t first, std::int64_t count,
                            std::int64_t width, float* copy) {
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
inline bool lies_in_rows(const Matrix& matrix, DType dtype) {
  constexpr std::int64_t kSize = sizeof(Element);
  return matrix.dtype == dtype && matrix.column_stride == kSize && matrix.row_stride % kSize == 0 &&
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
