#include "present.h"

namespace numattn::onnxruntime {
namespace {

void check_past(const Array& past, const numattn_tensor& tokens, std::int64_t length,
                const char* name) {
  check_shape(past, {tokens.shape[0], tokens.shape[1], length, tokens.shape[3]}, name);
  if (dtype_of(past, name) != tokens.dtype) refuse(std::string(name) + " has another type");
}

numattn_tensor joined(Context& context, std::size_t output, const numattn_tensor& tokens,
                      const Array& past, std::int64_t length) {
  const numattn_tensor present = place_of(context, output, tokens, length + tokens.shape[2]);
  copy(context, tensor_of(past, "past"), tokens_of(present, 0, length));
  copy(context, tokens, tokens_of(present, length, tokens.shape[2]));
  return present;
}

void hand_on(Context& context, std::size_t output, const numattn_tensor& tokens) {
  const std::int64_t* shape = tokens.shape;
  const Array present = context.output(output, {shape[0], shape[1], shape[2], shape[3]});
  if (present.given()) copy(context, tokens, tensor_of(present, "present"));
}

}  // namespace

numattn_tensor place_of(Context& context, std::size_t output, const numattn_tensor& tokens,
                        std::int64_t length) {
  const std::int64_t* shape = tokens.shape;
  const Array present = context.output(output, {shape[0], shape[1], length, shape[3]});
  void* data = present.data;
  if (!present.given()) {
    data = context.scratch(shape[0] * shape[1] * length * shape[3] * tokens.strides[3]);
  }
  return new_heads(data, tokens.dtype, shape[0], shape[1], length, shape[3]);
}

std::int64_t past_length(const Past& past, const NewTokens& tokens) {
  if (past.key.given() != past.value.given()) {
    refuse("past_key and past_value must be given together");
  }
  if (!past.key.given()) return 0;
  check_rank(past.key, 4, "past_key", "(B, H, P, D)");
  check_past(past.key, tokens.key, past.key.shape[2], "past_key");
  check_past(past.value, tokens.value, past.key.shape[2], "past_value");
  return past.key.shape[2];
}

Presents join_past(Context& context, const NewTokens& tokens, const Past& past) {
  const std::int64_t length = past_length(past, tokens);
  if (past.key.given()) {
    return {joined(context, 1, tokens.key, past.key, length),
            joined(context, 2, tokens.value, past.value, length), length};
  }
  hand_on(context, 1, tokens.key);
  hand_on(context, 2, tokens.value);
  return {tokens.key, tokens.value, 0};
}

}  // namespace numattn::onnxruntime
