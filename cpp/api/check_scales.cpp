// Keys and values stored as 8-bit integers with a scale for each token and head.
#include <string>

#include "check.h"
#include "check_view.h"
#include "numattn/attention.h"

namespace numattn {
namespace {

void check_scale(const View& scale, const char* name, const View& tokens, const char* tokens_name) {
  if (scale.dtype != DType::kFloat32) {
    throw DTypeError(std::string(name) + " must be float32, not " + dtype_name(scale.dtype));
  }
  if (tokens.dtype != DType::kInt8) {
    throw DTypeError(std::string(name) + " is for " + tokens_name + " of dtype int8, not " +
                     dtype_name(tokens.dtype));
  }
  check_same_shape(scale, name, tokens.shape, tokens.rank - 1);
}

}  // namespace

View with_unit_axis(const View& view) {
  View wide = view;
  wide.shape[static_cast<std::size_t>(view.rank)] = 1;
  wide.strides[static_cast<std::size_t>(view.rank)] = 0;
  ++wide.rank;
  return wide;
}

void check_scales(const AttentionParams& params) {
  if (params.k_scale.has_value() != params.v_scale.has_value()) {
    refuse(params.k_scale ? "v_scale" : "k_scale", " is missing: keys and values are stored alike");
  }
  for (const char* name : {"k", "v"}) {
    const View& tokens = *name == 'k' ? params.k : params.v;
    if (params.k_scale || tokens.dtype != DType::kInt8) continue;
    throw DTypeError(std::string(name) +
                     " has dtype int8, which needs k_scale and v_scale; without them, cast it with "
                     ".astype(np.float32)");
  }
  if (!params.k_scale) return;
  check_scale(*params.k_scale, "k_scale", params.k, "k");
  check_scale(*params.v_scale, "v_scale", params.v, "v");
}

}  // namespace numattn
