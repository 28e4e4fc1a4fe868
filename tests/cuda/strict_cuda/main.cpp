// Runs one case by its name, or lists them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "cases.h"

namespace {

std::map<std::string, void (*)()>& cases() {
  static std::map<std::string, void (*)()> all;
  return all;
}

}  // namespace

Case::Case(const char* name, void (*run)()) { cases()[name] = run; }

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::fflush(stderr);
  std::_Exit(1);
}

void require_nothing_left() {
  for (const std::string& left : strict::leaks()) require(false, "left: " + left);
}

int main(int count, char** arguments) {
  if (count < 2) {
    for (const auto& [name, run] : cases()) std::puts(name.c_str());
    return 0;
  }
  const auto found = cases().find(arguments[1]);
  require(found != cases().end(), "there is no such case");
  found->second();
  require_nothing_left();
  return 0;
}
