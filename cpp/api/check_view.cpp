#include "check_view.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "numattn/attention.h"

namespace numattn {
namespace {

bool has_zero_stride(const View& view) {
  for (int axis = 0; axis < view.rank; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    if (view.shape[at] > 1 && view.strides[at] == 0) return true;
  }
  return false;
}

}  // namespace

std::string number(std::int64_t value) { return std::to_string(value); }

std::string real_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string shape_text(const View& view) {
  std::string text = "(";
  for (int axis = 0; axis < view.rank; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(view.shape[static_cast<std::size_t>(axis)]);
  }
  return text + (view.rank == 1 ? ",)" : ")");
}

std::string shape_text(const FloatArray& array) {
  View view;
  view.rank = array.rank;
  std::copy(array.shape.begin(), array.shape.end(), view.shape.begin());
  return shape_text(view);
}

std::int64_t checked_product(std::int64_t a, std::int64_t b, const char* what) {
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    refuse(what, " is too large: its size exceeds 64 bits");
  }
  return product;
}

void check_rank(const View& view, const char* name, int rank, const char* axes) {
  if (view.rank == rank) return;
  refuse(name, " must have ", number(rank), " dimensions ", axes, ", not shape ", shape_text(view));
}

void check_floating(const View& view, const char* name) {
  if (view.dtype != DType::kBool && view.dtype != DType::kInt8) return;
  throw DTypeError(std::string(name) + " has dtype " + dtype_name(view.dtype) +
                   "; it must be float32, float16 or bfloat16: cast it with .astype(np.float32)");
}

void check_bytes(const View& view, const char* name) {
  std::int64_t bytes = view.item_size();
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.shape[static_cast<std::size_t>(axis)] == 0) return;
  }
  for (int axis = 0; axis < view.rank; ++axis) {
    bytes = checked_product(bytes, view.shape[static_cast<std::size_t>(axis)], name);
  }
}

void check_writable(const View& output, const char* name) {
  if (!output.writable) refuse(name, " is read-only");
  for (int axis = 0; axis < output.rank; ++axis) {
    if (output.shape[static_cast<std::size_t>(axis)] == 0) return;  // nothing will be written
  }
  const auto last = static_cast<std::size_t>(output.rank - 1);
  if (output.shape[last] > 1 && output.strides[last] != output.item_size()) {
    refuse(name, " must be contiguous along its last dimension; its strides there are ",
           number(output.strides[last]), " bytes");
  }
  if (has_zero_stride(output)) refuse(name, " must not be a broadcast array");
}

void check_same_shape(const View& view, const char* name, const std::array<std::int64_t, 4>& shape,
                      int rank) {
  View wanted;
  wanted.rank = rank;
  wanted.shape = shape;
  bool same = view.rank == rank;
  for (int axis = 0; same && axis < rank; ++axis) {
    same = view.shape[static_cast<std::size_t>(axis)] == shape[static_cast<std::size_t>(axis)];
  }
  if (!same) refuse(name, " must have shape ", shape_text(wanted), ", not ", shape_text(view));
}

void check_same_dtype(const View& view, const char* name, DType dtype, const char* owner) {
  if (view.dtype == dtype) return;
  refuse(name, " must have ", owner, "'s dtype ", dtype_name(dtype), ", not ",
         dtype_name(view.dtype));
}

void check_output(const View& output, const std::array<std::int64_t, 4>& shape, int rank,
                  DType dtype, const char* owner) {
  check_same_shape(output, "out", shape, rank);
  check_same_dtype(output, "out", dtype, owner);
  check_writable(output, "out");
}

View contiguous_view(const std::vector<std::int64_t>& shape, DType dtype, const char* name) {
  if (shape.size() > 4) {
    refuse(name, " must have 3 or 4 dimensions, not ",
           number(static_cast<std::int64_t>(shape.size())));
  }
  View view;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  std::int64_t stride = view.item_size();
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    if (shape[axis] < 0) refuse(name, " has the negative length ", number(shape[axis]));
    view.shape[axis] = shape[axis];
    view.strides[axis] = stride;
    stride = checked_product(stride, std::max<std::int64_t>(shape[axis], 1), name);
  }
  return view;
}

void check_num_threads(int num_threads) {
  if (num_threads < 0) refuse("num_threads must be at least 1, not ", number(num_threads));
}

}  // namespace numattn
