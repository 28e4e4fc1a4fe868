// Random requests, networks that are kernels of the test's own, and what comes out of a chain.
#include <algorithm>
#include <cstring>
#include <map>

#include "cases.h"

using namespace pysdk;
using namespace pysdk::cuda;

namespace {

// Numbers that differ with what they are for.
class Random {
 public:
  explicit Random(unsigned seed) : state_(seed * 2654435761u + 12345u) {}
  std::uint32_t word() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 33);
  }
  float between(float low, float high) {
    return low + (high - low) * static_cast<float>(word() & 0xffffffu) / 16777216.0f;
  }
  bool chance(float share) { return between(0.0f, 1.0f) < share; }

 private:
  std::uint64_t state_;
};

struct NetworkTask {
  const float* input;
  const float* time;
  const std::int64_t* labels;
  float* output;
  std::uint64_t total, per_image, input_per_image;
  float gain;
};

constexpr unsigned kNetworkThreads = 64;

void network_element(const NetworkTask& task, std::uint64_t number) {
  const std::uint64_t image = number / task.per_image, element = number % task.per_image;
  const float x = task.input[image * task.input_per_image + element % task.input_per_image];
  task.output[number] = task.gain * x + 0.01f * task.time[0] + 0.1f * static_cast<float>(task.labels[image]) -
                        0.02f * static_cast<float>(element % 5);
}

void network_kernel() {}  // its address stands for the kernel

void launch_network(NetworkTask task, Stream stream) {
  void* arguments[] = {&task};
  const auto blocks = static_cast<unsigned>((task.total + kNetworkThreads - 1) / kNetworkThreads);
  const cudaError_t error =
      cudaLaunchKernel(reinterpret_cast<const void*>(network_kernel), dim3(blocks), dim3(kNetworkThreads),
                       arguments, 0, static_cast<cudaStream_t>(stream));
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw Error(std::string("the network: (") + cudaGetErrorName(error) + ")");
}

const bool network_defined =
    (strict::define_kernel(reinterpret_cast<const void*>(network_kernel), "network",
                           [](void** arguments, int device) -> strict::Bound {
                             const NetworkTask task = *static_cast<const NetworkTask*>(arguments[0]);
                             return [task, device](const strict::Grid& grid) {
                               if (!strict::inside(task.output, task.total * sizeof(float), device)) {
                                 strict::violation("the network's output is not on its device");
                               }
                               for (std::uint64_t i = std::uint64_t{grid.blocks.x} * grid.threads.x;
                                    i-- > 0;) {
                                 if (i < task.total) network_element(task, i);
                               }
                             };
                           }),
     true);

class Network : public DeviceDenoiser {
 public:
  Network(std::shared_ptr<Device> device, NetworkTask task) : device_(std::move(device)), task_(task) {}
  void enqueue(void* stream) override {
    const CurrentDevice current(*device_);
    if (auto* simulated = dynamic_cast<SimulatedDevice*>(device_.get())) {
      simulated->call(stream, "network", [task = task_] {
        for (std::uint64_t i = 0; i < task.total; ++i) network_element(task, i);
      });
    } else {
      launch_network(task_, stream);
    }
  }

 private:
  const std::shared_ptr<Device> device_;
  const NetworkTask task_;
};

}  // namespace

void nothing() {}

Features everything() {
  Features all = features_of((1u << kFeatureBits) - 1, 1);
  all.foreign = false;
  return all;
}

Features features_of(unsigned bits, unsigned seed) {
  Random random(seed);
  const auto bit = [bits](unsigned i) { return (bits >> i & 1u) != 0; };
  Features f;
  f.guided = bit(0), f.half = bit(0) && bit(1), f.learned = bit(2), f.known = bit(3);
  f.foreign = bit(4), f.initial = bit(5), f.skips = bit(6), f.keeps_y = bit(7), f.keeps_d2 = bit(8);
  f.clip = bit(9) ? ClipKind::kDynamic : bit(10) ? ClipKind::kClamp : ClipKind::kNone;
  f.every = bit(11) ? 2 : 0, f.slots = bit(11) ? 8 : 0;
  f.batch = 1 + random.word() % 4, f.channels = 1 + random.word() % 3;
  f.height = 1 + random.word() % 11, f.width = bit(12) ? 4 : 1 + random.word() % 11;
  f.rows = 1 + random.word() % 7;
  return f;
}

ChainShape shape_of(const Features& f) {
  ChainShape shape;
  shape.batch = f.batch, shape.channels = f.channels, shape.height = f.height, shape.width = f.width;
  shape.out_channels = f.learned ? 2 * f.channels : f.channels;
  shape.guided = f.guided;
  return shape;
}

Request request_of(const Features& f, unsigned seed) {
  Random random(seed);
  const auto number = [&] { return random.between(-1.0f, 1.0f); };
  const std::size_t elements = shape_of(f).elements(), batch = static_cast<std::size_t>(f.batch);
  StepTable table;
  for (std::int64_t i = 0; i < f.rows; ++i) {
    Row row{};
    row.t = 100.0f * random.between(0.0f, 10.0f), row.c_in = number(), row.a = number(), row.c1 = number();
    row.skip = f.skips && random.chance(0.3f) ? 1.0f : 0.0f;
    if (row.skip == 0.0f) {
      row.p = number(), row.q = number(), row.b = number(), row.h = number();
      row.unguided = f.skips && random.chance(0.4f) ? 1.0f : 0.0f;
    }
    if (f.keeps_d2) row.c2 = number();
    if (f.keeps_y) row.g = number(), row.save = random.chance(0.5f) ? 1.0f : 0.0f;
    row.s = f.learned ? (random.chance(0.8f) ? 1.0f : 0.0f) : number();
    row.log_beta = random.between(-3.0f, -1.0f), row.log_beta_tilde = random.between(-5.0f, -3.0f);
    if (f.known) row.known = number(), row.known_noise = number();
    table.rows.push_back(row);
  }
  table.clip = f.clip, table.clip_ratio = 0.9, table.learned_variance = f.learned, table.init_scale = 1.5f;
  Request request;
  request.table = checked_table(std::move(table));
  for (std::size_t i = 0; i < batch; ++i) {
    request.seeds.push_back(random.word()), request.images.push_back(random.word());
    if (f.guided)
      request.labels.push_back(random.word() % 10),
          request.guidance.push_back(i == 0 ? 1.0f : 2.0f * number());
  }
  const auto tensor = [&] {
    std::vector<float> values(elements);
    std::generate(values.begin(), values.end(), number);
    return values;
  };
  if (f.initial) request.initial = tensor();
  if (f.known) {
    request.known = tensor();
    for (std::size_t i = 0; i < elements; ++i) request.keep.push_back(random.chance(0.5f) ? 3 : 0);
  }
  if (f.foreign) {
    request.noise = [elements](std::int64_t draw, float* out) {
      Random of_draw(static_cast<unsigned>(draw));
      std::generate_n(out, elements, [&] { return of_draw.between(-1.0f, 1.0f); });
    };
  }
  return request;
}

Made make_chain(const std::shared_ptr<Device>& device, const Features& f) {
  const std::size_t elements = shape_of(f).elements();
  Made made{f, std::make_shared<Block>(device, elements * sizeof(float)),
            std::make_shared<Block>(device, elements), std::make_unique<CudaChain>(device, shape_of(f))};
  const CudaChain& chain = *made.chain;
  const ChainShape& shape = chain.shape();
  const auto network = [&](std::uint64_t images, float* output, std::uint64_t per_image, float gain) {
    return std::make_shared<Network>(
        device,
        NetworkTask{chain.input()->as<float>(), chain.time()->as<float>(), chain.labels()->as<std::int64_t>(),
                    output, images * per_image, per_image, shape.image(), gain});
  };
  const auto batch = static_cast<std::uint64_t>(shape.batch);
  DeviceNetworks networks;
  networks.denoiser = network(shape.network_batch(), chain.output()->as<float>(), shape.output(), 0.8f);
  if (f.half) networks.conditional = network(batch, chain.output()->as<float>(), shape.output(), 0.6f);
  made.chain->attach(std::move(networks));
  return made;
}

void begin(Made& made, Path path, unsigned seed, bool forced) {
  made.chain->begin(request_of(made.features, seed), {path, forced}, made.features.every,
                    made.features.slots);
}

bool Results::operator==(const Results& other) const {
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  return same(x, other.x) && same(denoised, other.denoised) && same(snapshots, other.snapshots) &&
         bytes == other.bytes && broken == other.broken;
}

Results results_of(Made& made) {
  CudaChain& chain = *made.chain;
  const std::size_t elements = chain.shape().elements(),
                    batch = static_cast<std::size_t>(made.features.batch);
  Device& device = chain.device();
  Results r;
  r.x.resize(elements), r.denoised.resize(elements), r.bytes.resize(elements);
  const OwnedStream stream(chain.share_device());
  const auto read = [&](auto& to, const Block& from) {
    device.download(to.data(), from.data(), to.size() * sizeof to[0], stream.get());
    device.synchronize(stream.get());
  };
  chain.copy(*chain.x(), batch, *made.copy, 0);
  read(r.x, *made.copy);
  r.broken = chain.bytes_of(batch, -1.0, 1.0, made.bytes.get(), 0);
  read(r.bytes, *made.bytes), read(r.denoised, *chain.d1());
  for (std::int64_t row = 1; made.features.every > 0 && row <= chain.position(); ++row) {
    if (row % made.features.every != 0 && row != chain.length()) continue;
    for (const bool denoised : {false, true}) {
      r.snapshots.resize(r.snapshots.size() + elements);
      chain.read_snapshot(row, denoised, r.snapshots.data() + r.snapshots.size() - elements);
    }
  }
  return r;
}

Results run_chain(const std::shared_ptr<Device>& device, const Features& features, Path path, unsigned seed) {
  Made made = make_chain(device, features);
  begin(made, path, seed);
  const std::int64_t done = made.chain->advance(1 << 20, nothing);
  require(done == features.rows, "rows were left out");
  require(made.chain->path() == path, "another path was taken");
  return results_of(made);
}

Results expected(const Features& features, Path path, unsigned seed) {
  return run_chain(std::make_shared<SimulatedDevice>(std::size_t{1} << 28), features, path, seed);
}
