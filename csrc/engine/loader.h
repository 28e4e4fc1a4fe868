// Makes a program's ops from their records, checking every tensor, constant and total.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/limits.h"
#include "engine/program.h"

namespace pysdk::engine {

class ProgramLoader : public Loader {
 public:
  ProgramLoader(Program& program, const std::vector<Weight>& weights, const std::vector<Bytes>& sources);

  // Throws std::invalid_argument, naming the op and the field.
  void load(const OpRecord& record);
  void finish() const;

  using Loader::read;
  using Loader::write;

  const Tensor& read(Fields& fields, const char* name, std::int64_t index) override;
  const Tensor& write(Fields& fields, const char* name, std::int64_t index) override;
  Constant constant(Fields& fields, const char* name, const std::vector<std::size_t>& shape) override;
  const Tensor& image_in() const override { return program_.image_in_; }
  const Tensor& image_out() const override { return program_.image_out_; }

 private:
  void count(std::size_t tensor);
  Lifetime& at(Fields& fields, const char* name, std::int64_t index);

  Program& program_;
  const std::vector<Weight>& weights_;
  const std::vector<Bytes>& sources_;
  std::size_t op_ = 0, packed_ = 0, used_ = 0, most_used_ = kSmall;
  bool finished_ = false;  // the output has been read
};

}  // namespace pysdk::engine
