// Stands in for cpp/kernels/isa_avx512bf16.cpp where NUMATTN_EMULATE_AVX512 is on.
#include "emulated_avx512.h"

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
