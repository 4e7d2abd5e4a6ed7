// Keys and values stored with a scale for each token and head.
#include <string>

#include "check.h"
#include "numattn/dtype_names.h"

namespace numattn {
namespace {

void check_scale(const View& scale, const char* name, const View& tokens, const char* tokens_name) {
  if (scale.dtype != DType::kFloat32) {
    throw DTypeError(std::string(name) + " must be float32, not " + dtype_name(scale.dtype));
  }
  if (dtype_role(tokens.dtype) != Role::kScaled) {
    throw DTypeError(std::string(name) + " is for " + tokens_name + " of dtype " +
                     dtype_names(Role::kScaled) + ", not " + dtype_name(tokens.dtype));
  }
  check_same_shape(scale, name, tokens.shape, tokens.rank - 1);
}

}  // namespace

void take_wide(AttentionCall& call, const WideChannels& wide) {
  AttentionProblem& problem = call.whole;
  if (wide.channels.data == nullptr) return;
  if (wide.heads != problem.kv_heads) {
    refuse("k_wide must have a row for each of ", number(problem.kv_heads), " key heads, not ",
           number(wide.heads));
  }
  WideChannels& own = problem.k.wide;
  own = wide;
  own.channels = copied(wide.channels, call.wide_channels);
  for (const std::int64_t channel : call.wide_channels) {
    if (channel >= -1 && channel < problem.head_dim) continue;
    refuse("k_wide must name channels in 0 … ", number(problem.head_dim - 1), ", or −1, not ",
           number(channel));
  }
}

void check_scales(const AttentionParams& params, const TokenNames& names) {
  const bool has_scales = params.k.scale.has_value();
  if (has_scales != params.v.scale.has_value()) {
    refuse(has_scales ? "v_scale" : "k_scale", " is missing: keys and values are stored alike");
  }
  const auto check_tokens = [](const StoredTokens& tokens, const char* name,
                               const char* scale_name) {
    if (tokens.scale) {
      check_scale(*tokens.scale, scale_name, tokens.data, name);
    } else if (dtype_role(tokens.data.dtype) == Role::kScaled) {
      throw DTypeError(std::string(name) + " has dtype " + dtype_name(tokens.data.dtype) +
                       ", which needs k_scale and v_scale; without them, cast it with "
                       ".astype(np.float32)");
    }
  };
  if (params.k.wide.channels.data != nullptr && dtype_role(params.k.data.dtype) != Role::kScaled) {
    throw DTypeError(std::string("k_wide is for ") + names.k + " of dtype " +
                     dtype_names(Role::kScaled) + ", not " + dtype_name(params.k.data.dtype));
  }
  check_tokens(params.k, names.k, "k_scale");
  check_tokens(params.v, names.v, "v_scale");
}

}  // namespace numattn
