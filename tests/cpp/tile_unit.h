// The AMX tile unit in software, for processors that lack it.
#pragma once

// From now on an AMX instruction that the processor refuses, in whatever thread, is executed by the
// handler of SIGILL, and the program goes on behind it: the tests run the compiled kernels, not a
// model of them. Each thread has its own tiles. Every other illegal instruction goes to the handler
// that was there before. Using the tiles in a way at which the processor would fault ends the
// process with a message. Where the processor has AMX nothing is caught.
//
// Known are the moves and configurations of tiles and tdpbf16ps, with the operands in any
// addressing mode, but without prefixes for segment or address size.
void install_tile_unit();

// What a thread's tiles have been told to do, for kernels whose speed depends on that. Tiles by
// number; `streamed` are the loads with a hint for the cache.
struct TileCounts {
  long loaded[8];
  long streamed[8];
  long stored[8];
  long zeroed;
  long products;
};
// Of this thread, where the unit in software executes. They may be set back.
TileCounts& tile_counts();

// Asks the system for the right to use the processor's tiles; whether this process has it now.
// Asked before any tile instruction, since one refused for want of it would be caught too.
bool request_processor_tiles();
