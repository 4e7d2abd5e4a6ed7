// Tensors of other libraries as arrays over the same memory, and arrays as their tensors: the one
// place that reads and makes what DLPack describes. bfloat16, which NumPy itself does not know, is
// of the dtype that numattn._tensors says.
//
// A library whose types offer the exchange in C is asked for it. For all others numattn._tensors
// has a capsule made, and it has the words for what cannot be read.
#include <pybind11/gil_safe_call_once.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dlpack.h"
#include "numpy_view.h"

namespace numattn::bind {
namespace {

constexpr const char* kPythonPart = "numattn._tensors";

// --- tensors as arrays ---------------------------------------------------------------------------

template <class Owner>
void give_up(void* managed) {
  auto* const owner = static_cast<Owner*>(managed);
  if (owner->deleter != nullptr) owner->deleter(owner);
}

// What an object's type has under a name, or none.
py::object of_type(py::handle object, PyObject* name) {
  PyObject* const found =
      PyObject_GetAttr(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())), name);
  if (found == nullptr) PyErr_Clear();
  return py::reinterpret_steal<py::object>(found);
}

// Whether another library's array, which says by DLPack where its numbers are.
bool is_tensor(py::handle object) {
  static PyObject* const name = PyUnicode_InternFromString("__dlpack__");
  return !py::isinstance<py::array>(object) && of_type(object, name);
}

const dlpack::ExchangeApi* exchange_api(py::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  const py::object capsule = of_type(tensor, name);
  if (!capsule) return nullptr;
  PyObject* const found = capsule.ptr();
  const void* api = nullptr;
  if (PyCapsule_IsValid(found, dlpack::kExchangeApi) != 0) {
    api = PyCapsule_GetPointer(found, dlpack::kExchangeApi);
  }
  for (auto* known = static_cast<const dlpack::ExchangeApi*>(api); known != nullptr;
       known = known->previous) {
    if (known->version.major == dlpack::kMajor && known->from_object_unowned != nullptr) {
      return known;
    }
  }
  return nullptr;
}

// The dtype of arrays of bfloat16, asked for once.
const py::object& bfloat16() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
  return storage
      .call_once_and_store_result(
          [] { return py::object(py::module_::import(kPythonPart).attr("bfloat16")()); })
      .get_stored();
}

// The dtype of a tensor's elements; none where NumPy has no such.
std::optional<py::dtype> numpy_dtype(dlpack::DataType type) {
  const char* kind = nullptr;
  switch (type.code) {
    case dlpack::kInt: kind = "i"; break;
    case dlpack::kUInt: kind = "u"; break;
    case dlpack::kFloat: kind = "f"; break;
    case dlpack::kComplex: kind = "c"; break;
    case dlpack::kBool: kind = "b"; break;
    case dlpack::kBfloat: break;
    default: return std::nullopt;
  }
  if (type.lanes != 1 || type.bits < 8 || type.bits % 8 != 0) return std::nullopt;
  if (type.code == dlpack::kFloat && type.bits == 32)
    return py::dtype::of<float>();  // told quickly
  if (type.code == dlpack::kBfloat) {
    if (type.bits != 16) return std::nullopt;
    return py::reinterpret_borrow<py::dtype>(bfloat16());
  }
  return py::dtype(kind + std::to_string(type.bits / 8));
}

// An array over a tensor's memory; none where this machine's processor or NumPy cannot read it.
std::optional<py::array> array_over(const dlpack::Tensor& tensor, const py::object& owner,
                                    bool writable) {
  const bool readable = tensor.device.type == dlpack::kCpu ||
                        tensor.device.type == dlpack::kCudaHost ||
                        tensor.device.type == dlpack::kRocmHost;
  if (!readable) return std::nullopt;
  const std::optional<py::dtype> dtype = numpy_dtype(tensor.dtype);
  if (!dtype) return std::nullopt;
  const auto rank = static_cast<std::size_t>(tensor.rank);
  std::vector<py::ssize_t> shape(tensor.shape, tensor.shape + rank), strides(rank);
  py::ssize_t stride = dtype->itemsize();
  bool empty = false;
  for (std::size_t axis = rank; axis-- > 0;) {
    empty = empty || shape[axis] == 0;
    strides[axis] = tensor.strides == nullptr ? stride : tensor.strides[axis] * dtype->itemsize();
    stride *= shape[axis];
  }
  if (tensor.data == nullptr && !empty) return std::nullopt;  // it has no memory
  static char nothing[64];
  char* const data =
      tensor.data == nullptr ? nothing : static_cast<char*>(tensor.data) + tensor.byte_offset;
  py::array array(*dtype, std::move(shape), std::move(strides), data, owner);
  if (!writable) array.attr("setflags")(py::arg("write") = false);
  return array;
}

// Whether a tensor's numbers may be those in memory with their signs turned, of which DLPack says
// nothing: torch's imaginary parts of conjugates are, views of which have even strides alone. To
// ask each tensor takes a tenth of a microsecond, and torch lets the interpreter's lock go for it.
bool may_be_negated(const dlpack::Tensor& tensor) {
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.strides == nullptr) return false;
    if (tensor.shape[axis] > 1 && tensor.strides[axis] % 2 != 0) return false;
  }
  return true;
}

bool is_negated(py::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  PyObject* const answer = PyObject_CallMethodNoArgs(tensor.ptr(), name);
  if (answer == nullptr) {
    PyErr_Clear();
    return false;
  }
  Py_DECREF(answer);
  return answer == Py_True;
}

// By the exchange in C; none where that will not do. The array holds the tensor, and whoever sets
// another memory for a tensor takes this from it: so what is kept beyond a call is copied.
std::optional<py::array> exchanged(const dlpack::ExchangeApi& api, py::handle tensor) {
  dlpack::Tensor told{};
  if (api.from_object_unowned(tensor.ptr(), &told) != 0) {
    PyErr_Clear();
    return std::nullopt;
  }
  if (may_be_negated(told) && is_negated(tensor)) return std::nullopt;
  return array_over(told, py::reinterpret_borrow<py::object>(tensor), true);
}

bool may_write(const dlpack::VersionedManaged& managed) {
  return (managed.flags & (dlpack::kReadOnly | dlpack::kIsCopied)) == 0;
}

// A capsule's tensor, whose memory is the array's to give up from now on.
std::optional<py::array> unpacked(const py::capsule& capsule, bool writable) {
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::kVersionedCapsule) != 0) {
    auto* const managed = static_cast<dlpack::VersionedManaged*>(
        PyCapsule_GetPointer(capsule.ptr(), dlpack::kVersionedCapsule));
    if (managed->version.major != dlpack::kMajor) return std::nullopt;
    PyCapsule_SetName(capsule.ptr(), dlpack::kUsedVersionedCapsule);
    const py::capsule owner(managed, &give_up<dlpack::VersionedManaged>);
    return array_over(managed->tensor, owner, may_write(*managed));
  }
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::kCapsule) == 0) return std::nullopt;
  auto* const managed =
      static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
  PyCapsule_SetName(capsule.ptr(), dlpack::kUsedCapsule);
  const py::capsule owner(managed, &give_up<dlpack::Managed>);
  return array_over(managed->tensor, owner, writable);
}

// What callers give most, if not an array: told quickly, since to look for what a type has not
// takes half a microsecond.
bool is_plain(py::handle object) {
  PyObject* const given = object.ptr();
  return PyLong_Check(given) || PyFloat_Check(given) || PyList_Check(given) || PyTuple_Check(given);
}

// An array over a tensor's memory; None for what is no tensor.
py::object array_of(py::handle tensor, py::handle name) {
  if (is_plain(tensor)) return py::none();
  const dlpack::ExchangeApi* const api = exchange_api(tensor);
  if (api != nullptr) {
    if (const std::optional<py::array> array = exchanged(*api, tensor)) return *array;
  }
  if (api == nullptr && !is_tensor(tensor)) return py::none();
  return py::module_::import(kPythonPart).attr("array_of")(tensor, name);
}

py::object array_of_capsule(const py::capsule& capsule, bool writable) {
  const std::optional<py::array> array = unpacked(capsule, writable);
  return array ? py::object(*array) : py::none();
}

// --- arrays as tensors ---------------------------------------------------------------------------

// What a tensor over an array's memory holds for as long as it lives.
template <class Owner>
struct Lent {
  Owner managed{};
  std::vector<std::int64_t> sizes;
  py::object array;
};

// Whoever has the tensor may give it up without the interpreter's lock, or after its end.
template <class Owner>
void take_back(Owner* managed) {
  if (Py_IsInitialized() == 0) return;
  const PyGILState_STATE before = PyGILState_Ensure();
  delete static_cast<Lent<Owner>*>(managed->context);
  PyGILState_Release(before);
}

dlpack::DataType data_type(const py::array& array) {
  const char kind = array.dtype().kind();
  const auto bits = static_cast<std::uint8_t>(array.itemsize() * 8);
  const auto code = kind == 'f'   ? dlpack::kFloat
                    : kind == 'i' ? dlpack::kInt
                    : kind == 'u' ? dlpack::kUInt
                    : kind == 'b' ? dlpack::kBool
                    : kind == 'c' ? dlpack::kComplex
                                  : dlpack::kBfloat;  // of dtypes, results have this one besides
  return {code, bits, 1};
}

template <class Owner>
std::unique_ptr<Lent<Owner>> lent(const py::array& array) {
  auto lent = std::make_unique<Lent<Owner>>();
  const py::ssize_t rank = array.ndim();
  lent->sizes.reserve(static_cast<std::size_t>(2 * rank));
  for (py::ssize_t axis = 0; axis < rank; ++axis) lent->sizes.push_back(array.shape(axis));
  for (py::ssize_t axis = 0; axis < rank; ++axis) {
    lent->sizes.push_back(array.strides(axis) / array.itemsize());
  }
  lent->array = array;
  lent->managed.context = lent.get();
  lent->managed.deleter = &take_back<Owner>;
  lent->managed.tensor = {const_cast<void*>(array.data()),
                          {dlpack::kCpu, 0},
                          static_cast<std::int32_t>(rank),
                          data_type(array),
                          lent->sizes.data(),
                          lent->sizes.data() + rank,
                          0};
  return lent;
}

// An array as a tensor of the model's library; the array itself where the model is no tensor.
py::object tensor_of(py::handle result, py::handle model) {
  const auto array = py::reinterpret_borrow<py::array>(result);
  if (is_plain(model)) return array;
  const dlpack::ExchangeApi* const api = exchange_api(model);
  if (api == nullptr && !is_tensor(model)) return array;
  if (api == nullptr) return py::module_::import(kPythonPart).attr("tensor_of")(array, model);
  auto owner = lent<dlpack::VersionedManaged>(array);
  owner->managed.version = {dlpack::kMajor, 0};
  void* tensor = nullptr;
  if (api->to_object(&owner->managed, &tensor) != 0) throw py::error_already_set();
  static_cast<void>(owner.release());  // the tensor's now
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(tensor));
}

// A capsule that nobody took up gives the array up itself.
void give_up_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, dlpack::kCapsule) == 0) return;
  give_up<dlpack::Managed>(PyCapsule_GetPointer(capsule, dlpack::kCapsule));
}

py::object capsule_of(const py::array& array) {
  auto owner = lent<dlpack::Managed>(array);
  PyObject* const capsule = PyCapsule_New(&owner->managed, dlpack::kCapsule, &give_up_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  static_cast<void>(owner.release());
  return py::reinterpret_steal<py::object>(capsule);
}

// --- the two that every call with tensors makes, several times: not by way of pybind11's search
// for an overload, which takes as long as they do

template <py::object (*function)(py::handle, py::handle)>
PyObject* called(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "two arguments are expected here");
    return nullptr;
  }
  try {
    return function(arguments[0], arguments[1]).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  }
  return nullptr;
}

template <py::object (*function)(py::handle, py::handle)>
void define(py::module_& module, const char* name) {
  static PyMethodDef method{
      name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&called<function>)),
      METH_FASTCALL, nullptr};
  module.attr(name) = py::reinterpret_steal<py::object>(PyCFunction_New(&method, nullptr));
}

}  // namespace

void bind_tensors(py::module_& module) {
  define<&array_of>(module, "array_of");
  define<&tensor_of>(module, "tensor_of");
  module.def("array_of_capsule", &array_of_capsule);
  module.def("capsule_of", &capsule_of);
}

}  // namespace numattn::bind
