// Stands in for cpp/kernels/isa_amx.cpp where NUMATTN_EMULATE_AVX512 is on.
#include "emulated_avx512.h"

#include "table.h"

#include "amx_tile.h"

#include "pair_table.h"

namespace numattn {

const Kernels& kernels_amx() {
  static constexpr Kernels table = with_pairs(make_kernels<kShortDecodeKeyBlock>("amx"));
  return table;
}

}  // namespace numattn
