// What C callers give, as the core takes it. Refused here is what is no View, or no such structure;
// every rule about what fits together is that of api/check_*.cpp.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>

#include "numattn.h"
#include "numattn/small_array.h"
#include "numattn/view.h"
#include "outcome.h"

namespace numattn::c {

// Whether it is given at all.
inline bool given(const numattn_tensor& tensor) { return tensor.rank != 0; }

// Of an array that must be given.
View view_of(const numattn_tensor& tensor, const char* name);
std::optional<View> optional_view(const numattn_tensor& tensor, const char* name);

// Likewise, and contiguous float32.
std::optional<View> optional_floats(const numattn_tensor& tensor, const char* name);
std::optional<FloatArray> float_array(const numattn_tensor& tensor, const char* name);

IntArray int_array(const numattn_ints& numbers, const char* name);

// One of `names`, by its number: std::invalid_argument for any other.
const char* choice(int32_t number, const char* name, const char* const* names, int count);
template <int Count>
const char* choice(int32_t number, const char* name, const char* const (&names)[Count]) {
  return choice(number, name, names, Count);
}
std::string layout_name(int32_t layout);
std::string precision_name(int32_t precision);

// Whether `size` bytes of `bytes` from `known` on are all 0.
bool is_zero(const void* bytes, std::size_t known, std::size_t size);

// The structure of a caller that may know a smaller or a larger one than this library; what it does
// not know is zero, and what this library does not know must be. `first_size` is what the structure
// had when it was first published.
template <class Args>
Args args_of(const Args* args, std::size_t first_size) {
  if (args == nullptr) refuse("args", "must not be NULL");
  const std::size_t size = args->struct_size;
  if (size < first_size) {
    refuse("struct_size", "must be the size of the structure, at least " +
                              std::to_string(first_size) + ", not " + std::to_string(size));
  }
  if (size > sizeof(Args) && !is_zero(args, sizeof(Args), size)) {
    refuse("args", "asks for what this version of numattn does not know: its structure has " +
                       std::to_string(size) + " bytes, here " + std::to_string(sizeof(Args)));
  }
  Args known{};
  std::memcpy(&known, args, size < sizeof(Args) ? size : sizeof(Args));
  return known;
}

}  // namespace numattn::c
