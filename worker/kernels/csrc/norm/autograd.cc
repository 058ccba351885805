// Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) fused with what follows it
// in a residual network, as one node of the autograd graph. What libtorch does in a
// pass over memory per operation, this does in two forward and two backward.
//
// Rows are dealt out to threads in blocks whose sums are added up in order, so that the
// result does not depend on how many threads there are.
#include "kernels.h"

#include "../abi.h"

#include <status.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace {

using norm::Affine;
using norm::Bfloat16;
using norm::InputGradient;
using norm::PoolShape;
using norm::Relu;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kBlockRows = 256;
constexpr auto kLayout = at::MemoryFormat::ChannelsLast;

// The memory of an activation as rows of channels.
struct Rows {
  int64_t rows;
  int64_t channels;

  explicit Rows(const at::Tensor& x) : rows(x.numel() / x.size(1)), channels(x.size(1)) {}

  int64_t blocks() const {
    return (rows + kBlockRows - 1) / kBlockRows;
  }
};

// Runs body(block, first element, rows) for every block, on as many threads as libtorch
// may use.
template <typename Body>
void each_block(const Rows& shape, Body body) {
  at::parallel_for(0, shape.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kBlockRows;
      const int64_t rows = std::min(kBlockRows, shape.rows - row);
      body(block, row * shape.channels, static_cast<size_t>(rows));
    }
  });
}

template <typename T>
T* data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

template <typename T>
T* from(T* pointer, int64_t offset) {
  return pointer ? pointer + offset : nullptr;
}

at::Tensor activation(at::IntArrayRef sizes, const at::Tensor& like) {
  return at::empty(sizes, like.options(), kLayout);
}

// What normalises: float32 [4, C]. Kept for the backward pass.
struct Statistics {
  at::Tensor all;

  explicit Statistics(at::Tensor tensor) : all(std::move(tensor)) {}
  explicit Statistics(int64_t channels) : all(at::empty({4, channels}, at::kFloat)) {}

  float* mean() const {
    return row(0);
  }
  float* inverse_deviation() const {
    return row(1);
  }
  float* scale() const {
    return row(2);
  }
  float* shift() const {
    return row(3);
  }
  Affine affine() const {
    return {scale(), shift()};
  }

 private:
  float* row(int64_t index) const {
    return all.data_ptr<float>() + index * all.size(1);
  }
};

// Two float32 values a channel of each block.
struct Partial {
  at::Tensor all;

  explicit Partial(const Rows& shape)
      : all(at::empty({2, shape.blocks(), shape.channels}, at::kFloat)) {}

  float* first(int64_t block) const {
    return all.data_ptr<float>() + block * all.size(2);
  }
  float* second(int64_t block) const {
    return first(all.size(1) + block);
  }
};

// The weights and running statistics of one layer, float32 [C] each, and how it normalises.
struct Layer {
  const float* weight;
  const float* bias;
  float* running_mean;
  float* running_variance;
  bool batch;
  double momentum;
  double epsilon;
};

// The mean and variance of the batch, which also move the running ones.
template <typename T>
void batch_moments(
    const T* x, const Rows& shape, const Layer& layer, float* mean, float* variance) {
  const int64_t channels = shape.channels;
  const Partial partial(shape);
  each_block(shape, [&](int64_t block, int64_t at, size_t rows) {
    norm::kernels<T>().moments(
        x + at, rows, channels, partial.first(block), partial.second(block));
  });
  // Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
  // sample variances", 1979: exact however far apart the blocks' means are.
  std::vector<double> total(channels), spread(channels);
  const auto rows_of = [&](int64_t block) {
    return static_cast<double>(std::min(kBlockRows, shape.rows - block * kBlockRows));
  };
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const float* means = partial.first(block);
    for (int64_t c = 0; c < channels; ++c) {
      total[c] += rows_of(block) * means[c];
    }
  }
  const double count = static_cast<double>(shape.rows);
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const float *means = partial.first(block), *squares = partial.second(block);
    for (int64_t c = 0; c < channels; ++c) {
      const double distance = means[c] - total[c] / count;
      spread[c] += squares[c] + rows_of(block) * distance * distance;
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = static_cast<float>(total[c] / count);
    variance[c] = static_cast<float>(spread[c] / count);
    // The running variance is the unbiased one, as PyTorch keeps it.
    const double unbiased = spread[c] / (count - 1);
    layer.running_mean[c] += static_cast<float>(layer.momentum * (mean[c] - layer.running_mean[c]));
    layer.running_variance[c] +=
        static_cast<float>(layer.momentum * (unbiased - layer.running_variance[c]));
  }
}

template <typename T>
Statistics statistics_of(const T* x, const Rows& shape, const Layer& layer) {
  Statistics statistics(shape.channels);
  float* mean = statistics.mean();
  // Holds the variance until its root is taken.
  float* inverse = statistics.inverse_deviation();
  if (layer.batch) {
    batch_moments<T>(x, shape, layer, mean, inverse);
  } else {
    std::copy_n(layer.running_mean, shape.channels, mean);
    std::copy_n(layer.running_variance, shape.channels, inverse);
  }
  for (int64_t c = 0; c < shape.channels; ++c) {
    inverse[c] = static_cast<float>(1.0 / std::sqrt(inverse[c] + layer.epsilon));
    statistics.scale()[c] = inverse[c] * layer.weight[c];
    statistics.shift()[c] = layer.bias[c] - mean[c] * statistics.scale()[c];
  }
  return statistics;
}

// The gradients of weight and bias, and what the gradient of x is made with.
struct Gradients {
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor curve;
  at::Tensor offset;

  InputGradient coefficients(const Statistics& statistics) const {
    return {
        statistics.mean(), statistics.scale(), curve.data_ptr<float>(), offset.data_ptr<float>()};
  }
};

// `x`, `y` and `grad` are of the whole activation or, where a pooling followed, of the
// values that it chose; `statistics` are of `normalised` values a channel either way.
template <typename T>
Gradients gradients_of(
    const at::Tensor& x, const at::Tensor& y, const at::Tensor& grad, double normalised,
    const Statistics& statistics, Relu relu, bool batch, const at::Tensor& masked) {
  const Rows shape(x);
  const int64_t channels = shape.channels;
  const Partial partial(shape);
  each_block(shape, [&](int64_t block, int64_t at, size_t rows) {
    norm::kernels<T>().gradient_sums(
        data<T>(x) + at, from(data<T>(y), at), data<T>(grad) + at, rows, channels,
        statistics.mean(), statistics.affine(), relu, partial.first(block),
        partial.second(block), from(data<T>(masked), at));
  });
  const auto vector = [&] { return at::empty({channels}, at::kFloat); };
  Gradients result{vector(), vector(), vector(), vector()};
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, product = 0;
    for (int64_t block = 0; block < shape.blocks(); ++block) {
      sum += partial.first(block)[c];
      product += partial.second(block)[c];
    }
    const double inverse = statistics.inverse_deviation()[c];
    const double scale = batch ? statistics.scale()[c] / normalised : 0;
    result.weight.data_ptr<float>()[c] = static_cast<float>(product * inverse);
    result.bias.data_ptr<float>()[c] = static_cast<float>(sum);
    result.curve.data_ptr<float>()[c] = static_cast<float>(-scale * inverse * inverse * product);
    result.offset.data_ptr<float>()[c] = static_cast<float>(-scale * sum);
  }
  return result;
}

// Calls body(T{}) with the type of `x`'s elements.
template <typename Body>
auto with_type(const at::Tensor& x, Body body) {
  return x.scalar_type() == at::kFloat ? body(float{}) : body(Bfloat16{});
}

PoolShape pool_shape(const at::Tensor& x) {
  const auto height = static_cast<size_t>(x.size(2)), width = static_cast<size_t>(x.size(3));
  return {height, width, (height - 1) / 2 + 1, (width - 1) / 2 + 1};
}

void check_gradient(const at::Tensor& grad, const at::Tensor& x) {
  // With create_graph the engine runs with gradients enabled.
  TORCH_CHECK(
      !at::GradMode::is_enabled(), "the fused batch normalisation is differentiable once");
  TORCH_CHECK(
      grad.scalar_type() == x.scalar_type() && grad.device() == x.device(),
      "the gradient of ", x.toString(), " came as ", grad.toString());
}

// relu(norm(x) + residual), both of the last optional.
struct Norm : torch::autograd::Function<Norm> {
  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
      const at::Tensor& bias, const std::optional<at::Tensor>& residual,
      const at::Tensor& running_mean, const at::Tensor& running_variance, bool batch,
      double momentum, double epsilon, bool relu) {
    const auto x = input.contiguous(kLayout);
    const auto added = residual ? residual->contiguous(kLayout) : at::Tensor();
    const Rows shape(x);
    const Layer layer{
        data<float>(weight), data<float>(bias), data<float>(running_mean),
        data<float>(running_variance), batch, momentum, epsilon};
    const auto y = activation(x.sizes(), x);
    const auto statistics = with_type(x, [&](auto type) {
      using T = decltype(type);
      auto made = statistics_of<T>(data<T>(x), shape, layer);
      each_block(shape, [&](int64_t, int64_t at, size_t rows) {
        norm::kernels<T>().apply(
            data<T>(x) + at, from(data<T>(added), at), rows, shape.channels, made.affine(), relu,
            data<T>(y) + at);
      });
      return made;
    });
    // With a residual the sign of y cannot be told from x; y is kept anyway, as the
    // input of the next convolution.
    ctx->save_for_backward({x, statistics.all, residual && relu ? y : at::Tensor()});
    ctx->saved_data["batch"] = batch;
    ctx->saved_data["relu"] = relu;
    ctx->saved_data["residual"] = residual.has_value();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &y = saved[2];
    check_gradient(grads[0], x);
    const Statistics statistics(saved[1]);
    const bool batch = ctx->saved_data["batch"].toBool();
    const bool relu = ctx->saved_data["relu"].toBool();
    const bool residual = ctx->saved_data["residual"].toBool();
    const auto grad = grads[0].contiguous(kLayout);
    const Rows shape(x);
    const auto input_grad = activation(x.sizes(), x);
    // The residual's gradient is what passed ReLU; then ReLU is done with.
    const auto masked = residual && relu ? activation(x.sizes(), x) : at::Tensor();
    const auto& passed = masked.defined() ? masked : grad;
    const auto first = !relu ? Relu::kNone : residual ? Relu::kOutput : Relu::kRecompute;
    const auto gradients = with_type(x, [&](auto type) {
      using T = decltype(type);
      auto made = gradients_of<T>(
          x, y, grad, static_cast<double>(shape.rows), statistics, first, batch, masked);
      each_block(shape, [&](int64_t, int64_t at, size_t rows) {
        norm::kernels<T>().input_gradient(
            data<T>(x) + at, data<T>(passed) + at, rows, shape.channels,
            made.coefficients(statistics), statistics.affine(), first == Relu::kRecompute,
            data<T>(input_grad) + at);
      });
      return made;
    });
    return {
        input_grad, gradients.weight, gradients.bias, residual ? passed : at::Tensor(),
        at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// max_pool(relu(norm(x))), the start of a residual network: the largest activation of
// all is neither written normalised nor read again.
struct PooledNorm : torch::autograd::Function<PooledNorm> {
  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
      const at::Tensor& bias, const at::Tensor& running_mean, const at::Tensor& running_variance,
      bool batch, double momentum, double epsilon, bool differentiate) {
    const auto x = input.contiguous(kLayout);
    const auto shape = pool_shape(x);
    const Rows rows(x);
    const Layer layer{
        data<float>(weight), data<float>(bias), data<float>(running_mean),
        data<float>(running_variance), batch, momentum, epsilon};
    const auto pooled_height = static_cast<int64_t>(shape.pooled_height);
    const std::vector<int64_t> sizes{
        x.size(0), x.size(1), pooled_height, static_cast<int64_t>(shape.pooled_width)};
    const auto y = activation(sizes, x);
    at::Tensor chosen, origin;
    if (differentiate) {
      chosen = activation(sizes, x);
      origin = at::empty(sizes, x.options().dtype(at::kByte), kLayout);
    }
    const int64_t image = x.size(2) * x.size(3) * rows.channels;
    const int64_t pooled_line = sizes[3] * rows.channels;
    const auto statistics = with_type(x, [&](auto type) {
      using T = decltype(type);
      auto made = statistics_of<T>(data<T>(x), rows, layer);
      at::parallel_for(0, x.size(0) * pooled_height, 1, [&](int64_t begin, int64_t end) {
        for (int64_t line = begin; line < end; ++line) {
          norm::kernels<T>().pool(
              data<T>(x) + line / pooled_height * image, shape, line % pooled_height,
              rows.channels, made.affine(), data<T>(y) + line * pooled_line,
              from(data<uint8_t>(origin), line * pooled_line),
              from(data<T>(chosen), line * pooled_line));
        }
      });
      return made;
    });
    ctx->save_for_backward({x, statistics.all, chosen, origin});
    ctx->saved_data["batch"] = batch;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &chosen = saved[2], &origin = saved[3];
    check_gradient(grads[0], x);
    const Statistics statistics(saved[1]);
    const bool batch = ctx->saved_data["batch"].toBool();
    const auto grad = grads[0].contiguous(kLayout);
    const Rows rows(x);
    const auto shape = pool_shape(x);
    const auto input_grad = activation(x.sizes(), x);
    const int64_t line_size = x.size(3) * rows.channels;
    const int64_t pooled_image = grad.size(2) * grad.size(3) * rows.channels;
    const auto gradients = with_type(x, [&](auto type) {
      using T = decltype(type);
      auto made = gradients_of<T>(
          chosen, at::Tensor(), grad, static_cast<double>(rows.rows), statistics,
          Relu::kRecompute, batch, at::Tensor());
      at::parallel_for(0, x.size(0) * x.size(2), 1, [&](int64_t begin, int64_t end) {
        for (int64_t line = begin; line < end; ++line) {
          const int64_t image = line / x.size(2), row = line % x.size(2);
          norm::kernels<T>().pool_input_gradient(
              data<T>(x) + image * x.size(2) * line_size, data<T>(grad) + image * pooled_image,
              data<uint8_t>(origin) + image * pooled_image, shape, row, rows.channels,
              made.coefficients(statistics), data<T>(input_grad) + line * line_size);
        }
      });
      return made;
    });
    return {
        input_grad, gradients.weight, gradients.bias, at::Tensor(), at::Tensor(), at::Tensor(),
        at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

void check_vector(const char* name, const at::Tensor& tensor, int64_t channels) {
  TORCH_CHECK(
      tensor.scalar_type() == at::kFloat && tensor.device().is_cpu() && tensor.dim() == 1 &&
          tensor.size(0) == channels && tensor.is_contiguous(),
      "the ", name, " must be ", channels, " float32 values in a row on the CPU, got ",
      tensor.toString(), " of ", tensor.sizes());
}

void check(const at::Tensor& x, const NormLayer& layer) {
  TORCH_CHECK(
      x.device().is_cpu() && x.layout() == at::kStrided && x.dim() == 4 && x.numel() > 0 &&
          (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
      "needs float32 or bfloat16 [N, C, H, W] on the CPU, got ", x.toString(), " of ", x.sizes());
  TORCH_CHECK(
      x.size(1) % static_cast<int64_t>(norm::kChannelUnit) == 0, "needs a multiple of ",
      norm::kChannelUnit, " channels, got ", x.size(1));
  TORCH_CHECK(
      layer.batch == 0 || x.numel() > x.size(1),
      "needs more than one value a channel for the statistics of a batch, got ", x.sizes());
  check_vector("weight", *layer.weight, x.size(1));
  check_vector("bias", *layer.bias, x.size(1));
  check_vector("running mean", *layer.running_mean, x.size(1));
  check_vector("running variance", *layer.running_variance, x.size(1));
}

} // namespace

Status kernels_batch_norm(
    at::Tensor* x, const NormLayer* layer, at::Tensor* residual, int32_t relu, at::Tensor** out) {
  return shim::guarded([&] {
    check(*x, *layer);
    std::optional<at::Tensor> added;
    if (residual) {
      TORCH_CHECK(
          residual->sizes() == x->sizes() && residual->scalar_type() == x->scalar_type() &&
              residual->device() == x->device() && residual->layout() == at::kStrided,
          "the residual must be like the input, ", x->toString(), " of ", x->sizes(), ", got ",
          residual->toString(), " of ", residual->sizes());
      added = *residual;
    }
    *out = new at::Tensor(Norm::apply(
        *x, *layer->weight, *layer->bias, added, *layer->running_mean, *layer->running_variance,
        layer->batch != 0, layer->momentum, layer->epsilon, relu != 0));
  });
}

Status kernels_batch_norm_relu_max_pool(at::Tensor* x, const NormLayer* layer, at::Tensor** out) {
  return shim::guarded([&] {
    check(*x, *layer);
    // What only the backward pass needs is not made without one.
    const bool differentiate = at::GradMode::is_enabled() &&
        (x->requires_grad() || layer->weight->requires_grad() || layer->bias->requires_grad());
    *out = new at::Tensor(PooledNorm::apply(
        *x, *layer->weight, *layer->bias, *layer->running_mean, *layer->running_variance,
        layer->batch != 0, layer->momentum, layer->epsilon, differentiate));
  });
}

const char* kernels_batch_norm_instruction_set() {
  return norm::instruction_set();
}
