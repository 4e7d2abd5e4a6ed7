// Past keys and values and new ones, joined: what a step attends to, and hands to the next.
#pragma once

#include <cstdint>

#include "heads.h"
#include "kernel.h"
#include "numattn.h"

namespace numattn::onnxruntime {

struct NewTokens {
  numattn_tensor key, value;  // (B, H, S, D)
};

struct Past {
  Array key, value;  // (B, H, P, D), or not given
};

struct Presents {
  numattn_tensor key, value;  // (B, H, P + S, D)
  std::int64_t past = 0;      // P
};

// An output for keys or values of that length, or memory for what the node does not hand on.
numattn_tensor place_of(Context& context, std::size_t output, const numattn_tensor& tokens,
                        std::int64_t length);

// Into outputs 1 and 2, where the node names them.
Presents join_past(Context& context, const NewTokens& tokens, const Past& past);

// Refused unless past_key and past_value are (B, H, P, D) and (B, H, P, Dv) of one P, which is
// returned, or neither is given: 0.
std::int64_t past_length(const Past& past, const NewTokens& tokens);

}  // namespace numattn::onnxruntime
