// Handing a program to the device.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/cuda_chain.h"
#include "noise/philox.h"

namespace pysdk::cuda {

namespace {

// Small arrays behind each other, for one upload.
class Arrays {
 public:
  // `pointer` will have the array's address on the device, null for an empty one.
  template <typename Value>
  void add(const Value*& pointer, const std::vector<Value>& values) {
    pointer = nullptr;
    if (values.empty()) return;
    const std::size_t at = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(at + values.size() * sizeof(Value));
    std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(Value));
    places_.push_back(
        [&pointer, at](const std::byte* base) { pointer = reinterpret_cast<const Value*>(base + at); });
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // Where they were uploaded to.
  void place(const std::byte* base) const {
    for (const auto& set : places_) set(base);
  }

 private:
  static constexpr std::size_t kAlignment = 16;
  std::vector<std::byte> bytes_;
  std::vector<std::function<void(const std::byte*)>> places_;
};

}  // namespace

Task task_of(const ChainShape& shape) {
  Task task{};
  task.batch = static_cast<std::uint32_t>(shape.batch);
  task.image = shape.image();
  task.groups = static_cast<std::uint32_t>((task.image + 3) / 4);
  task.output = shape.output();
  task.guided = shape.guided;
  task.whole_groups = task.image % 4 == 0;  // outputs are one or two images, so they are aligned as well
  return task;
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
  task_ = task_of(shape_);
  task_.every = every;
  task_.slots = slots;
  upload_program();
  mailbox_.get()->position = 0;
  device_->start(task_, &state_->as<State>()->task, stream_.get());
  device_->synchronize(stream_.get());  // x may be looked at from another stream now
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
  Arrays arrays;
  arrays.add(task_.rows, program_.rows);
  arrays.add(task_.seeds, program_.seeds);
  arrays.add(task_.images, program_.images);
  arrays.add(task_.guidance, program_.guidance);
  arrays.add(task_.classifier_scale, program_.classifier_scale);
  arrays.place(put(arrays_, arrays.bytes()));
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

  until_ = -1;
  const State state{task_, {0, task_.length}};
  device_->upload(state_->data(), &state, sizeof state, stream_.get());
  until_ = task_.length;
  // the program's arrays are only needed here from now on
  for (auto* values : {&program_.initial, &program_.known}) std::vector<float>().swap(*values);
  std::vector<std::uint8_t>().swap(program_.keep);
}

}  // namespace pysdk::cuda
