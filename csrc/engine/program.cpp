#include "engine/program.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/guard.h"
#include "engine/limits.h"
#include "engine/loader.h"

namespace pysdk::engine {

namespace {

void check_tensor(const Tensor& tensor, const std::string& name) {
  if (tensor.channels < 1 || tensor.channels > kMaxChannels || tensor.height < 1 ||
      tensor.height > kMaxSide || tensor.width < 1 || tensor.width > kMaxSide ||
      tensor.floats() > kMaxFloats) {
    refuse(name + " is " + std::to_string(tensor.channels) + " x " + std::to_string(tensor.height) + " x " +
           std::to_string(tensor.width) + ", expected 1 to " + std::to_string(kMaxChannels) +
           " channels, sides from 1 to " + std::to_string(kMaxSide) + " and at most 2^33 numbers in all");
  }
}

// Pixels of a batch that run together: more gain nothing, and their maps leave the caches.
std::size_t images_at_once(const Tensor& image) {
  constexpr std::size_t kPixels = 1 << 14;
  return std::max<std::size_t>(1, kPixels / image.pixels());
}

}  // namespace

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

}  // namespace pysdk::engine
