// Compiled once per instruction set, each time with another NORM_ISA: the vectors
// below are GCC's and Clang's own, and become what the set has.
//
// No function of another translation unit is inlined here: the linker keeps one copy
// of such a function, and it must not be the one that needs AVX-512.
#include "kernels.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

// Flags from the environment (CXXFLAGS=-march=native) must not add instructions to a copy.
#if defined(__AVX512F__) != NORM_AVX512 || defined(__AVX2__) != NORM_AVX2
#error "this copy of the kernels is compiled for another instruction set than its name says"
#endif

namespace norm::NORM_ISA {
namespace {

// What one register holds: wider vectors are taken apart value by value.
#if defined(__AVX512F__)
constexpr size_t kLanes = 16;
#elif defined(__AVX2__)
constexpr size_t kLanes = 8;
#else
constexpr size_t kLanes = 4;
#endif
static_assert(kChannelUnit % kLanes == 0);

using Floats = float __attribute__((vector_size(kLanes * 4)));
using Words = uint32_t __attribute__((vector_size(kLanes * 4)));
using Ints = int32_t __attribute__((vector_size(kLanes * 4)));
using Halves = uint16_t __attribute__((vector_size(kLanes * 2)));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));

// GCC 12 converts 16 lanes in two halves; the instruction takes them whole. The masked
// form, because the other one warns of an uninitialised value in GCC's own header.
#ifdef __AVX512F__
constexpr __mmask16 kAllLanes = 0xffff;
#endif

inline Words widen(const Halves& halves) {
#ifdef __AVX512F__
  return (Words)_mm512_maskz_cvtepu16_epi32(kAllLanes, (__m256i)halves);
#else
  return __builtin_convertvector(halves, Words);
#endif
}

inline Halves narrow(const Words& words) {
#ifdef __AVX512F__
  return (Halves)_mm512_maskz_cvtepi32_epi16(kAllLanes, (__m512i)words);
#else
  return __builtin_convertvector(words, Halves);
#endif
}

template <typename V>
inline V read(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}

template <typename V>
inline void write(void* to, const V& value) {
  __builtin_memcpy(to, &value, sizeof(V));
}

inline Floats load(const float* from) {
  return read<Floats>(from);
}

inline Floats load(const Bfloat16* from) {
  return (Floats)(widen(read<Halves>(from)) << 16);
}

inline void store(float* to, const Floats& value) {
  write(to, value);
}

// Rounds to nearest, ties to even. NaN stays NaN: its upper bits alone may say infinity.
inline void store(Bfloat16* to, const Floats& value) {
  const Words bits = (Words)value;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words nan = (bits >> 16) | 0x40;
  const Words result = value == value ? rounded : nan;
  write(to, narrow(result));
}

inline Floats positive(const Floats& value) {
  return value < 0.0f ? Floats{} : value;
}

// Where ReLU lets the gradient pass.
inline Floats pass(const Floats& grad, const Floats& output) {
  return output <= 0.0f ? Floats{} : grad;
}

// A number that a generic lambda can take as a constant.
template <size_t kValue>
struct Count {
  static constexpr size_t value = kValue;
};

// Runs body(Count<vectors>, channel) over all channels, four vectors at a time, so that
// what it sums over the rows stays in registers.
template <typename Body>
inline void each_strip(size_t channels, Body body) {
  constexpr size_t kWide = 4;
  size_t channel = 0;
  for (; channel + kWide * kLanes <= channels; channel += kWide * kLanes) {
    body(Count<kWide>{}, channel);
  }
  for (; channel < channels; channel += kLanes) {
    body(Count<1>{}, channel);
  }
}

template <typename T>
void moments(const T* x, size_t rows, size_t channels, float* mean, float* squares) {
  each_strip(channels, [&](auto vectors, size_t channel) {
    constexpr size_t kVectors = decltype(vectors)::value;
    // Distances from the first row, which is near the mean: sums of the values
    // themselves would lose the variance of channels whose mean is large.
    Floats origin[kVectors], sum[kVectors] = {}, square[kVectors] = {};
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      origin[v] = load(x + channel + v * kLanes);
    }
    for (size_t row = 1; row < rows; ++row) {
      const T* at = x + row * channels + channel;
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) {
        const Floats distance = load(at + v * kLanes) - origin[v];
        sum[v] += distance;
        square[v] += distance * distance;
      }
    }
    const float share = 1.0f / static_cast<float>(rows);
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      store(mean + channel + v * kLanes, origin[v] + sum[v] * share);
      store(squares + channel + v * kLanes, positive(square[v] - sum[v] * sum[v] * share));
    }
  });
}

template <typename T, bool kResidual, bool kRelu>
void apply_as(
    const T* x, const T* residual, size_t rows, size_t channels, Affine affine, T* y) {
  for (size_t row = 0; row < rows; ++row) {
    const size_t at = row * channels;
    for (size_t c = 0; c < channels; c += kLanes) {
      Floats value = load(x + at + c) * load(affine.scale + c) + load(affine.shift + c);
      if constexpr (kResidual) {
        value += load(residual + at + c);
      }
      store(y + at + c, kRelu ? positive(value) : value);
    }
  }
}

template <typename T>
void apply(
    const T* x, const T* residual, size_t rows, size_t channels, Affine affine, bool relu, T* y) {
  const auto chosen = residual ? (relu ? apply_as<T, true, true> : apply_as<T, true, false>)
                               : (relu ? apply_as<T, false, true> : apply_as<T, false, false>);
  chosen(x, residual, rows, channels, affine, y);
}

template <typename T, Relu kRelu>
void gradient_sums_as(
    const T* x, const T* y, const T* grad, size_t rows, size_t channels, const float* mean,
    Affine affine, float* sums, float* products, T* masked) {
  each_strip(channels, [&](auto vectors, size_t channel) {
    constexpr size_t kVectors = decltype(vectors)::value;
    Floats sum[kVectors] = {}, product[kVectors] = {};
    for (size_t row = 0; row < rows; ++row) {
      const size_t at = row * channels + channel;
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) {
        const size_t c = channel + v * kLanes;
        const Floats value = load(x + at + v * kLanes);
        Floats g = load(grad + at + v * kLanes);
        if constexpr (kRelu == Relu::kRecompute) {
          g = pass(g, value * load(affine.scale + c) + load(affine.shift + c));
        } else if constexpr (kRelu == Relu::kOutput) {
          g = pass(g, load(y + at + v * kLanes));
          // For the residual, whose gradient it is.
          store(masked + at + v * kLanes, g);
        }
        sum[v] += g;
        product[v] += g * (value - load(mean + c));
      }
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      store(sums + channel + v * kLanes, sum[v]);
      store(products + channel + v * kLanes, product[v]);
    }
  });
}

template <typename T>
void gradient_sums(
    const T* x, const T* y, const T* grad, size_t rows, size_t channels, const float* mean,
    Affine affine, Relu relu, float* sums, float* products, T* masked) {
  const auto chosen = relu == Relu::kNone ? gradient_sums_as<T, Relu::kNone>
      : relu == Relu::kRecompute          ? gradient_sums_as<T, Relu::kRecompute>
                                          : gradient_sums_as<T, Relu::kOutput>;
  chosen(x, y, grad, rows, channels, mean, affine, sums, products, masked);
}

inline Floats input_gradient_of(
    const Floats& x, const Floats& g, const InputGradient& of, size_t c) {
  return load(of.slope + c) * g + load(of.curve + c) * (x - load(of.mean + c)) +
      load(of.offset + c);
}

template <typename T, bool kRelu>
void input_gradient_as(
    const T* x, const T* grad, size_t rows, size_t channels, InputGradient coefficients,
    Affine affine, T* out) {
  for (size_t row = 0; row < rows; ++row) {
    const size_t at = row * channels;
    for (size_t c = 0; c < channels; c += kLanes) {
      const Floats value = load(x + at + c);
      Floats g = load(grad + at + c);
      if constexpr (kRelu) {
        g = pass(g, value * load(affine.scale + c) + load(affine.shift + c));
      }
      store(out + at + c, input_gradient_of(value, g, coefficients, c));
    }
  }
}

template <typename T>
void input_gradient(
    const T* x, const T* grad, size_t rows, size_t channels, InputGradient coefficients,
    Affine affine, bool relu, T* out) {
  const auto chosen = relu ? input_gradient_as<T, true> : input_gradient_as<T, false>;
  chosen(x, grad, rows, channels, coefficients, affine, out);
}

template <typename T>
void pool(
    const T* image, PoolShape shape, size_t pooled_row, size_t channels, Affine affine, T* y,
    uint8_t* origin, T* chosen) {
  // Window rows and columns are counted from one before the image, where the padding is.
  const size_t top = pooled_row == 0 ? 1 : 0;
  const size_t bottom = 2 * pooled_row + 2 > shape.height ? 2 : 3;
  for (size_t pooled = 0; pooled < shape.pooled_width; ++pooled) {
    const size_t left = pooled == 0 ? 1 : 0;
    const size_t right = 2 * pooled + 2 > shape.width ? 2 : 3;
    const size_t first = (2 * pooled_row + top - 1) * shape.width + 2 * pooled + left - 1;
    for (size_t c = 0; c < channels; c += kLanes) {
      const Floats scale = load(affine.scale + c), shift = load(affine.shift + c);
      Floats best_x = load(image + first * channels + c);
      Floats best = best_x * scale + shift;
      Ints place = Ints{} + static_cast<int32_t>(top * 3 + left);
      for (size_t r = top; r < bottom; ++r) {
        const T* line = image + (2 * pooled_row + r - 1) * shape.width * channels + c;
        for (size_t k = left; k < right; ++k) {
          const Floats x = load(line + (2 * pooled + k - 1) * channels);
          const Floats value = x * scale + shift;
          // NaN wins over numbers and stays.
          const Ints better = ~(value <= best) & (best == best);
          best = better ? value : best;
          best_x = better ? x : best_x;
          place = better ? Ints{} + static_cast<int32_t>(r * 3 + k) : place;
        }
      }
      const size_t at = pooled * channels + c;
      store(y + at, positive(best));
      if (origin) {
        place = best <= 0.0f ? Ints{} + static_cast<int32_t>(kNowhere) : place;
        write(origin + at, __builtin_convertvector(place, Bytes));
        store(chosen + at, best_x);
      }
    }
  }
}

template <typename T>
void pool_input_gradient(
    const T* image, const T* grad, const uint8_t* origin, PoolShape shape, size_t row,
    size_t channels, InputGradient coefficients, T* out) {
  const T* line = image + row * shape.width * channels;
  for (size_t column = 0; column < shape.width; ++column) {
    // The windows that hold this pixel: one or two each way.
    size_t from[4];
    int32_t place[4];
    size_t windows = 0;
    for (size_t r = row / 2; r <= (row + 1) / 2 && r < shape.pooled_height; ++r) {
      for (size_t k = column / 2; k <= (column + 1) / 2 && k < shape.pooled_width; ++k) {
        from[windows] = (r * shape.pooled_width + k) * channels;
        place[windows] = static_cast<int32_t>((row + 1 - 2 * r) * 3 + (column + 1 - 2 * k));
        ++windows;
      }
    }
    for (size_t c = 0; c < channels; c += kLanes) {
      Floats g = {};
      for (size_t w = 0; w < windows; ++w) {
        const Ints came = __builtin_convertvector(read<Bytes>(origin + from[w] + c), Ints);
        g += came == place[w] ? load(grad + from[w] + c) : Floats{};
      }
      const size_t at = column * channels + c;
      store(out + at, input_gradient_of(load(line + at), g, coefficients, c));
    }
  }
}

template <typename T>
constexpr Kernels<T> kAll = {
    moments<T>, apply<T>, gradient_sums<T>, input_gradient<T>, pool<T>, pool_input_gradient<T>,
};

} // namespace

extern const Kernels<float> kFloat;
extern const Kernels<Bfloat16> kBfloat16;
const Kernels<float> kFloat = kAll<float>;
const Kernels<Bfloat16> kBfloat16 = kAll<Bfloat16>;

} // namespace norm::NORM_ISA
