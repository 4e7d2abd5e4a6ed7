#include "kernel.h"

#include <algorithm>

namespace numattn::onnxruntime {
namespace {

// The status that a call returned is gone afterwards.
bool succeeded(const OrtApi* api, OrtStatus* status) {
  if (status == nullptr) return true;
  call(api, kReleaseStatus, status);
  return false;
}

void check_status(numattn_status status) {
  if (status == NUMATTN_OK) return;
  if (status == NUMATTN_INVALID_ARGUMENT) refuse(numattn_last_error());
  throw std::runtime_error(numattn_last_error());
}

}  // namespace

void refuse(const std::string& what) { throw std::invalid_argument(what); }

std::int64_t Array::count() const {
  std::int64_t product = 1;
  for (int axis = 0; axis < rank; ++axis) product *= shape[static_cast<std::size_t>(axis)];
  return product;
}

std::string Array::shape_text() const {
  std::string text = "(";
  for (int axis = 0; axis < rank; ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(shape[static_cast<std::size_t>(axis)]);
  }
  return text + ")";
}

std::int64_t Info::integer(const char* name, std::int64_t otherwise) const {
  std::int64_t value = 0;
  return succeeded(api_, call(api_, kGetAttributeInt64, info_, name, &value)) ? value : otherwise;
}

float Info::number(const char* name, float otherwise) const {
  float value = 0;
  return succeeded(api_, call(api_, kGetAttributeFloat, info_, name, &value)) ? value : otherwise;
}

bool Info::has_number(const char* name) const {
  float value = 0;
  return succeeded(api_, call(api_, kGetAttributeFloat, info_, name, &value));
}

bool Info::has_output(std::size_t index) const {
  std::size_t count = 0;
  if (!succeeded(api_, call(api_, kInfoGetOutputCount, info_, &count)) || index >= count) {
    return false;
  }
  std::size_t size = 0;  // with the zero at the end
  call(api_, kReleaseStatus, call(api_, kInfoGetOutputName, info_, index, nullptr, &size));
  return size > 1;
}

void Info::refuse_integer(const char* name, std::int64_t harmless) const {
  const std::int64_t value = integer(name, harmless);
  if (value != harmless) {
    refuse(std::string(name) + " must be " + std::to_string(harmless) + ", not " +
           std::to_string(value) + ": what it asks for is not implemented");
  }
}

void Info::refuse_text(const char* name, const char* harmless) const {
  char text[32] = "";
  std::size_t size = sizeof text;
  if (!succeeded(api_, call(api_, kGetAttributeString, info_, name, text, &size))) return;
  if (std::string(text) != harmless) {
    refuse(std::string(name) + " must be '" + harmless + "', not '" + text + "'");
  }
}

void Info::refuse_output(std::size_t index, const char* name) const {
  if (has_output(index)) refuse(std::string("the output ") + name + " is not implemented");
}

Context::Context(const OrtApi* api, OrtKernelContext* context) : api_(api), context_(context) {
  check(call(api_, kGetInputCount, context_, &inputs_));
  check(call(api_, kGetOutputCount, context_, &outputs_));
}

void Context::check(OrtStatus* status) const {
  if (status == nullptr) return;
  const std::string words = call(api_, kGetErrorMessage, status);
  call(api_, kReleaseStatus, status);
  throw std::runtime_error(words);
}

Array Context::array_of(OrtValue* value) const {
  Array array;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(call(api_, kGetTensorTypeAndShape, value, &info));
  std::size_t rank = 0;
  const bool known = succeeded(api_, call(api_, kGetTensorElementType, info, &array.type)) &&
                     succeeded(api_, call(api_, kGetDimensionsCount, info, &rank)) &&
                     rank <= array.shape.size() &&
                     succeeded(api_, call(api_, kGetDimensions, info, array.shape.data(), rank));
  call(api_, kReleaseTensorTypeAndShapeInfo, info);
  if (!known) refuse("tensors must have at most 5 dimensions, not " + std::to_string(rank));
  array.rank = static_cast<int>(rank);
  check(call(api_, kGetTensorMutableData, value, &array.data));
  return array;
}

Array Context::input(std::size_t index) const {
  const OrtValue* value = nullptr;
  if (index < inputs_) check(call(api_, kGetInput, context_, index, &value));
  return value == nullptr ? Array{} : array_of(const_cast<OrtValue*>(value));
}

Array Context::output(std::size_t index, const std::vector<std::int64_t>& shape) const {
  OrtValue* value = nullptr;
  if (index < outputs_) {
    check(call(api_, kGetOutput, context_, index, shape.data(), shape.size(), &value));
  }
  return value == nullptr ? Array{} : array_of(value);
}

void* Context::scratch(std::int64_t bytes) {
  scratch_.emplace_back(new char[static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1))]);
  return scratch_.back().get();
}

numattn_attention_args Context::attention_args() {
  numattn_attention_args args = numattn_attention_defaults();
  args.parallel = parallel;
  args.parallel_context = this;
  return args;
}

void Context::attend(const numattn_attention_args& args) const {
  check_status(numattn_attention(&args));
}

numattn_rope_args Context::rope_args() {
  numattn_rope_args args = numattn_rope_defaults();
  args.parallel = parallel;
  args.parallel_context = this;
  return args;
}

void Context::turn(const numattn_rope_args& args) const { check_status(numattn_rope(&args)); }

void Context::parallel(void* context, std::int32_t count,
                       void (*part)(const void* argument, std::int32_t index),
                       const void* argument) {
  const Context& own = *static_cast<const Context*>(context);
  struct Parts {
    void (*part)(const void* argument, std::int32_t index);
    const void* argument;
  } parts{part, argument};
  const auto body = [](void* erased, std::size_t index) {
    const Parts& all = *static_cast<const Parts*>(erased);
    all.part(all.argument, static_cast<std::int32_t>(index));
  };
  OrtStatus* status = call(own.api_, kParallelFor, own.context_, body,
                           static_cast<std::size_t>(count), std::size_t{0}, &parts);
  if (succeeded(own.api_, status)) return;
  for (std::int32_t index = 0; index < count; ++index) part(argument, index);
}

}  // namespace numattn::onnxruntime
