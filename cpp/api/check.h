// Every rule about shapes, types and ranges, once. The only place that throws.
#pragma once

#include <cstdint>
#include <string>

#include "check_view.h"
#include "kernels.h"

#include "numattn/attention.h"
#include "numattn/linear.h"

namespace numattn {

// The view of rank 3 as one batch entry of rank 4; others as they are.
View with_batch(const View& view);

// The same array with axes in (batch, head, position, element) order.
View in_bhsd(const View& view, Layout layout);

// A view of scales with the axis that the tokens' elements have, so that it can be read like them.
View with_unit_axis(const View& view);
void check_scales(const AttentionParams& params);

Activation parse_activation(const std::string& name);

void check_linear_weight(const View& weight, const std::optional<View>& bias);
void check_linear_call(const PackedLinear& linear, const PackedLinear::Call& call);
void check_layer_norm(const LayerNormParams& params);

}  // namespace numattn
