// Weights and operands of a projection.
#include <algorithm>

#include "check.h"

namespace numattn {

void check_linear_weight(const View& weight, const std::optional<View>& bias) {
  check_rank(weight, "weight", 2, "(out_features, in_features)");
  if (weight.shape[0] < 1 || weight.shape[1] < 1) {
    refuse("weight must have at least one row and one column, not shape ", shape_text(weight));
  }
  check_floating(weight, "weight");
  check_bytes(weight, "weight");
  if (!bias) return;
  check_rank(*bias, "bias", 1, "(out_features,)");
  if (bias->shape[0] != weight.shape[0]) {
    refuse("bias of shape ", shape_text(*bias), " does not fit weight of shape ",
           shape_text(weight), ": one number per output feature");
  }
}

namespace {

void check_factor_layer(const PackedLinear& linear, const PackedLinear::Call& call) {
  const PackedLinear& factor = *call.factor_layer;
  if (call.factor) refuse("factor is either an array or a layer, not both");
  if (factor.in_features() != linear.in_features() ||
      factor.out_features() != linear.out_features()) {
    refuse("factor must be a layer from ", number(linear.in_features()), " to ",
           number(linear.out_features()), " features, not from ", number(factor.in_features()),
           " to ", number(factor.out_features()));
  }
}

}  // namespace

void check_linear_call(const PackedLinear& linear, const PackedLinear::Call& call) {
  check_floating(call.x, "x");
  if (call.x.shape[1] != linear.in_features()) {
    refuse("x must have ", number(linear.in_features()), " features in its last dimension, not ",
           number(call.x.shape[1]));
  }
  check_num_threads(call.num_threads);
  const std::array<std::int64_t, 4> shape{call.x.shape[0], linear.out_features(), 0, 0};
  checked_product(checked_product(std::max<std::int64_t>(shape[0], 1), shape[1], "the output"),
                  call.x.item_size(), "the output");
  if (call.factor_layer != nullptr) check_factor_layer(linear, call);
  check_same_shape(call.output, "out", shape, 2);
  // Between layers of shorter weights, results pass in the type that the next layer reads.
  const bool stores_float32 = linear.stores_float32() ||
                              (call.factor_layer != nullptr && call.factor_layer->stores_float32());
  if (!stores_float32) {
    if (dtype_role(call.output.dtype) != Role::kNumber) {
      refuse("out must be floating-point, not of dtype ", dtype_name(call.output.dtype));
    }
  } else {
    check_same_dtype(call.output, "out", call.x.dtype, "x");
  }
  check_writable(call.output, "out");
  const auto check_companion = [&](const std::optional<View>& view, const char* name) {
    if (!view) return;
    check_same_shape(*view, name, shape, 2);
    check_same_dtype(*view, name, call.output.dtype, "the output");
  };
  check_companion(call.factor, "factor");
  check_companion(call.residual, "residual");
}

}  // namespace numattn
