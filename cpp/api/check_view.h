// Rules about one array, whatever the function that it is given to; each throws what it names.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "numattn/small_array.h"
#include "numattn/view.h"

namespace numattn {

// std::invalid_argument of the joined parts.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::string message;
  for (const std::string& part : {std::string(parts)...}) message += part;
  throw std::invalid_argument(message);
}

std::string number(std::int64_t value);
std::string real_text(double value);

// "(2, 8, 128, 64)"
std::string shape_text(const View& view);
std::string shape_text(const FloatArray& array);

// a · b; std::invalid_argument where it exceeds 64 bits.
std::int64_t checked_product(std::int64_t a, std::int64_t b, const char* what);

// `axes` is how the message writes the dimensions wanted: "(B, S, H, D)".
void check_rank(const View& view, const char* name, int rank, const char* axes);

// float32, float16 or bfloat16; DTypeError for bool.
void check_floating(const View& view, const char* name);

// An array of that shape and type, dense, fits 64 bits.
void check_bytes(const View& view, const char* name);

// Results: writable element by element, the last dimension contiguous.
void check_writable(const View& output, const char* name);

void check_same_shape(const View& view, const char* name, const std::array<std::int64_t, 4>& shape,
                      int rank);

// `owner` is whose type it should be: "q".
void check_same_dtype(const View& view, const char* name, DType dtype, const char* owner);

// A result "out" of that shape, in the dtype of `owner`, that can be written.
void check_output(const View& output, const std::array<std::int64_t, 4>& shape, int rank,
                  DType dtype, const char* owner);

// A thread limit: 0 is none.
void check_num_threads(int num_threads);

}  // namespace numattn
