#include <cuda_runtime.h>

#include <concepts>

template <std::integral T>
__global__ void add(T* to) {
  *to += 1;
}

int main() {
  int* to = nullptr;
  add<<<1, 1>>>(to);
  return cudaFree(to) == cudaSuccess ? 0 : 1;
}
