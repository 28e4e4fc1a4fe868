#include "engine/network.h"

#include <chrono>
#include <stdexcept>
#include <utility>

#include "base/guard.h"

namespace pysdk::engine {

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
