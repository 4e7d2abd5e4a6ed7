// Kernels for AVX-512 with AVX512-BF16: those of AVX-512, and bfloat16 products in its unit.
#include "vec/bfloat16.h"

#include "pair_keys.h"
#include "table.h"

#include "pair_tile.h"

#include "pair_table.h"

namespace numattn {

const Kernels& kernels_avx512bf16() {
  static constexpr Kernels table =
      with_pairs(make_kernels<kDecodeKeyBlock, PairKeys>("avx512bf16"));
  return table;
}

}  // namespace numattn
