#include "engine/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "base/guard.h"

namespace pysdk::engine {

namespace {

constexpr std::size_t kMaxChannels = 1 << 16;
constexpr std::size_t kMaxSide = 1 << 14;
constexpr std::size_t kMaxTensors = 1 << 14;              // also of ops; the largest networks have a tenth
constexpr std::size_t kMaxFloats = std::size_t{1} << 33;  // in one tensor, or in all weights: 32 GiB
constexpr std::size_t kMaxWork = std::size_t{1} << 34;    // floats in a network's memory
// A small file must not ask for much memory. Networks need far less than this: 64 Ki numbers in one tensor
// per pixel of the image, and every weight used four times; a little more for small ones.
constexpr std::size_t kMaxPerPixel = 1 << 16, kMaxUses = 4;
constexpr std::size_t kSmall = 1 << 20;
// Packed weights over those that are used: four times as many when transformed, and padded in small layers. A
// little more where there are few.
constexpr std::size_t kMaxGrowth = 16, kSmallPacked = 1 << 24;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

void check_tensor(const Tensor& tensor, const std::string& name) {
  if (tensor.channels < 1 || tensor.channels > kMaxChannels || tensor.height < 1 ||
      tensor.height > kMaxSide || tensor.width < 1 || tensor.width > kMaxSide ||
      tensor.floats() > kMaxFloats) {
    refuse(name + " is " + std::to_string(tensor.channels) + " x " + std::to_string(tensor.height) + " x " +
           std::to_string(tensor.width) + ", expected 1 to " + std::to_string(kMaxChannels) +
           " channels, sides from 1 to " + std::to_string(kMaxSide) + " and at most 2^33 numbers in all");
  }
}

// The product, or nothing if it is above kMaxFloats.
bool product(const std::size_t* first, const std::size_t* last, std::size_t* result) {
  *result = 1;
  for (; first != last; ++first) {
    if (*first == 0 || *first > kMaxFloats / *result) return false;
    *result *= *first;
  }
  return true;
}

// Pixels of a batch that run together: more gain nothing, and their maps leave the caches.
std::size_t images_at_once(const Tensor& image) {
  constexpr std::size_t kPixels = 1 << 14;
  return std::max<std::size_t>(1, kPixels / image.pixels());
}

}  // namespace

std::size_t Constant::floats() const {
  std::size_t floats = shape.empty() ? 0 : 1;
  for (const std::size_t size : shape) floats *= size;
  return floats;
}

std::vector<float> Constant::read(Lookout* lookout) const {
  std::vector<float> values(floats());
  float* to = values.data();
  for (const Piece& piece : pieces) {
    // memcpy: in a foreign file numbers may lie at any address
    const auto leave = [&](std::size_t copied) {
      return lookout != nullptr && lookout->leave(copied * kCopyCost);
    };
    if (!piece.transposed) {
      const std::size_t row_bytes = piece.columns * sizeof(float);
      for (std::size_t row = 0; row < piece.rows; ++row) {
        if (leave(piece.columns)) return values;
        std::memcpy(to + row * piece.columns, piece.data + row * row_bytes, row_bytes);
      }
    } else {
      const unsigned char* from = piece.data;
      for (std::size_t column = 0; column < piece.columns; ++column) {
        if (leave(piece.rows)) return values;
        for (std::size_t row = 0; row < piece.rows; ++row, from += sizeof(float)) {
          std::memcpy(to + row * piece.columns + column, from, sizeof(float));
        }
      }
    }
    to += piece.rows * piece.columns;
  }
  return values;
}

class ProgramLoader : public Loader {
 public:
  ProgramLoader(Program& program, const std::vector<Weight>& weights, const std::vector<Bytes>& sources)
      : program_(program), weights_(weights), sources_(sources) {
    for (const Bytes& source : sources) most_used_ += source.size / sizeof(float) * kMaxUses;
  }

  void load(const OpRecord& record) {
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
  void finish() const {
    if (!finished_) refuse("the program has no output: its last op must be one");
    if (packed_ > kMaxGrowth * used_ + kSmallPacked) {
      refuse("the packed weights have " + std::to_string(packed_) + " numbers, more than sixteen times the " +
             std::to_string(used_) + " that are used");
    }
  }

  using Loader::read;
  using Loader::write;

  const Tensor& read(Fields& fields, const char* name, std::int64_t index) override {
    Lifetime& lifetime = at(fields, name, index);
    if (lifetime.first == kNever || lifetime.first == op_) {
      fields.fail(name, "is tensor " + std::to_string(index) + ", which is not written before");
    }
    lifetime.last = op_;
    count(static_cast<std::size_t>(index));
    return program_.tensors_[static_cast<std::size_t>(index)];
  }

  const Tensor& write(Fields& fields, const char* name, std::int64_t index) override {
    Lifetime& lifetime = at(fields, name, index);
    if (lifetime.first != kNever) {
      fields.fail(name, "is tensor " + std::to_string(index) + ", which is written already");
    }
    lifetime.first = lifetime.last = op_;
    count(static_cast<std::size_t>(index));
    return program_.tensors_[static_cast<std::size_t>(index)];
  }

  Constant constant(Fields& fields, const char* name, const std::vector<std::size_t>& shape) override {
    const auto index = fields.integer(name, 0, static_cast<std::int64_t>(weights_.size()) - 1);
    const Weight& weight = weights_[static_cast<std::size_t>(index)];
    const std::string which = "is weight " + std::to_string(index) + ", ";
    bool fits = weight.shape.size() == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i)
      fits = shape[i] == 0 || shape[i] == weight.shape[i];
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

  const Tensor& image_in() const override { return program_.image_in_; }
  const Tensor& image_out() const override { return program_.image_out_; }

 private:
  void count(std::size_t tensor) {
    const Tensor& moved = program_.tensors_[tensor];
    (moved.shared ? program_.moved_once_ : program_.moved_) += static_cast<double>(moved.floats());
  }

  Lifetime& at(Fields& fields, const char* name, std::int64_t index) {
    fields.bounded(name, index, 0, static_cast<std::int64_t>(program_.tensors_.size()) - 1);
    return program_.lifetimes_[static_cast<std::size_t>(index)];
  }

  Program& program_;
  const std::vector<Weight>& weights_;
  const std::vector<Bytes>& sources_;
  std::size_t op_ = 0, packed_ = 0, used_ = 0, most_used_ = kSmall;
  bool finished_ = false;  // the output has been read
};

Program::Program(const Tensor& image_in, std::size_t out_channels, std::vector<Tensor> tensors,
                 const std::vector<Weight>& weights, const std::vector<OpRecord>& ops,
                 const std::vector<Bytes>& sources, Watch& watch)
    : image_in_(image_in),
      image_out_{out_channels, image_in.height, image_in.width, false},
      tensors_(std::move(tensors)),
      lifetimes_(tensors_.size()) {
  check_tensor(image_in_, "the image");
  check_tensor(image_out_, "the output");
  if (tensors_.size() > kMaxTensors) refuse("the program has more than 16384 tensors");
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const std::string name = "tensor " + std::to_string(i);
    check_tensor(tensors_[i], name);
    if (tensors_[i].floats() > image_in_.pixels() * kMaxPerPixel + kSmall) {
      refuse(name + " has " + std::to_string(tensors_[i].floats()) +
             " numbers, more than 65536 per pixel of the image");
    }
  }
  ProgramLoader loader(*this, weights, sources);
  for (const OpRecord& op : ops) {
    if (watch.look()) watch.leave();
    loader.load(op);
  }
  loader.finish();
}

std::size_t Program::packed_floats() const {
  std::size_t floats = 0;
  for (const auto& op : ops_) floats += op->packed_floats() + kGuard;
  return floats;
}

void Program::pack(std::size_t threads, Watch& watch) {
  if (is_packed_) throw std::runtime_error("the program is packed already");
  packed_ = Pages(packed_floats());
  Workers workers(threads, Spin::kBriefly);
  workers.watch(&watch);
  float* to = packed_.data();
  for (const auto& op : ops_) {
    op->pack(to, workers);
    watch.leave();
    to += op->packed_floats() + kGuard;
    guard(to - kGuard, kGuard);
  }
  is_packed_ = true;
}

std::size_t Program::parts(std::size_t batch) const {
  const std::size_t at_once = images_at_once(image_in_);
  return (batch + at_once - 1) / at_once;
}

Program::Needs Program::needs(std::size_t batch, std::size_t threads) const {
  Needs needs{batch / parts(batch), (batch + parts(batch) - 1) / parts(batch), {}, 0, 0};
  std::vector<std::size_t> sizes;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].floats() > kMaxFloats / needs.most) {
      refuse("a batch of " + std::to_string(batch) + " is too large");
    }
    sizes.push_back(size(i, needs.most));
  }
  needs.arena = lay_out(sizes, lifetimes_);
  for (const auto& op : ops_) {
    for (const std::size_t images : {needs.least, needs.most}) {
      needs.scratch = std::max(needs.scratch, padded(op->scratch_floats(images)));
      needs.common = std::max(needs.common, op->common_doubles(images));
    }
  }
  needs.scratch += kGuard + kLanes;  // workers' memory apart by an odd number of cache lines
  if (needs.arena.floats > kMaxWork || needs.common > kMaxWork || needs.scratch > kMaxWork / threads) {
    refuse("a batch of " + std::to_string(batch) + " on " + std::to_string(threads) +
           " threads needs more than 64 GiB");
  }
  return needs;
}

Cost Program::cost(std::size_t batch, std::size_t threads) const {
  const Needs needs = this->needs(batch, threads);
  std::size_t kept = 0, packing = 0;
  for (const auto& op : ops_) {
    kept += op->kept_floats();
    packing = std::max(packing, op->packing_floats(threads));
  }
  Cost cost{};
  cost.weights = (packed_floats() + kept) * sizeof(float);
  cost.loading = packing * sizeof(float);
  cost.network =
      (needs.arena.floats + needs.scratch * threads) * sizeof(float) + needs.common * sizeof(double);
  const std::size_t all = parts(batch), large = batch - all * needs.least;  // parts with an image more
  for (const auto& op : ops_) {
    cost.multiplications += static_cast<double>(all - large) * op->multiplications(needs.least);
    if (large != 0) cost.multiplications += static_cast<double>(large) * op->multiplications(needs.most);
  }
  cost.moved = static_cast<double>(batch) * moved_ + static_cast<double>(all) * moved_once_;
  return cost;
}

Network::Network(std::shared_ptr<const Program> program, std::size_t batch, const Ports& ports,
                 std::size_t threads)
    : program_(std::move(program)),
      batch_(batch),
      parts_(program_->parts(batch)),
      workers_(threads, Spin::kBriefly) {
  if (!program_->packed()) throw std::runtime_error("the program is not packed");
  const Program::Needs needs = program_->needs(batch, threads);
  const std::vector<std::size_t>& offsets = needs.arena.offsets;
  const std::size_t scratch = needs.scratch;
  arena_ = Pages(needs.arena.floats);
  scratch_ = Pages(scratch * threads);
  common_ = AlignedArray<double>(needs.common);
  for (const std::size_t offset : offsets) tensors_.push_back(arena_.data() + offset);
  for (std::size_t i = 0; kGuard != 0 && i < offsets.size(); ++i) {
    if (program_->lifetimes_[i].first != kNever) guard(tensors_[i] + program_->size(i, needs.most), kGuard);
  }
  for (std::size_t worker = 1; worker <= threads; ++worker) {
    guard(scratch_.data() + worker * scratch - kGuard, kGuard);
  }
  frame_ = {needs.most, ports, &workers_, tensors_.data(), scratch_.data(), scratch, common_.data()};
}

Frame Network::part_of_frame(std::size_t part) const {
  const std::size_t first = first_image(part);
  const Tensor &in = program_->image_in_, &out = program_->image_out_;
  Frame frame = frame_;
  frame.batch = first_image(part + 1) - first;
  frame.ports.input += first * in.channels * in.pixels();
  frame.ports.labels += first;
  frame.ports.output += first * out.channels * out.pixels();
  return frame;
}

std::vector<double> Network::profile(Watch& watch) {
  std::vector<double> seconds;
  run(watch, &seconds);
  return seconds;
}

void Network::run(Watch& watch, std::vector<double>* seconds) {
  if (busy_.exchange(true)) {
    throw std::runtime_error("the network is already running on another thread; bind one per thread");
  }
  struct Release {
    std::atomic<bool>& flag;
    ~Release() { flag = false; }
  } release{busy_};
  workers_.watch(&watch);
  using Clock = std::chrono::steady_clock;
  if (seconds != nullptr) seconds->assign(program_->ops_.size(), 0.0);
  Clock::time_point before = Clock::now();
  for (std::size_t part = 0; part < parts_; ++part) {
    const Frame frame = part_of_frame(part);
    for (std::size_t op = 0; op < program_->ops_.size(); ++op) {
      program_->ops_[op]->run(frame);
      watch.leave();
      if (seconds == nullptr) continue;
      const Clock::time_point now = Clock::now();
      (*seconds)[op] += std::chrono::duration<double>(now - before).count();
      before = now;
    }
  }
}

}  // namespace pysdk::engine
