// Keys and values stored as 8-bit integers with a scale for each token and head.
#include <string>

#include "check.h"

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

void check_scales(const AttentionParams& params, const TokenNames& names) {
  const bool has_scales = params.k.scale.has_value();
  if (has_scales != params.v.scale.has_value()) {
    refuse(has_scales ? "v_scale" : "k_scale", " is missing: keys and values are stored alike");
  }
  const auto check_tokens = [](const StoredTokens& tokens, const char* name,
                               const char* scale_name) {
    if (tokens.scale) {
      check_scale(*tokens.scale, scale_name, tokens.data, name);
    } else if (tokens.data.dtype == DType::kInt8) {
      throw DTypeError(std::string(name) + " has dtype " + dtype_name(tokens.data.dtype) +
                       ", which needs k_scale and v_scale; without them, cast it with "
                       ".astype(np.float32)");
    }
  };
  check_tokens(params.k, names.k, "k_scale");
  check_tokens(params.v, names.v, "v_scale");
}

}  // namespace numattn
