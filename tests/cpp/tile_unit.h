// The AMX tile unit in software, for processors that lack it.
#pragma once

#include <cstdint>

// From now on an AMX instruction that the processor refuses, in whatever thread, is executed by the
// handler of SIGILL, and the program goes on behind it: the tests run the compiled kernels, not a
// model of them. Each thread has its own tiles. Every other illegal instruction goes to the handler
// that was there before. Using the tiles in a way at which the processor would fault ends the
// process with a message. Where the processor has AMX nothing is caught.
//
// Known are the moves and configurations of tiles and tdpbf16ps and tdpbssd, with the operands in
// any addressing mode, but without prefixes for segment or address size.
void install_tile_unit();

// Asks the system for the right to use the processor's tiles; whether this process has it now.
// Asked before any tile instruction, since one refused for want of it would be caught too.
bool request_processor_tiles();

// What the unit in software has executed, in all threads together: without a unit at hand, the
// schedule of a kernel can be counted though not timed.
struct TileCounts {
  std::int64_t products;
  std::int64_t loads;     // both kinds
  std::int64_t loads_t1;  // those of them with a hint that spares the first cache level
  std::int64_t stores;
};
void reset_tile_counts();
TileCounts tile_counts();
