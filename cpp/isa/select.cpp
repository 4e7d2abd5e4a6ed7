#include "select.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "detect.h"
#include "numattn/isa.h"

namespace numattn {

#define NUMATTN_ISA(name, required) const Kernels& kernels_##name() noexcept;
#include "isa.inc"
#undef NUMATTN_ISA

namespace {

struct IsaRow {
  const char* name;
  std::uint32_t required;
  const Kernels& (*kernels)();
};

#define NUMATTN_ISA(name, required) {#name, required, kernels_##name},
constexpr IsaRow kIsas[] = {
#include "isa.inc"
};
#undef NUMATTN_ISA

std::uint32_t machine_features() {
  static const std::uint32_t features = detect_features();
  return features;
}

bool runs_on(const IsaRow& row, std::uint32_t features) {
  return (row.required & features) == row.required;
}

const IsaRow& best_isa() {
  const IsaRow* best = &kIsas[0];
  for (const IsaRow& row : kIsas) {
    if (runs_on(row, machine_features())) best = &row;
  }
  return *best;
}

// Null where there is none of that name here.
const IsaRow* find_isa(const std::string& name) {
  for (const IsaRow& row : kIsas) {
    if (row.name == name && runs_on(row, machine_features())) return &row;
  }
  return nullptr;
}

[[noreturn]] void refuse_isa(const std::string& who, const std::string& name) {
  std::string names;
  for (const std::string& known : available_isas()) names += (names.empty() ? "" : ", ") + known;
  throw std::invalid_argument(who + "instruction set '" + name +
                              "' is unknown or not available here; available: " + names);
}

// What NUMATTN_ISA asks for; without it, the best.
const IsaRow& first_choice() {
  const char* wanted = std::getenv("NUMATTN_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_isa();
  const std::string name = wanted;
  const IsaRow* row = find_isa(name);
  if (row == nullptr) refuse_isa("NUMATTN_ISA='" + name + "': ", name);
  return *row;
}

std::atomic<const IsaRow*> chosen{nullptr};

const IsaRow& current_row() {
  const IsaRow* row = chosen.load(std::memory_order_acquire);
  if (row != nullptr) return *row;
  const IsaRow* first = &first_choice();
  // Unless another thread has chosen meanwhile.
  return chosen.compare_exchange_strong(row, first, std::memory_order_acq_rel) ? *first : *row;
}

}  // namespace

const Kernels& current_kernels() { return current_row().kernels(); }

const char* current_isa() { return current_row().name; }

std::vector<std::string> isas_for(std::uint32_t features) {
  std::vector<std::string> names;
  for (const IsaRow& row : kIsas) {
    if (runs_on(row, features)) names.emplace_back(row.name);
  }
  return names;
}

std::vector<std::string> available_isas() { return isas_for(machine_features()); }

void use_isa(const std::string& name) {
  const IsaRow* row = find_isa(name);
  if (row == nullptr) refuse_isa("", name);
  chosen.store(row, std::memory_order_release);
}

std::string cpu_features() { return feature_names(machine_features()); }

}  // namespace numattn
