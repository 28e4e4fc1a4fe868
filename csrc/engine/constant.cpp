// Constants as ops read them.
#include <cstring>

#include "engine/op.h"

namespace pysdk::engine {

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

}  // namespace pysdk::engine
