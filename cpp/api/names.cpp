// Choices that a caller makes by name, and names in messages.
#include "names.h"

#include "check_view.h"

#include "numattn/attention.h"
#include "numattn/dtype_names.h"
#include "numattn/linear.h"

namespace numattn {

std::string dtype_names(Role role) {
  std::string names;
  std::string last;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (dtype_role(dtype) != role) continue;
    if (!last.empty()) names += (names.empty() ? "" : ", ") + last;
    last = dtype_name(dtype);
  }
  return names.empty() ? last : names + " or " + last;
}

Layout parse_layout(const std::string& name) {
  if (name == "bhsd") return Layout::kBhsd;
  if (name == "bshd") return Layout::kBshd;
  refuse("layout must be 'bhsd' or 'bshd', not '", name, "'");
}

Precision parse_precision(const std::string& name) {
  if (name == "highest") return Precision::kHighest;
  if (name == "high") return Precision::kHigh;
  refuse("precision must be 'highest' or 'high', not '", name, "'");
}

Activation parse_activation(const std::string& name) {
  if (name.empty()) return Activation::kNone;
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "silu") return Activation::kSilu;
  refuse("activation must be None, 'relu', 'gelu', 'gelu_tanh' or 'silu', not '", name, "'");
}

Storage parse_storage(const std::string& name) {
  if (name == "float32") return Storage::kFloat32;
  if (name == "bfloat16") return Storage::kBFloat16;
  if (name == "int8") return Storage::kInt8;
  if (name == "w8a8") return Storage::kW8A8;
  refuse("dtype must be float32, bfloat16, int8 or w8a8, the storage types, not ", name);
}

}  // namespace numattn
