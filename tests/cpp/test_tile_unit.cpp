// The tile unit in software where amx.h alone does not reach: every spelling of an address,
// refusals, and the handler before. On a processor with tiles all but the messages is asked of
// that.
#include "tile_unit.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "amx.h"
#include "expect.h"

using namespace numattn;

namespace {

using Random = std::mt19937;
using Bytes = std::vector<unsigned char>;

Bytes random_bytes(Random& random, std::size_t count) {
  Bytes bytes(count);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

// A tile moves from `from` to `to` by the given spelling of an address. Every register and every
// width of displacement has its own encoding.
#define EXPECT_MOVE(base, index, scale, displacement)                                         \
  do {                                                                                        \
    const Bytes from = random_bytes(random, 1024);                                            \
    Bytes to(1024);                                                                           \
    __asm__ volatile("mov %0, %%" base "\n\tmov %2, %%" index "\n\ttileloadd " #displacement  \
                     "(%%" base ",%%" index "," #scale                                        \
                     "), %%tmm7"                                                              \
                     "\n\tmov %1, %%" base "\n\ttilestored %%tmm7, " #displacement "(%%" base \
                     ",%%" index "," #scale ")"                                               \
                     :                                                                        \
                     : "r"(from.data() - (displacement)), "r"(to.data() - (displacement)),    \
                       "r"(std::int64_t{64} / (scale))                                        \
                     : base, index, "memory");                                                \
    expect(to == from, "address %d(%s,%s,%d)", displacement, base, index, scale);             \
  } while (false)

void addresses_of_rows(Random& random) {
  EXPECT_MOVE("rax", "rcx", 1, 0);
  EXPECT_MOVE("rcx", "r8", 2, 127);
  EXPECT_MOVE("rbx", "r9", 4, -128);
  EXPECT_MOVE("rsi", "r10", 8, 128);
  EXPECT_MOVE("rdi", "r12", 1, -100000);
  EXPECT_MOVE("r8", "rdx", 2, 0);
  EXPECT_MOVE("r9", "rsi", 4, 1);
  EXPECT_MOVE("r12", "rdi", 8, 0);
  EXPECT_MOVE("r13", "r14", 1, 0);
  EXPECT_MOVE("r13", "r15", 2, 64);
  EXPECT_MOVE("r14", "r13", 1, 4096);
  EXPECT_MOVE("r15", "rax", 2, -1);
  alignas(64) unsigned char row[kAmxRowBytes];
  alignas(64) unsigned char rows[kAmxRows][kAmxRowBytes];
  for (unsigned char& byte : row) byte = static_cast<unsigned char>(random());
  __asm__ volatile("tileloadd (%0), %%tmm7" : : "r"(row) : "memory");
  tile_store<7>(rows, kAmxRowBytes);
  expect(std::memcmp(rows[0], row, sizeof row) == 0 && std::memcmp(rows[15], row, sizeof row) == 0,
         "without an index all rows are one");
}

TileConfig some_config;  // at an address relative to the instruction

// A configuration read and written by the given address, of which `value` goes into `reg`.
#define EXPECT_CONFIG(spelling, reg, value)                                                      \
  do {                                                                                           \
    some_config.rows[0] = static_cast<std::uint8_t>(some_config.rows[0] % kAmxRows + 1);         \
    const TileConfig wanted = some_config;                                                       \
    __asm__ volatile("mov %0, %%" reg "\n\tldtilecfg " spelling : : "r"(value) : reg, "memory"); \
    some_config = TileConfig{};                                                                  \
    __asm__ volatile("mov %0, %%" reg "\n\tsttilecfg " spelling : : "r"(value) : reg, "memory"); \
    expect(std::memcmp(&some_config, &wanted, sizeof wanted) == 0, "address %s", spelling);      \
  } while (false)

void addresses_of_configurations() {
  some_config = full_tiles();
  const auto address = reinterpret_cast<std::int64_t>(&some_config);
  EXPECT_CONFIG("(%%rax)", "rax", address);
  EXPECT_CONFIG("(%%r12)", "r12", address);
  EXPECT_CONFIG("(%%r13)", "r13", address);
  EXPECT_CONFIG("-8(%%rdx)", "rdx", address + 8);
  EXPECT_CONFIG("4096(%%r11)", "r11", address - 4096);
  EXPECT_CONFIG("(,%%rcx,8)", "rcx", address / 8);
  EXPECT_CONFIG("16(,%%r9,2)", "r9", address / 2 - 8);
  std::int64_t stack;
  __asm__("mov %%rsp, %0" : "=r"(stack));
  EXPECT_CONFIG("(%%rsp,%%rbx,1)", "rbx", address - stack);
  const TileConfig wanted = some_config;
  load_tile_config(some_config);
  some_config = TileConfig{};
  __asm__ volatile("sttilecfg %0" : "=m"(some_config));
  expect(std::memcmp(&some_config, &wanted, sizeof wanted) == 0, "relative address");
  release_tiles();
  __asm__ volatile("sttilecfg %0" : "=m"(some_config));
  const Bytes zeros(sizeof some_config);
  expect(std::memcmp(&some_config, zeros.data(), zeros.size()) == 0, "released: all zero");
  configure_tiles();
}

// How a child process that runs `body` ends, and what it wrote to stderr.
struct End {
  int status;
  std::string message;
};

template <class Body>
End end_of_child(Body body) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return {0, "no pipe"};
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    dup2(pipe_ends[1], STDERR_FILENO);
    body();
    _exit(0);
  }
  close(pipe_ends[1]);
  End end = {0, ""};
  char text[256];
  for (ssize_t count; (count = read(pipe_ends[0], text, sizeof text)) > 0;) {
    end.message.append(text, static_cast<std::size_t>(count));
  }
  close(pipe_ends[0]);
  waitpid(child, &end.status, 0);
  return end;
}

template <class Body>
void expect_refusal(bool hardware, const char* message, Body body) {
  const End end = end_of_child(body);
  expect(WIFSIGNALED(end.status), "ends the process: %s", message);
  if (hardware) return;
  expect(WTERMSIG(end.status) == SIGABRT && end.message.find(message) != std::string::npos,
         "\"%s\", not \"%s\"", message, end.message.c_str());
}

void misuse_ends_the_process(bool hardware) {
  expect_refusal(hardware, "before ldtilecfg", [] {
    release_tiles();
    tile_zero<0>();
  });
  expect_refusal(hardware, "gave no rows", [] {
    TileConfig config = full_tiles();
    config.rows[5] = 0;
    config.row_bytes[5] = 0;
    load_tile_config(config);
    tile_zero<5>();
  });
  expect_refusal(hardware, "rows without bytes", [] {
    TileConfig config = full_tiles();
    config.rows[5] = 0;
    load_tile_config(config);
  });
  expect_refusal(hardware, "more than 16 rows", [] {
    TileConfig config = full_tiles();
    config.rows[0] = 17;
    load_tile_config(config);
  });
  expect_refusal(hardware, "reserved byte", [] {
    TileConfig config = full_tiles();
    config.rows[8] = 1;
    load_tile_config(config);
  });
  expect_refusal(hardware, "A has other words than B has rows", [] {
    TileConfig config = full_tiles();
    config.rows[2] = 15;
    load_tile_config(config);
    tile_dot_bf16<0, 1, 2>();
  });
  expect_refusal(hardware, "not distinct", [] {
    __asm__ volatile(".byte 0xC4, 0xE2, 0x72, 0x5C, 0xC1");  // tdpbf16ps %tmm1, %tmm1, %tmm0
  });
}

void other_illegal_instructions_are_passed_on() {
  const End standard = end_of_child([] {
    std::signal(SIGILL, SIG_DFL);
    install_tile_unit();
    __asm__ volatile("ud2");
  });
  expect(WIFSIGNALED(standard.status) && WTERMSIG(standard.status) == SIGILL, "no handler before");
  const End chained = end_of_child([] {
    std::signal(SIGILL, [](int) { _exit(7); });
    install_tile_unit();
    install_tile_unit();
    configure_tiles();
    __asm__ volatile("ud2");
  });
  expect(WIFEXITED(chained.status) && WEXITSTATUS(chained.status) == 7, "the handler before");
}

}  // namespace

int main() {
  other_illegal_instructions_are_passed_on();  // first: the unit is installed in its children
  const bool hardware = request_processor_tiles();
  if (!hardware) install_tile_unit();
  Random random(1);
  configure_tiles();
  misuse_ends_the_process(hardware);
  addresses_of_rows(random);
  addresses_of_configurations();
  release_tiles();
  return report();
}
