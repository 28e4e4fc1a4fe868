#include "engine/loader.h"

#include <string>

namespace pysdk::engine {

namespace {

// The product, or nothing if it is above kMaxFloats.
bool product(const std::size_t* first, const std::size_t* last, std::size_t* result) {
  *result = 1;
  for (; first != last; ++first) {
    if (*first == 0 || *first > kMaxFloats / *result) return false;
    *result *= *first;
  }
  return true;
}

}  // namespace

ProgramLoader::ProgramLoader(Program& program, const std::vector<Weight>& weights,
                             const std::vector<Bytes>& sources)
    : program_(program), weights_(weights), sources_(sources) {
  for (const Bytes& source : sources) most_used_ += source.size / sizeof(float) * kMaxUses;
}

void ProgramLoader::load(const OpRecord& record) {
  const auto found = registry().find(record.name);
  const std::string number = "op " + std::to_string(op_);
  if (op_ == kMaxTensors) refuse("the program has more than 16384 ops");
  if (found == registry().end()) refuse(number + ": there is no op '" + record.name + "'");
  if (finished_) refuse(number + " '" + record.name + "' comes after the output");
  Fields fields(op_, record.name, record.fields);
  program_.ops_.push_back(found->second(fields, *this));
  fields.finish();
  packed_ += program_.ops_.back()->packed_floats();
  if (packed_ > kMaxFloats) fields.fail("weight", "brings the packed weights above 2^33 numbers");
  finished_ = record.name == "output";
  ++op_;
}

void ProgramLoader::finish() const {
  if (!finished_) refuse("the program has no output: its last op must be one");
  if (packed_ > kMaxGrowth * used_ + kSmallPacked) {
    refuse("the packed weights have " + std::to_string(packed_) + " numbers, more than sixteen times the " +
           std::to_string(used_) + " that are used");
  }
}

const Tensor& ProgramLoader::read(Fields& fields, const char* name, std::int64_t index) {
  Lifetime& lifetime = at(fields, name, index);
  if (lifetime.first == kNever || lifetime.first == op_) {
    fields.fail(name, "is tensor " + std::to_string(index) + ", which is not written before");
  }
  lifetime.last = op_;
  count(static_cast<std::size_t>(index));
  return program_.tensors_[static_cast<std::size_t>(index)];
}

const Tensor& ProgramLoader::write(Fields& fields, const char* name, std::int64_t index) {
  Lifetime& lifetime = at(fields, name, index);
  if (lifetime.first != kNever) {
    fields.fail(name, "is tensor " + std::to_string(index) + ", which is written already");
  }
  lifetime.first = lifetime.last = op_;
  count(static_cast<std::size_t>(index));
  return program_.tensors_[static_cast<std::size_t>(index)];
}

Constant ProgramLoader::constant(Fields& fields, const char* name, const std::vector<std::size_t>& shape) {
  const auto index = fields.integer(name, 0, static_cast<std::int64_t>(weights_.size()) - 1);
  const Weight& weight = weights_[static_cast<std::size_t>(index)];
  const std::string which = "is weight " + std::to_string(index) + ", ";
  bool fits = weight.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == 0 || shape[i] == weight.shape[i];
  if (!fits) fields.fail(name, which + "which has another shape than is needed");
  std::size_t floats, rows = 0;
  if (!product(weight.shape.data(), weight.shape.data() + weight.shape.size(), &floats)) {
    fields.fail(name, which + "whose shape is empty or too large");
  }
  Constant found{weight.shape, {}};
  const std::size_t columns = floats / weight.shape[0];
  for (const WeightPart& part : weight.parts) {
    if (part.columns != columns || part.rows == 0 || part.rows > weight.shape[0] - rows) {
      fields.fail(name, which + "which has a part of another shape");
    }
    if (part.source >= sources_.size() || part.offset > sources_[part.source].size ||
        part.rows * columns > (sources_[part.source].size - part.offset) / sizeof(float)) {
      fields.fail(name, which + "which has a part beyond its source");
    }
    found.pieces.push_back({sources_[part.source].data + part.offset, part.rows, columns, part.transposed});
    rows += part.rows;
  }
  if (rows != weight.shape[0]) {
    fields.fail(name, which + "whose parts have " + std::to_string(rows) + " rows in place of " +
                          std::to_string(weight.shape[0]));
  }
  used_ += floats;
  if (used_ > most_used_) {
    fields.fail(name, which + "with which the program uses more than four times the weights it has");
  }
  return found;
}

void ProgramLoader::count(std::size_t tensor) {
  const Tensor& moved = program_.tensors_[tensor];
  (moved.shared ? program_.moved_once_ : program_.moved_) += static_cast<double>(moved.floats());
}

Lifetime& ProgramLoader::at(Fields& fields, const char* name, std::int64_t index) {
  fields.bounded(name, index, 0, static_cast<std::int64_t>(program_.tensors_.size()) - 1);
  return program_.lifetimes_[static_cast<std::size_t>(index)];
}

}  // namespace pysdk::engine
