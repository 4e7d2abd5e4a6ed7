#include "tile_unit.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kTiles = 8;
constexpr int kMaxRows = 16;
constexpr int kRowWords = 16;  // of four bytes: a float32 or a pair of bfloat16
constexpr int kMaxRowBytes = 4 * kRowWords;

// Rows and bytes beyond the configured shape are zero.
struct Tile {
  alignas(64) std::uint32_t words[kMaxRows][kRowWords];
  int rows;
  int row_bytes;  // rows = row_bytes = 0: not configured
};

struct TileUnit {
  unsigned char config[64];  // all zero: not configured
  Tile tiles[kTiles];
};

// In a library that was dlopened a thread's first touch, here in the signal handler, allocates.
// That is safe at this place alone: what was interrupted is a tile instruction, never the
// allocator.
thread_local TileUnit unit;

struct sigaction previous_action;

struct Counters {
  std::atomic<std::int64_t> products, zeroed;
  std::atomic<std::int64_t> loads_of[kTiles], loads_t1_of[kTiles], stores_of[kTiles];
};
Counters counters;

void count(std::atomic<std::int64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

[[noreturn]] void fail(const char* message) {
  const char* const parts[] = {"tile unit: ", message, "\n"};
  for (const char* part : parts) {
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  }
  std::abort();
}

// --- Decoding -------------------------------------------------------------------------------

enum Prefix { kNone = 0, k66 = 1, kF3 = 2, kF2 = 3 };

// C4 | R̄ X̄ B̄ map(5) | W v̄(4) L pp(2) | opcode | modrm | sib | displacement
struct Instruction {
  int opcode;
  int prefix;
  int vector;    // the register in v
  int reg;       // the register or the opcode's extension in modrm
  int rm;        // the other register, when there is no memory operand
  bool memory;   // there is one
  bool has_sib;  // its address is spelt base + index << scale + displacement
  std::int64_t address_without_index;
  std::int64_t index;  // shifted by the scale; 0 without
  std::int64_t length;
};

// General registers by their number in an instruction.
constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

// Reads the modrm byte at `at` and what follows it; returns the end of the instruction.
const unsigned char* decode_operands(const unsigned char* at, bool high_reg, bool high_index,
                                     bool high_base, const greg_t* registers, Instruction& in) {
  constexpr int kNoIndex = 4;
  constexpr int kSibFollows = 4;
  constexpr int kNoBase = 5;
  const int modrm = *at++;
  const int mode = modrm >> 6;
  in.reg = ((modrm >> 3) & 7) | (high_reg ? 8 : 0);
  in.rm = modrm & 7;
  in.memory = mode != 3;
  if (!in.memory) {
    in.rm |= high_base ? 8 : 0;
    return at;
  }
  int base = in.rm;
  in.has_sib = in.rm == kSibFollows;
  if (in.has_sib) {
    const int sib = *at++;
    const int index = ((sib >> 3) & 7) | (high_index ? 8 : 0);
    base = sib & 7;
    if (index != kNoIndex) {
      const auto value = static_cast<std::uint64_t>(registers[kRegisters[index]]);
      in.index = static_cast<std::int64_t>(value << (sib >> 6));
    }
  }
  const bool wide = mode == 2 || (mode == 0 && base == kNoBase);
  std::int64_t displacement = 0;
  if (wide) {
    std::int32_t value;
    std::memcpy(&value, at, sizeof value);
    displacement = value;
    at += sizeof value;
  } else if (mode == 1) {
    displacement = static_cast<std::int8_t>(*at++);
  }
  in.address_without_index = displacement;
  if (mode != 0 || base != kNoBase) {
    in.address_without_index += registers[kRegisters[base | (high_base ? 8 : 0)]];
  } else if (!in.has_sib) {  // relative to the next instruction
    in.address_without_index += reinterpret_cast<std::int64_t>(at);
  }
  return at;
}

// Whether it is an instruction of the encoding shared by all of AMX, and which.
bool decode(const unsigned char* code, const greg_t* registers, Instruction& in) {
  constexpr int kMap0F38 = 2;
  if (code[0] != 0xC4 || (code[1] & 0x1F) != kMap0F38) return false;
  const bool wide = (code[2] & 0x80) != 0;
  const bool long_vector = (code[2] & 0x04) != 0;
  if (wide || long_vector) return false;
  in = {};
  in.opcode = code[3];
  if (in.opcode != 0x49 && in.opcode != 0x4B && in.opcode != 0x5C && in.opcode != 0x5E)
    return false;
  in.prefix = code[2] & 3;
  in.vector = (~code[2] >> 3) & 15;
  const bool high_reg = (code[1] & 0x80) == 0;
  const bool high_index = (code[1] & 0x40) == 0;
  const bool high_base = (code[1] & 0x20) == 0;
  in.length = decode_operands(code + 4, high_reg, high_index, high_base, registers, in) - code;
  return true;
}

// --- Execution ------------------------------------------------------------------------------

void release() { unit = TileUnit{}; }

void load_config(const unsigned char* from) {
  unsigned char config[64];
  std::memcpy(config, from, sizeof config);
  release();
  if (config[0] == 0) return;
  if (config[0] != 1) fail("ldtilecfg: the palette is neither 0 nor 1");
  if (config[1] != 0) fail("ldtilecfg: a start row is not supported");
  for (int at = 2; at < 64; ++at) {
    const bool used = (at >= 16 && at < 16 + 2 * kTiles) || (at >= 48 && at < 48 + kTiles);
    if (!used && config[at] != 0) fail("ldtilecfg: a reserved byte is not zero");
  }
  for (int t = 0; t < kTiles; ++t) {
    Tile& tile = unit.tiles[t];
    tile.row_bytes = config[16 + 2 * t] | (config[17 + 2 * t] << 8);
    tile.rows = config[48 + t];
    if (tile.row_bytes > kMaxRowBytes) fail("ldtilecfg: a tile has more than 64 bytes in a row");
    if (tile.rows > kMaxRows) fail("ldtilecfg: a tile has more than 16 rows");
    if ((tile.rows == 0) != (tile.row_bytes == 0)) {
      fail("ldtilecfg: a tile has rows without bytes or bytes without rows");
    }
  }
  std::memcpy(unit.config, config, sizeof config);
}

Tile& configured_tile(int number) {
  if (unit.config[0] == 0) fail("a tile is used before ldtilecfg or after tilerelease");
  Tile& tile = unit.tiles[number];
  if (tile.rows == 0) fail("a tile is used that ldtilecfg gave no rows");
  return tile;
}

void load_tile(Tile& tile, std::int64_t address, std::int64_t stride) {
  for (int r = 0; r < tile.rows; ++r) {
    const auto* row = reinterpret_cast<const unsigned char*>(address + r * stride);
    std::memcpy(tile.words[r], row, static_cast<std::size_t>(tile.row_bytes));
  }
}

void store_tile(const Tile& tile, std::int64_t address, std::int64_t stride) {
  for (int r = 0; r < tile.rows; ++r) {
    auto* row = reinterpret_cast<unsigned char*>(address + r * stride);
    std::memcpy(row, tile.words[r], static_cast<std::size_t>(tile.row_bytes));
  }
}

// The even and the odd bfloat16 of a row's pairs: of a word, the low and the high half.
void split_pairs(const std::uint32_t* words, float* even, float* odd) {
  std::uint32_t low[kRowWords];
  std::uint32_t high[kRowWords];
  for (int i = 0; i < kRowWords; ++i) {
    low[i] = words[i] << 16;
    high[i] = words[i] & 0xFFFF0000u;
  }
  std::memcpy(even, low, sizeof low);
  std::memcpy(odd, high, sizeof high);
}

enum class Elements { kPairs, kSignedBytes, kBytes };  // of A; B's bytes are signed in any case

// Four bytes to a word; sums wrap, as those of the unit do.
void multiply_bytes(Tile& c, const Tile& a, const Tile& b, bool a_is_signed) {
  const auto byte = [](std::uint32_t word, int i, bool is_signed) {
    const std::uint32_t bits = word >> (8 * i) & 0xFFu;
    return static_cast<std::int32_t>(bits) - (is_signed && bits >= 128 ? 256 : 0);
  };
  for (int m = 0; m < c.rows; ++m) {
    for (int p = 0; p < a.row_bytes / 4; ++p) {
      for (int n = 0; n < c.row_bytes / 4; ++n) {
        std::int32_t sum = 0;
        for (int i = 0; i < 4; ++i) {
          sum += byte(a.words[m][p], i, a_is_signed) * byte(b.words[p][n], i, true);
        }
        c.words[m][n] += static_cast<std::uint32_t>(sum);
      }
    }
  }
}

// Not inlined, so that no arithmetic moves to where another rounding mode is set.
__attribute__((noinline)) void multiply(Tile& c, const Tile& a, const Tile& b) {
  const int columns = c.row_bytes / 4;
  const int pairs = a.row_bytes / 4;
  float b_even[kMaxRows][kRowWords];
  float b_odd[kMaxRows][kRowWords];
  for (int p = 0; p < pairs; ++p) split_pairs(b.words[p], b_even[p], b_odd[p]);
  for (int m = 0; m < c.rows; ++m) {
    float a_even[kRowWords];
    float a_odd[kRowWords];
    split_pairs(a.words[m], a_even, a_odd);
    float even[kRowWords] = {};
    float odd[kRowWords] = {};
    for (int p = 0; p < pairs; ++p) {
      for (int n = 0; n < kRowWords; ++n) {
        even[n] = __builtin_fmaf(a_even[p], b_even[p][n], even[n]);
        odd[n] = __builtin_fmaf(a_odd[p], b_odd[p][n], odd[n]);
      }
    }
    float sums[kRowWords];
    std::memcpy(sums, c.words[m], sizeof sums);
    for (int n = 0; n < columns; ++n) sums[n] += even[n] + odd[n];
    std::memcpy(c.words[m], sums, sizeof sums);
  }
}

void dot(int c_number, int a_number, int b_number, Elements elements) {
  if (c_number == a_number || a_number == b_number || b_number == c_number) {
    fail("a product's three tiles are not distinct");
  }
  Tile& c = configured_tile(c_number);
  const Tile& a = configured_tile(a_number);
  const Tile& b = configured_tile(b_number);
  if (c.row_bytes % 4 != 0 || a.row_bytes % 4 != 0) fail("a product's row is not whole words");
  if (c.rows != a.rows) fail("a product's C and A differ in rows");
  if (c.row_bytes != b.row_bytes) fail("a product's C and B differ in columns");
  if (a.row_bytes / 4 != b.rows) fail("a product's A has other words than B has rows");
  if (elements != Elements::kPairs) {
    multiply_bytes(c, a, b, elements == Elements::kSignedBytes);
    return;
  }
  // Exceptions masked, subnormal operands and results zero, to nearest even.
  constexpr unsigned kTileRounding = 0x1F80u | 0x0040u | 0x8000u;
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(kTileRounding);
  multiply(c, a, b);
  _mm_setcsr(saved);
}

// The following return whether there is such an instruction; if so it has been executed.

bool execute_configuration(const Instruction& in) {
  if (in.vector != 0) return false;
  if (in.memory) {
    if (in.reg != 0) return false;
    const std::int64_t address = in.address_without_index + in.index;
    if (in.prefix == kNone) {
      load_config(reinterpret_cast<const unsigned char*>(address));
      return true;
    }
    if (in.prefix != k66) return false;
    std::memcpy(reinterpret_cast<void*>(address), unit.config, sizeof unit.config);  // sttilecfg
    return true;
  }
  if (in.rm != 0) return false;
  if (in.prefix == kNone && in.reg == 0) {
    release();
    return true;
  }
  if (in.prefix != kF2 || in.reg >= kTiles) return false;
  Tile& tile = configured_tile(in.reg);
  std::memset(tile.words, 0, sizeof tile.words);  // tilezero
  count(counters.zeroed);
  return true;
}

bool execute_move(const Instruction& in) {
  if (!in.has_sib || in.vector != 0 || in.reg >= kTiles || in.prefix == kNone) return false;
  Tile& tile = configured_tile(in.reg);
  if (in.prefix == kF3) {
    store_tile(tile, in.address_without_index, in.index);
    count(counters.stores_of[in.reg]);
  } else {  // F2, and 66 with a hint for the cache
    load_tile(tile, in.address_without_index, in.index);
    count((in.prefix == k66 ? counters.loads_t1_of : counters.loads_of)[in.reg]);
  }
  return true;
}

bool execute_dot(const Instruction& in) {
  Elements elements = Elements::kPairs;
  if (in.opcode == 0x5C) {
    if (in.prefix != kF3) return false;
  } else if (in.prefix == kF2) {
    elements = Elements::kSignedBytes;
  } else if (in.prefix == k66) {
    elements = Elements::kBytes;
  } else {
    return false;
  }
  if (in.memory) return false;
  if (in.reg >= kTiles || in.rm >= kTiles || in.vector >= kTiles) return false;
  dot(in.reg, in.rm, in.vector, elements);
  count(counters.products);
  return true;
}

bool execute(const Instruction& in) {
  switch (in.opcode) {
    case 0x49: return execute_configuration(in);
    case 0x4B: return execute_move(in);
    default: return execute_dot(in);
  }
}

// --- The signal -----------------------------------------------------------------------------

void pass_on(int signal, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {  // raised again, it ends the process once this handler returns
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    raise(signal);
  }
}

// Tile instructions that follow the refused one are executed too: a signal costs more than a
// product.
void handle(int signal, siginfo_t* info, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const bool from_processor = info->si_code > 0;
  bool executed = false;
  Instruction in;
  while (from_processor &&
         decode(reinterpret_cast<const unsigned char*>(registers[REG_RIP]), registers, in) &&
         execute(in)) {
    registers[REG_RIP] += in.length;
    executed = true;
  }
  if (!executed) pass_on(signal, info, context);
}

bool install() {
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = handle;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGILL, &action, &previous_action) == 0;
}

}  // namespace

void install_tile_unit() {
  static const bool installed = install();  // once: a second time would make it its own previous
  if (!installed) fail("the handler of SIGILL cannot be installed");
}

bool request_processor_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // the number of that register state
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

void reset_tile_counts() {
  counters.products = counters.zeroed = 0;
  for (int t = 0; t < kTiles; ++t) {
    counters.loads_of[t] = counters.loads_t1_of[t] = counters.stores_of[t] = 0;
  }
}

TileCounts tile_counts() {
  TileCounts all{};
  all.products = counters.products;
  all.zeroed = counters.zeroed;
  for (int t = 0; t < kTiles; ++t) {
    all.loads_of[t] = counters.loads_of[t];
    all.loads_t1_of[t] = counters.loads_t1_of[t];
    all.stores_of[t] = counters.stores_of[t];
    all.loads += all.loads_of[t] + all.loads_t1_of[t];
    all.loads_t1 += all.loads_t1_of[t];
    all.stores += all.stores_of[t];
  }
  return all;
}
