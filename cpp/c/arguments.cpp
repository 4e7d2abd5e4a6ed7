#include "arguments.h"

#include <algorithm>
#include <array>

namespace numattn::c {
namespace {

constexpr int kMaximalRank = 4;

// The numbers of numattn.h are those of the list, in its order.
static_assert(static_cast<int>(DType::kFloat32) == NUMATTN_FLOAT32);
static_assert(static_cast<int>(DType::kFloat16) == NUMATTN_FLOAT16);
static_assert(static_cast<int>(DType::kBFloat16) == NUMATTN_BFLOAT16);
static_assert(static_cast<int>(DType::kBool) == NUMATTN_BOOL);
static_assert(static_cast<int>(DType::kInt8) == NUMATTN_INT8);
static_assert(kDTypeCount == 5, "numattn.h lists all dtypes");

bool is_empty(const View& view) {
  return std::any_of(view.shape.begin(), view.shape.begin() + view.rank,
                     [](std::int64_t length) { return length == 0; });
}

bool is_contiguous(const View& view) {
  std::int64_t stride = view.item_size();
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    const auto at = static_cast<std::size_t>(axis);
    if (view.shape[at] > 1 && view.strides[at] != stride) return false;
    stride *= view.shape[at];
  }
  return true;
}

}  // namespace

View view_of(const numattn_tensor& tensor, const char* name) {
  if (tensor.rank == 0) refuse(name, "must be given: its rank is 0");
  if (tensor.rank < 0 || tensor.rank > kMaximalRank) {
    refuse(name, "must have 1 to 4 dimensions, not " + std::to_string(tensor.rank));
  }
  if (tensor.dtype < 0 || tensor.dtype >= kDTypeCount) {
    refuse(name, "has the unknown dtype " + std::to_string(tensor.dtype));
  }
  View view;
  view.data = tensor.data;
  view.dtype = static_cast<DType>(tensor.dtype);
  view.rank = tensor.rank;
  view.writable = true;
  for (int axis = 0; axis < view.rank; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    if (tensor.shape[at] < 0) {
      refuse(name, "has the negative length " + std::to_string(tensor.shape[at]));
    }
    view.shape[at] = tensor.shape[at];
    view.strides[at] = tensor.strides[at];
  }
  if (view.data == nullptr && !is_empty(view)) refuse(name, "has no data: it is NULL");
  return view;
}

std::optional<View> optional_view(const numattn_tensor& tensor, const char* name) {
  if (!given(tensor)) return std::nullopt;
  return view_of(tensor, name);
}

std::optional<View> optional_floats(const numattn_tensor& tensor, const char* name) {
  const std::optional<View> view = optional_view(tensor, name);
  if (!view) return view;
  if (view->dtype != DType::kFloat32) {
    refuse(name, std::string("must be float32, not ") + dtype_name(view->dtype));
  }
  if (!is_contiguous(*view)) refuse(name, "must be contiguous");
  return view;
}

std::optional<FloatArray> float_array(const numattn_tensor& tensor, const char* name) {
  const std::optional<View> view = optional_floats(tensor, name);
  if (!view) return std::nullopt;
  if (view->rank > 3) refuse(name, "must have 1 to 3 dimensions, not 4");
  FloatArray array;
  array.data = static_cast<const float*>(view->data);
  array.rank = view->rank;
  std::copy(view->shape.begin(), view->shape.begin() + view->rank, array.shape.begin());
  return array;
}

IntArray int_array(const numattn_ints& numbers, const char* name) {
  if (numbers.count < 0) {
    refuse(name, "has the negative count " + std::to_string(numbers.count));
  }
  if (numbers.data == nullptr && numbers.count > 0) refuse(name, "has no data: it is NULL");
  return {numbers.data, numbers.count};
}

const char* choice(int32_t number, const char* name, const char* const* names, int count) {
  if (number < 0 || number >= count) {
    refuse(name, "must be 0 to " + std::to_string(count - 1) + ", not " + std::to_string(number));
  }
  return names[number];
}

std::string layout_name(int32_t layout) {
  static constexpr const char* kNames[] = {"bhsd", "bshd"};
  return choice(layout, "layout", kNames);
}

std::string precision_name(int32_t precision) {
  static constexpr const char* kNames[] = {"highest", "high"};
  return choice(precision, "precision", kNames);
}

bool is_zero(const void* bytes, std::size_t known, std::size_t size) {
  const char* first = static_cast<const char*>(bytes);
  return std::all_of(first + known, first + size, [](char byte) { return byte == 0; });
}

}  // namespace numattn::c

extern "C" numattn_tensor numattn_contiguous(const void* data, int32_t dtype, int32_t rank,
                                             const int64_t* shape) {
  numattn_tensor tensor{};
  tensor.data = const_cast<void*>(data);
  tensor.dtype = dtype;
  tensor.rank = rank > 0 && rank <= 4 ? rank : -1;
  // An unknown dtype is refused by calls, whatever the strides.
  const bool known = dtype >= 0 && dtype < numattn::kDTypeCount;
  std::uint64_t stride =
      known ? static_cast<std::uint64_t>(numattn::dtype_size(static_cast<numattn::DType>(dtype)))
            : 0;
  for (int axis = tensor.rank - 1; axis >= 0; --axis) {
    tensor.shape[axis] = shape[axis];
    tensor.strides[axis] = static_cast<int64_t>(stride);
    stride *= static_cast<std::uint64_t>(shape[axis] > 0 ? shape[axis] : 1);  // calls check sizes
  }
  return tensor;
}
