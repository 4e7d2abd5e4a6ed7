// Queries, keys and values as numattn takes them: (B, H, S, D) by strides, wherever they lie.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel.h"
#include "numattn.h"

namespace numattn::onnxruntime {

// numattn's number of an element type; refused, with the name, if it has none.
std::int32_t dtype_of(const Array& array, const char* name);
std::int64_t element_size(const Array& array);

// As it lies.
numattn_tensor tensor_of(const Array& array, const char* name);

// Refused unless it has that many dimensions.
void check_rank(const Array& array, int rank, const char* name, const char* meaning);
// Refused unless it has that shape.
void check_shape(const Array& array, const std::vector<std::int64_t>& shape, const char* name);

// (B, S, H·D) or (B, H, S, D) as (B, H, S, D). With `heads` 0, only the second.
numattn_tensor heads_of(const Array& array, std::int64_t heads, const char* name);

// Heads [first, first + count) of (B, S, all heads, D).
numattn_tensor some_heads(const Array& array, std::int64_t first, std::int64_t count,
                          std::int64_t width);

// (B, H, S, D), contiguous.
numattn_tensor new_heads(void* data, std::int32_t dtype, std::int64_t batch, std::int64_t heads,
                         std::int64_t length, std::int64_t width);

// Tokens [first, first + count) of heads; one entry of a batch.
numattn_tensor tokens_of(numattn_tensor heads, std::int64_t first, std::int64_t count);
numattn_tensor entry_of(numattn_tensor heads, std::int64_t batch);

// Its numbers in float32.
std::vector<float> floats_of(const Array& array, const char* name);

// Copies tokens of all heads and entries; both have the same shape.
void copy(Context& context, const numattn_tensor& from, const numattn_tensor& to);

// Makes tokens of all heads and entries 0.
void clear(Context& context, const numattn_tensor& tokens);

// out (B, S, H·D) = x + bias (H·D).
void add_bias(Context& context, const Array& x, const char* bias, void* out);

}  // namespace numattn::onnxruntime
