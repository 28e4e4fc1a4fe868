#include "cuda/cuda_chain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>

#include "noise/philox.h"

namespace pysdk::cuda {

namespace {

constexpr std::int64_t kRunAhead =
    64;  // rows enqueued before the first of them is done, on the plainer paths

Task sizes_of(const ChainShape& shape) {
  Task task{};
  task.batch = static_cast<std::uint32_t>(shape.batch);
  task.image = shape.image();
  task.groups = static_cast<std::uint32_t>((task.image + 3) / 4);
  task.output = shape.output();
  task.guided = shape.guided;
  task.whole_groups = task.image % 4 == 0;  // outputs are one or two images, so they are aligned as well
  return task;
}

std::shared_ptr<Block> floats(const std::shared_ptr<Device>& device, std::size_t count) {
  return std::make_shared<Block>(device, count * sizeof(float));
}

}  // namespace

CudaChain::CudaChain(std::shared_ptr<Device> device, const ChainShape& shape)
    : shape_((shape.validate(), shape)),
      device_(std::move(device)),
      stream_(device_),
      side_(device_),
      mailbox_(device_),
      input_(floats(device_, shape.network_batch() * shape.image())),
      time_(floats(device_, 1)),
      labels_(std::make_shared<Block>(device_, shape.network_batch() * sizeof(std::int64_t))),
      output_(floats(device_, shape.network_batch() * shape.output())),
      gradient_(shape.classifier ? floats(device_, shape.elements()) : nullptr),
      x_(floats(device_, shape.elements())),
      d1_(floats(device_, shape.elements())),
      task_memory_(std::make_shared<Block>(device_, sizeof(Task))),
      place_memory_(std::make_shared<Block>(device_, sizeof(Place))),
      broken_(
          std::make_shared<Block>(device_, static_cast<std::size_t>(shape.batch) * sizeof(std::uint32_t))),
      task_(sizes_of(shape)) {}

CudaChain::~CudaChain() {
  try {
    stop_now();
  } catch (const Error&) {  // the device is lost, and its memory with it
  }
}

std::size_t CudaChain::bytes() const {
  std::size_t total = 0;
  for (const auto* block :
       {&input_,       &time_,         &labels_, &output_, &gradient_,    &x_,        &d1_,
        &task_memory_, &place_memory_, &rows_,   &seeds_,  &images_,      &guidance_, &scales_,
        &initial_,     &known_,        &keep_,   &noise_,  &known_noise_, &d2_,       &y_,
        &raw_,         &threshold_,    &ring_,   &broken_}) {
    if (*block) total += (*block)->bytes();
  }
  return total;
}

void CudaChain::attach(DeviceNetworks networks) {
  const Busy busy(busy_);
  check_attached(shape_, networks.conditional != nullptr, networks.classifier != nullptr);
  stop_now();
  graphs_.clear();
  warmed_ = 0;
  refused_ = {};
  std::swap(networks_, networks);
}

void CudaChain::begin(Program program, Way way, std::int32_t every, std::int32_t slots) {
  const Busy busy(busy_);
  check_program(shape_, program);
  if (program.noise && way.forced && way.path == Path::kWhile) {
    throw std::invalid_argument(
        "path is 'while', but noise is given by a function, which is called on the host before each row; use "
        "'step'");
  }
  if (program.clip == ClipKind::kDynamic && shape_.image() >= std::uint64_t{1} << 32) {
    throw std::invalid_argument("images of 2^32 elements or more have no dynamic threshold on the device");
  }
  if (every < 0 || slots < 0 || (every > 0) != (slots > 0)) {
    throw std::invalid_argument("snapshots need both every and slots above 0; 0 and 0 for none");
  }
  std::vector<float> noise(program.noise ? shape_.elements() : 0);
  if (program.noise && program.initial.empty()) program.noise(kInitial, noise.data());

  stop_now();
  length_ = launched_ = 0;  // until all is in place there is no chain
  std::swap(program_, program);
  host_noise_ = std::move(noise);
  way_ = way;
  task_ = sizes_of(shape_);
  task_.every = every;
  task_.slots = slots;
  upload_program();
  mailbox_.get()->position = 0;
  device_->start(task_, task_memory_->as<Task>(), stream_.get());
  length_ = task_.length;
}

void CudaChain::upload_program() {
  const std::size_t elements = shape_.elements() * sizeof(float);
  const auto put = [this](std::shared_ptr<Block>& block, const auto& values) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    if (values.empty()) return static_cast<Value*>(nullptr);
    reserve(block, device_, values.size() * sizeof(Value));
    device_->upload(block->data(), values.data(), values.size() * sizeof(Value), stream_.get());
    return block->as<Value>();
  };
  const auto room = [this](std::shared_ptr<Block>& block, std::size_t bytes, bool needed) {
    if (!needed) return static_cast<float*>(nullptr);
    reserve(block, device_, bytes);
    return block->as<float>();
  };
  const auto uses = [this](auto test) {
    return std::any_of(program_.rows.begin(), program_.rows.end(), test);
  };

  std::vector<std::int64_t> labels(shape_.network_batch(), program_.null_label);
  std::copy(program_.labels.begin(), program_.labels.end(), labels.begin());
  put(labels_, labels);

  const double position = program_.clip_ratio * static_cast<double>(shape_.image() - 1);
  const double floor = std::floor(position);
  const bool dynamic = program_.clip == ClipKind::kDynamic;
  task_.length = static_cast<std::int32_t>(program_.rows.size());
  task_.clip = program_.clip;
  task_.clip_limit = program_.clip_limit;
  task_.clip_max = program_.clip_max;
  task_.rank = dynamic ? static_cast<std::uint32_t>(floor) : 0;
  task_.fraction = static_cast<float>(position - floor);
  task_.init_scale = program_.init_scale;
  task_.learned_variance = program_.learned_variance;
  task_.rows = put(rows_, program_.rows);
  task_.seeds = put(seeds_, program_.seeds);
  task_.images = put(images_, program_.images);
  task_.guidance = put(guidance_, program_.guidance);
  task_.classifier_scale = put(scales_, program_.classifier_scale);
  task_.initial = put(initial_, program_.initial);
  task_.known = put(known_, program_.known);
  task_.keep = put(keep_, program_.keep);
  task_.noise = room(noise_, elements, program_.noise != nullptr);
  task_.known_noise = room(known_noise_, elements, program_.noise && !program_.known.empty());
  task_.d2 = room(d2_, elements, uses([](const Row& row) { return row.c2 != 0.0f; }));
  task_.y = room(y_, elements, uses([](const Row& row) { return row.g != 0.0f; }));
  task_.raw = room(raw_, elements, dynamic);
  task_.threshold = room(threshold_, static_cast<std::size_t>(shape_.batch) * sizeof(float), dynamic);
  const auto slots = static_cast<std::size_t>(task_.slots);
  task_.ring_x = room(ring_, 2 * slots * elements, slots > 0);
  task_.ring_denoised = slots > 0 ? task_.ring_x + slots * shape_.elements() : nullptr;
  task_.input = input_->as<float>();
  task_.time = time_->as<float>();
  task_.output_tensor = output_->as<float>();
  task_.gradient = gradient_ ? gradient_->as<float>() : nullptr;
  task_.x = x_->as<float>();
  task_.d1 = d1_->as<float>();
  if (program_.noise) put(noise_, host_noise_);

  const Place place{0, 0};
  device_->upload(task_memory_->data(), &task_, sizeof task_, stream_.get());
  device_->upload(place_memory_->data(), &place, sizeof place, stream_.get());
  // the program's arrays are only needed here from now on
  for (auto* values : {&program_.initial, &program_.known}) std::vector<float>().swap(*values);
  std::vector<std::uint8_t>().swap(program_.keep);
}

Wiring CudaChain::wiring() const {
  return {device_,
          stream_.get(),
          task_,
          task_memory_->as<Task>(),
          place_memory_->as<Place>(),
          mailbox_.get(),
          program_.clip == ClipKind::kDynamic};
}

std::uint32_t CudaChain::calls(std::int64_t row) const {
  return calls_of(program_.rows[static_cast<std::size_t>(row)], networks_.conditional != nullptr);
}

std::uint32_t CudaChain::kinds() const {
  std::uint32_t result = 0;
  for (std::int64_t row = 0; row < length_; ++row) result |= 1u << calls(row);
  return result;
}

// Each network of these calls runs once outside a capture first: what it loads and allocates lazily is there
// then.
void CudaChain::warm_up(std::uint32_t calls) {
  if ((calls & ~warmed_) == 0) return;
  enqueue_calls(wiring(), networks_, calls & ~warmed_);
  device_->synchronize(stream_.get());
  warmed_ |= calls;
}

template <typename Make>
OwnedGraph& CudaChain::cached(std::uint32_t key, Make&& make) {
  const auto found =
      std::find_if(graphs_.begin(), graphs_.end(), [key](const Cached& c) { return c.key == key; });
  if (found != graphs_.end()) {
    graphs_.splice(graphs_.begin(), graphs_, found);
  } else {
    graphs_.push_front({key, make()});
    if (graphs_.size() > kMaxGraphs) graphs_.pop_back();
  }
  return *graphs_.front().graph;
}

OwnedGraph& CudaChain::whole_chain_graph() {
  const std::uint32_t present = kinds();
  const Wiring wires = wiring();
  return cached(present | (wires.dynamic ? 1u << 8 : 0u) | 1u << 9, [&] {
    for (std::uint32_t calls = 1; calls < 8; ++calls) {
      if (present >> calls & 1u) warm_up(calls);
    }
    return OwnedGraph::whole_chain(wires, networks_, present);
  });
}

OwnedGraph& CudaChain::row_graph(std::uint32_t calls) {
  const Wiring wires = wiring();
  return cached(calls | (wires.dynamic ? 1u << 8 : 0u), [&] {
    warm_up(calls);
    return OwnedGraph::one_row(wires, networks_, calls);
  });
}

// The best path that is allowed and not refused. What was refused stays so until other networks are attached.
void CudaChain::choose_path() {
  why_.clear();
  path_ = way_.path;
  if (program_.noise && path_ == Path::kWhile) {
    why_ = "noise is given by a function, which is called on the host before each row";
    path_ = Path::kStep;
  }
  for (; path_ != Path::kPlain; path_ = path_ == Path::kWhile ? Path::kStep : Path::kPlain) {
    std::string& refused = refused_[path_ == Path::kWhile ? 0 : 1];
    if (refused.empty() || way_.forced) {
      try {
        if (path_ == Path::kWhile) {
          whole_chain_graph();
        } else {
          for (std::uint32_t calls = 0, present = kinds(); calls < 8; ++calls) {
            if (present >> calls & 1u) row_graph(calls);
          }
        }
        return;
      } catch (const CaptureRefused& error) {
        if (way_.forced) throw;
        refused = error.what();
      }
    }
    why_ += (why_.empty() ? "" : "; ") + refused;
  }
}

void CudaChain::set_until(std::int64_t until) {
  const auto value = static_cast<std::int32_t>(until);
  device_->upload(&place_memory_->as<Place>()->until, &value, sizeof value, stream_.get());
}

// Ends a loop that runs, after the row it is in or a few more, and waits for the device.
void CudaChain::stop_now() {
  mailbox_.get()->stop = 1;
  device_->synchronize(stream_.get());
  mailbox_.get()->stop = 0;
  launched_ = mailbox_.get()->position;
}

void CudaChain::launch(std::int64_t count, const Poll& poll) {
  const Busy busy(busy_);
  check_advance(shape_, count, length_, networks_.denoiser != nullptr, networks_.classifier != nullptr);
  const std::int64_t until = launched_ + std::min(count, length_ - launched_);
  if (until == launched_) return;
  choose_path();
  if (path_ != Path::kWhile) {
    run_rows(until, poll);
    return;
  }
  OwnedGraph& graph = whole_chain_graph();
  set_until(until);
  graph.launch(stream_.get());
  launched_ = until;
}

void CudaChain::run_rows(std::int64_t until, const Poll& poll) {
  try {
    for (; launched_ < until; ++launched_) {
      poll();
      while (launched_ - position() > kRunAhead && !device_->finished(stream_.get())) poll();
      feed_noise(launched_);
      const std::uint32_t made = calls(launched_);
      if (path_ == Path::kStep) {
        row_graph(made).launch(stream_.get());
      } else {
        enqueue_calls(wiring(), networks_, made);
        enqueue_update(wiring(), nullptr);
      }
    }
  } catch (...) {
    stop_now();
    throw;
  }
}

void CudaChain::feed_noise(std::int64_t row) {
  if (!program_.noise) return;
  const Row& c = program_.rows[static_cast<std::size_t>(row)];
  const auto feed = [this](std::int64_t draw, const Block& to) {
    program_.noise(draw, host_noise_.data());
    device_->upload(to.data(), host_noise_.data(), host_noise_.size() * sizeof(float), stream_.get());
  };
  if (c.s != 0.0f) feed(kFirstRow + row, *noise_);
  if (c.known_noise != 0.0f) feed(std::int64_t{kKnown} + row, *known_noise_);
}

std::int64_t CudaChain::wait(std::int64_t row, double seconds, const Poll& poll) {
  const Busy busy(busy_);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const std::int64_t target = std::min(row, launched_);
  // all that was launched: not only counted but over, so that every byte is written
  const auto done = [&] {
    if (target < launched_ && position() >= target) return true;
    return device_->finished(stream_.get());
  };
  try {
    while (!done()) {
      poll();
      const std::chrono::duration<double> waited = Clock::now() - start;
      if (waited.count() > seconds) break;
      if (waited > std::chrono::milliseconds(2)) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      } else {
        std::this_thread::yield();
      }
    }
  } catch (...) {
    stop_now();
    throw;
  }
  if (position() < target && device_->finished(stream_.get())) {
    throw Error("the device stopped after row " + std::to_string(position()) + " of " +
                std::to_string(target));
  }
  return position();
}

std::int64_t CudaChain::advance(std::int64_t count, const Poll& poll) {
  launch(count, poll);
  return wait(length_, std::numeric_limits<double>::infinity(), poll);
}

void CudaChain::read_snapshot(std::int64_t row, bool denoised, float* to) {
  const Busy busy(busy_);
  const std::int64_t every = task_.every;
  if (every == 0 || row < 1 || row > position() || (row % every != 0 && row != length_)) {
    throw std::invalid_argument("there is no snapshot of row " + std::to_string(row));
  }
  const std::int64_t number = (row + every - 1) / every;
  if ((launched_ + every - 1) / every - number >= task_.slots) {
    throw std::invalid_argument("the snapshot of row " + std::to_string(row) + " has been written over");
  }
  const std::size_t elements = shape_.elements();
  const std::size_t slot = static_cast<std::size_t>((number - 1) % task_.slots);
  const float* from = (denoised ? task_.ring_denoised : task_.ring_x) + slot * elements;
  device_->download(to, from, elements * sizeof(float), side_.get());
  device_->synchronize(side_.get());
}

void CudaChain::read(const Block& from, std::size_t images, float* to) {
  const Busy busy(busy_);
  device_->download(to, from.data(), images * shape_.image() * sizeof(float), stream_.get());
  device_->synchronize(stream_.get());
}

void CudaChain::copy(const Block& from, std::size_t images, Block& to, std::size_t first) {
  const Busy busy(busy_);
  const std::size_t image = shape_.image() * sizeof(float);
  if ((first + images) * image > to.bytes() || images * image > from.bytes()) {
    throw std::invalid_argument("the images do not fit into the array");
  }
  device_->copy(to.as<char>() + first * image, from.data(), images * image, stream_.get());
  device_->synchronize(stream_.get());
}

std::int64_t CudaChain::bytes_of(std::size_t images, double low, double high, Block* to, std::size_t first) {
  const Busy busy(busy_);
  if (images > static_cast<std::size_t>(shape_.batch) ||
      (to != nullptr && (first + images) * shape_.image() > to->bytes())) {
    throw std::invalid_argument("the images do not fit into the array");
  }
  std::vector<std::uint32_t> broken(images);
  device_->upload(broken_->data(), broken.data(), images * sizeof(std::uint32_t), stream_.get());
  const std::uint64_t pixels = static_cast<std::uint64_t>(shape_.height * shape_.width);
  ByteTask task{};
  task.x = x_->as<float>();
  task.out = to == nullptr ? nullptr : to->as<std::uint8_t>() + first * shape_.image();
  task.broken = broken_->as<std::uint32_t>();
  task.pixels = pixels;
  task.channels = static_cast<std::uint32_t>(shape_.channels);
  task.total = images * pixels;
  task.low = static_cast<float>(low);
  task.high = static_cast<float>(high);
  task.scale = static_cast<float>(255.0 / (high - low));
  device_->bytes(task, stream_.get());
  device_->download(broken.data(), broken_->data(), images * sizeof(std::uint32_t), stream_.get());
  device_->synchronize(stream_.get());
  const auto found = std::find_if(broken.begin(), broken.end(), [](std::uint32_t flag) { return flag != 0; });
  return found == broken.end() ? -1 : found - broken.begin();
}

}  // namespace pysdk::cuda
