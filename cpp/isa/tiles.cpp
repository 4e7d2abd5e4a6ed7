#include "tiles.h"

#include "processor.h"

#if defined(NUMATTN_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace numattn {

bool tiles_usable() {
#if defined(NUMATTN_X86) && defined(__linux__)
  const CpuId extended(7, 0);
  // AMX-TILE, AMX-BF16, AMX-INT8: every processor with tiles so far has all three.
  const bool multiplies = bit(extended.d, 24) && bit(extended.d, 22) && bit(extended.d, 25);
  if (!multiplies || (enabled_states() & kTileStates) != kTileStates) return false;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace numattn
