// Kernels for AVX-512 with AVX512-BF16: those of AVX-512 and its VNNI, and bfloat16 products in its
// unit.
#ifndef NUMATTN_VEC  // which lanes; tests have some in software
#define NUMATTN_VEC "vec/bfloat16.h"
#endif
#include NUMATTN_VEC

#include "decode_table.h"
#include "pair_keys.h"

#include "pair_tile.h"

#include "pair_table.h"

namespace numattn {
const Kernels& kernels_avx512vnni() noexcept;

const Kernels& kernels_avx512bf16() noexcept {
  static const Kernels table = [] {
    Kernels kernels = with_pairs<kernels_avx512vnni>("avx512bf16");
    kernels.decode = decode_kernel<kDecodeKeyBlock, PairKeys>();
    return kernels;
  }();
  return table;
}

}  // namespace numattn
