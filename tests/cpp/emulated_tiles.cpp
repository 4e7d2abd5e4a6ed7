// Stands in for cpp/isa/tiles.cpp where NUMATTN_EMULATE_AMX is on: the unit in software.
#include "tile_unit.h"
#include "tiles.h"

namespace numattn {

bool tiles_usable() {
  if (!request_processor_tiles()) install_tile_unit();
  return true;
}

}  // namespace numattn
