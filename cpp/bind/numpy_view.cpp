#include "numpy_view.h"

#include <atomic>

#include "numattn/dtype_names.h"

namespace numattn::bind {
namespace {

constexpr int kNumpyFloat64 = 12;

// NumPy's number of each dtype, learned when an array of that name is first seen: types of other
// packages, as ml_dtypes' bfloat16, get theirs as they are registered, for as long as the process
// lives. No type has the number -1.
struct TypeNumbers {
  std::atomic<int> of[kDTypeCount];

  TypeNumbers() {
    for (std::atomic<int>& number : of) number.store(-1, std::memory_order_relaxed);
  }
};
TypeNumbers type_numbers;

// What numattn._tensors calls bfloat16 where ml_dtypes, whose name it has, is not installed.
constexpr const char* kBFloat16Record = "[('bfloat16', '<u2')]";

constexpr char kNativeOrder = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? '<' : '>';

// The object itself as a contiguous array of T: a conversion would leave its caller a dead pointer.
template <class T>
py::array_t<T, py::array::c_style> exact(const py::object& object) {
  if (!py::array_t<T, py::array::c_style>::check_(object)) {
    throw DTypeError("a contiguous array of the exact type was expected here");
  }
  return py::reinterpret_borrow<py::array_t<T, py::array::c_style>>(object);
}

}  // namespace

void load_numpy() { py::dtype::of<float>(); }

DType dtype_of(const py::array& array, const std::string& name) {
  const py::dtype dtype = array.dtype();
  const char order = dtype.byteorder();
  const bool native = order == '=' || order == '|' || order == kNativeOrder;
  const int number = dtype.num();
  // A mask of floats passes here, and the check of masks advises a bias; one of integers is to be
  // cast.
  const auto accepted = [&](DType known) {
    return name != "mask" || dtype_role(known) != Role::kScaled;
  };
  if (native) {
    for (int i = 0; i < kDTypeCount; ++i) {
      const auto known = static_cast<DType>(i);
      if (type_numbers.of[i].load(std::memory_order_relaxed) == number && accepted(known)) {
        return known;
      }
    }
  }
  const std::string text = py::str(static_cast<const py::object&>(dtype));
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto known = static_cast<DType>(i);
    if (text == dtype_name(known) && accepted(known)) {
      type_numbers.of[i].store(number, std::memory_order_relaxed);
      return known;
    }
  }
  if (text == kBFloat16Record && accepted(DType::kBFloat16)) return DType::kBFloat16;
  if (name == "mask") {
    throw DTypeError("mask has dtype " + text + "; it must be bool: cast it with .astype(bool)");
  }
  if (!native) {
    throw DTypeError(name + " has the byte-swapped dtype " + text + "; it must be " +
                     dtype_names(Role::kNumber) +
                     " in native byte order: convert it with .astype(" + name +
                     ".dtype.newbyteorder('='))");
  }
  if (number == kNumpyFloat64) {
    throw DTypeError(name +
                     " is float64, which is never cast silently: cast it with .astype(np.float32)");
  }
  throw DTypeError(name + " has dtype " + text + "; it must be " + dtype_names(Role::kNumber) +
                   ": cast it with .astype(np.float32)");
}

py::array as_array(const py::object& object) {
  if (py::isinstance<py::array>(object)) return py::reinterpret_borrow<py::array>(object);
  return py::array::ensure(object) ? py::array(object)
                                   : throw DTypeError("an array was expected, not " +
                                                      std::string(py::str(py::type::of(object))));
}

View view_of(const py::array& array, const std::string& name) {
  View view;
  view.dtype = dtype_of(array, name);
  if (array.ndim() > 4) {
    throw std::invalid_argument(name + " has " + std::to_string(array.ndim()) +
                                " dimensions; at most 4 have a meaning");
  }
  view.data = const_cast<void*>(array.data());
  view.rank = static_cast<int>(array.ndim());
  view.writable = array.writeable();
  for (int axis = 0; axis < view.rank; ++axis) {
    view.shape[static_cast<std::size_t>(axis)] = array.shape(axis);
    view.strides[static_cast<std::size_t>(axis)] = array.strides(axis);
  }
  return view;
}

View output_view(const py::array& array, const std::string& name) {
  try {
    return view_of(array, name);
  } catch (const DTypeError& error) {
    throw std::invalid_argument(error.what());
  }
}

std::optional<View> optional_view(const py::object& object, const std::string& name,
                                  py::array& owner) {
  if (object.is_none()) return std::nullopt;
  owner = as_array(object);
  return view_of(owner, name);
}

std::optional<View> known_view(const py::object& object, const char* name) {
  if (object.is_none()) return std::nullopt;
  return view_of(py::reinterpret_borrow<py::array>(object), name);
}

std::optional<FloatArray> float_array(const py::object& object) {
  if (object.is_none()) return std::nullopt;
  const auto array = exact<float>(object);
  FloatArray result;
  result.data = array.data();
  result.rank = static_cast<int>(array.ndim());
  for (int axis = 0; axis < result.rank && axis < 3; ++axis) {
    result.shape[static_cast<std::size_t>(axis)] = array.shape(axis);
  }
  return result;
}

std::optional<IntArray> int_array(const py::object& object) {
  if (object.is_none()) return std::nullopt;
  const auto array = exact<std::int64_t>(object);
  return IntArray{array.data(), array.size()};
}

WideChannels wide_channels(const py::object& object) {
  if (object.is_none()) return {};
  const auto array = py::reinterpret_borrow<py::array>(object);
  return {*int_array(object), array.shape(0), array.shape(1)};
}

PageTable page_table(const py::object& object) {
  if (object.is_none()) return {};
  const auto array = py::reinterpret_borrow<py::array>(object);
  return {int_array(object)->data, array.shape(0), array.shape(1)};
}

py::array output_or_new(const py::object& out, const py::array& model,
                        const std::vector<std::int64_t>& shape) {
  if (!out.is_none()) return py::reinterpret_borrow<py::array>(out);
  return empty_array(model.dtype(), shape);
}

py::array empty_float32(const std::vector<std::int64_t>& shape) {
  return empty_array(py::dtype::of<float>(), shape);
}

py::array empty_array(const py::dtype& dtype, const std::vector<std::int64_t>& shape) {
  constexpr std::int64_t kLine = 64;
  std::int64_t bytes = dtype.itemsize();
  bool fits = true;
  for (const std::int64_t size : shape) fits = fits && !__builtin_mul_overflow(bytes, size, &bytes);
  fits = fits && !__builtin_add_overflow(bytes, kLine, &bytes);
  if (!fits) return py::array(dtype, shape);  // NumPy has words for it
  py::array_t<std::uint8_t> memory(bytes);
  std::uint8_t* start = memory.mutable_data();
  start += (kLine - reinterpret_cast<std::uintptr_t>(start) % kLine) % kLine;
  return py::array(dtype, shape, start, memory);
}

}  // namespace numattn::bind
