#include "heads.h"

#include <cstring>

#include "numattn/dtype.h"

namespace numattn::onnxruntime {
namespace {

float from_float(float value, float) { return value; }
Float16 from_float(float value, Float16) { return {float16_from_float(value)}; }
BFloat16 from_float(float value, BFloat16) { return {bfloat16_from_float(value)}; }

// call(element) for an element of one of the types that attention has.
template <class Call>
void with_number(int type, const Call& call) {
  if (type == kFloat) return call(float{});
  if (type == kFloat16) return call(Float16{});
  return call(BFloat16{});
}

// The first token of a head, of all entries' heads by number.
char* head_of(const numattn_tensor& x, std::int64_t index) {
  const std::int64_t heads = x.shape[1];
  return static_cast<char*>(x.data) + index / heads * x.strides[0] + index % heads * x.strides[1];
}

}  // namespace

std::int32_t dtype_of(const Array& array, const char* name) {
  switch (array.type) {
    case kFloat: return NUMATTN_FLOAT32;
    case kFloat16: return NUMATTN_FLOAT16;
    case kBFloat16: return NUMATTN_BFLOAT16;
    case kBool: return NUMATTN_BOOL;
    default:
      refuse(std::string(name) + " must be bool, float, float16 or bfloat16, not ONNX's type " +
             std::to_string(array.type));
  }
}

std::int64_t element_size(const Array& array) {
  switch (array.type) {
    case kFloat:
    case kInt32: return 4;
    case kInt64: return 8;
    case kBool: return 1;
    default: return 2;
  }
}

numattn_tensor tensor_of(const Array& array, const char* name) {
  if (array.rank > 4) {
    refuse(std::string(name) + " must have at most 4 dimensions, not " + array.shape_text());
  }
  const std::int64_t one = 1;  // a number by itself has no dimension, which would be "not given"
  const std::int32_t dtype = dtype_of(array, name);
  if (array.rank == 0) return numattn_contiguous(array.data, dtype, 1, &one);
  return numattn_contiguous(array.data, dtype, array.rank, array.shape.data());
}

void check_rank(const Array& array, int rank, const char* name, const char* meaning) {
  if (array.given() && array.rank == rank) return;
  const std::string found = array.given() ? array.shape_text() : "an input that is not given";
  refuse(std::string(name) + " must be " + meaning + ", not " + found);
}

void check_shape(const Array& array, const std::vector<std::int64_t>& shape, const char* name) {
  Array wanted;
  for (const std::int64_t length : shape) {
    wanted.shape[static_cast<std::size_t>(wanted.rank++)] = length;
  }
  if (array.rank == wanted.rank && array.shape == wanted.shape) return;
  refuse(std::string(name) + " must have shape " + wanted.shape_text() + ", not " +
         array.shape_text());
}

numattn_tensor heads_of(const Array& array, std::int64_t heads, const char* name) {
  if (array.rank == 4) {
    if (heads != 0 && array.shape[1] != heads) {
      refuse(std::string(name) + " " + array.shape_text() + " has another number of heads than " +
             std::to_string(heads));
    }
    return tensor_of(array, name);
  }
  check_rank(array, 3, name, "(B, S, H·D) or (B, H, S, D)");
  if (heads < 1 || array.shape[2] % heads != 0) {
    refuse(std::string(name) + " " + array.shape_text() + " cannot be split into " +
           std::to_string(heads) + " heads");
  }
  return some_heads(array, 0, heads, array.shape[2] / heads);
}

numattn_tensor some_heads(const Array& array, std::int64_t first, std::int64_t count,
                          std::int64_t width) {
  const std::int64_t size = element_size(array);
  numattn_tensor heads{};
  heads.data = static_cast<char*>(array.data) + first * width * size;
  heads.dtype = dtype_of(array, "input");
  heads.rank = 4;
  const std::int64_t shape[] = {array.shape[0], count, array.shape[1], width};
  const std::int64_t row = array.shape[2] * size;
  const std::int64_t strides[] = {array.shape[1] * row, width * size, row, size};
  std::memcpy(heads.shape, shape, sizeof shape);
  std::memcpy(heads.strides, strides, sizeof strides);
  return heads;
}

numattn_tensor new_heads(void* data, std::int32_t dtype, std::int64_t batch, std::int64_t heads,
                         std::int64_t length, std::int64_t width) {
  const std::int64_t shape[] = {batch, heads, length, width};
  return numattn_contiguous(data, dtype, 4, shape);
}

numattn_tensor tokens_of(numattn_tensor heads, std::int64_t first, std::int64_t count) {
  heads.data = static_cast<char*>(heads.data) + first * heads.strides[2];
  heads.shape[2] = count;
  return heads;
}

numattn_tensor entry_of(numattn_tensor heads, std::int64_t batch) {
  heads.data = static_cast<char*>(heads.data) + batch * heads.strides[0];
  heads.shape[0] = 1;
  return heads;
}

std::vector<float> floats_of(const Array& array, const char* name) {
  dtype_of(array, name);
  std::vector<float> numbers(static_cast<std::size_t>(array.count()));
  with_number(array.type, [&](auto element) {
    const auto* elements = static_cast<const decltype(element)*>(array.data);
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = to_float(elements[i]);
  });
  return numbers;
}

void copy(Context& context, const numattn_tensor& from, const numattn_tensor& to) {
  const auto row = static_cast<std::size_t>(from.shape[3] * from.strides[3]);
  if (row == 0 || from.shape[2] == 0) return;
  context.each(from.shape[0] * from.shape[1], [&](std::int64_t index) {
    const char* source = head_of(from, index);
    char* target = head_of(to, index);
    for (std::int64_t token = 0; token < from.shape[2]; ++token) {
      std::memcpy(target + token * to.strides[2], source + token * from.strides[2], row);
    }
  });
}

void clear(Context& context, const numattn_tensor& tokens) {
  const auto row = static_cast<std::size_t>(tokens.shape[3] * tokens.strides[3]);
  if (row == 0 || tokens.shape[2] <= 0) return;
  context.each(tokens.shape[0] * tokens.shape[1], [&](std::int64_t index) {
    char* target = head_of(tokens, index);
    for (std::int64_t token = 0; token < tokens.shape[2]; ++token) {
      std::memset(target + token * tokens.strides[2], 0, row);
    }
  });
}

void add_bias(Context& context, const Array& x, const char* bias, void* out) {
  const auto width = static_cast<std::size_t>(x.shape[2]);
  with_number(x.type, [&](auto element) {
    using Element = decltype(element);
    const auto* terms = reinterpret_cast<const Element*>(bias);
    context.each(x.shape[0] * x.shape[1], [&](std::int64_t row) {
      const Element* source = static_cast<const Element*>(x.data) + row * x.shape[2];
      Element* target = static_cast<Element*>(out) + row * x.shape[2];
      for (std::size_t i = 0; i < width; ++i) {
        target[i] = from_float(to_float(source[i]) + to_float(terms[i]), element);
      }
    });
  });
}

}  // namespace numattn::onnxruntime
