// The fields of one op of a program, as they stand in the plan: read by name, checked, and none left over.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace pysdk::engine {

using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>>;

class Fields {
 public:
  // The op's number and name are for messages.
  Fields(std::size_t number, const std::string& op, std::map<std::string, Value> values)
      : op_("op " + std::to_string(number) + " '" + op + "'"), values_(std::move(values)) {}

  bool has(const std::string& name) const { return values_.count(name) != 0; }

  std::int64_t integer(const std::string& name, std::int64_t low, std::int64_t high) {
    return bounded(name, get<std::int64_t>(name, "a whole number"), low, high);
  }
  double number(const std::string& name) { return get<double>(name, "a number with a decimal point"); }
  bool flag(const std::string& name) { return get<bool>(name, "true or false"); }
  const std::string& text(const std::string& name) { return get<std::string>(name, "a text"); }
  const std::vector<std::int64_t>& integers(const std::string& name, std::size_t least, std::size_t most) {
    const auto& values = get<std::vector<std::int64_t>>(name, "a list of whole numbers");
    if (values.size() < least || values.size() > most) {
      fail(name, "has " + std::to_string(values.size()) + " entries, expected " + std::to_string(least) +
                     (most == least ? "" : " to " + std::to_string(most)));
    }
    return values;
  }

  std::int64_t bounded(const std::string& name, std::int64_t value, std::int64_t low,
                       std::int64_t high) const {
    if (value < low || value > high) {
      fail(name, "is " + std::to_string(value) + ", expected " + std::to_string(low) + " to " +
                     std::to_string(high));
    }
    return value;
  }
  [[noreturn]] void fail(const std::string& name, const std::string& what) const {
    throw std::invalid_argument(op_ + ": " + name + " " + what);
  }
  // Refuses fields that nobody has read.
  void finish() const {
    for (const auto& [name, value] : values_) {
      if (used_.count(name) == 0) fail(name, "is not a field of this op");
    }
  }

 private:
  template <class T>
  const T& get(const std::string& name, const char* expected) {
    const auto found = values_.find(name);
    if (found == values_.end()) fail(name, "is missing");
    used_.insert(name);
    const T* value = std::get_if<T>(&found->second);
    if (value == nullptr) fail(name, std::string("is not ") + expected);
    return *value;
  }

  std::string op_;
  std::map<std::string, Value> values_;
  std::set<std::string> used_;
};

}  // namespace pysdk::engine
