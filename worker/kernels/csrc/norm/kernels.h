// The loops of the fused batch normalisation, on plain memory. They know nothing of
// libtorch, so that one source can be compiled for several instruction sets.
//
// Activations are rows of `channels` values (channels_last: one row is one pixel);
// `channels` is a multiple of kChannelUnit. Statistics and coefficients are float32, one
// per channel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace norm {

constexpr size_t kChannelUnit = 16;

struct Bfloat16 {
  uint16_t bits;
};

// What normalises: y = x * scale + shift.
struct Affine {
  const float* scale;
  const float* shift;
};

// dL/dx = slope * g + curve * (x - mean) + offset, where g is dL/dy.
struct InputGradient {
  const float* mean;
  const float* slope;
  const float* curve;
  const float* offset;
};

// Height and width of what a pooling of 3x3, stride 2 and padding 1 reads and makes.
struct PoolShape {
  size_t height;
  size_t width;
  size_t pooled_height;
  size_t pooled_width;
};

// The place in its 3x3 window (row * 3 + column) that a pooled value came from;
// kNowhere when ReLU cut it off, so that no gradient flows.
constexpr uint8_t kNowhere = 255;

// Positive values pass ReLU. NaN passes too, as in libtorch: it must stay visible.
enum class Relu {
  kNone,
  // Decide by x * scale + shift, made again.
  kRecompute,
  // Decide by y, which was kept.
  kOutput,
};

template <typename T>
struct Kernels {
  // Mean of the rows, and the sum of squared distances from it.
  void (*moments)(const T* x, size_t rows, size_t channels, float* mean, float* squares);

  // y = relu(x * scale + shift + residual); `residual` may be null.
  void (*apply)(
      const T* x, const T* residual, size_t rows, size_t channels, Affine affine, bool relu, T* y);

  // Sums of g and of g * (x - mean) over the rows, where g is `grad` past ReLU.
  // Relu::kOutput alone reads `y`, and writes g to `masked`.
  void (*gradient_sums)(
      const T* x, const T* y, const T* grad, size_t rows, size_t channels, const float* mean,
      Affine affine, Relu relu, float* sums, float* products, T* masked);

  // The gradient of x; with `relu` as for Relu::kRecompute.
  void (*input_gradient)(
      const T* x, const T* grad, size_t rows, size_t channels, InputGradient coefficients,
      Affine affine, bool relu, T* out);

  // One row of pooled pixels of one image: y = max over the window of
  // relu(x * scale + shift). `origin` and `chosen`, unless null, receive where each
  // value came from and the x that was there.
  void (*pool)(
      const T* image, PoolShape shape, size_t pooled_row, size_t channels, Affine affine, T* y,
      uint8_t* origin, T* chosen);

  // The gradient of one row of x of one image; `grad` and `origin` are the whole
  // pooled image's.
  void (*pool_input_gradient)(
      const T* image, const T* grad, const uint8_t* origin, PoolShape shape, size_t row,
      size_t channels, InputGradient coefficients, T* out);
};

// The fastest that this processor can run and ATEN_CPU_CAPABILITY, libtorch's limit
// (default, avx2 or avx512), allows.
template <typename T>
const Kernels<T>& kernels();

// Their instruction set: baseline, avx2 or avx512.
const char* instruction_set();

} // namespace norm
