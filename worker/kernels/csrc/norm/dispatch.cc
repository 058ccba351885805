// Picks among the copies of kernels.cc that build.rs made.
#include "kernels.h"

#include <cstdlib>
#include <string_view>

namespace norm {

#define NORM_COPY(isa)                       \
  namespace isa {                            \
  extern const Kernels<float> kFloat;        \
  extern const Kernels<Bfloat16> kBfloat16;  \
  }

NORM_COPY(baseline)
#ifdef __x86_64__
NORM_COPY(avx2)
NORM_COPY(avx512)
#endif

namespace {

struct Chosen {
  const char* name;
  const Kernels<float>& floats;
  const Kernels<Bfloat16>& bfloat16s;
};

Chosen choose() {
#ifdef __x86_64__
  // The limit of libtorch's own kernels applies to these too.
  const char* variable = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string_view limit = variable ? variable : "";
  __builtin_cpu_init();
  if (limit != "default" && limit != "avx2" && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return {"avx512", avx512::kFloat, avx512::kBfloat16};
  }
  if (limit != "default" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"avx2", avx2::kFloat, avx2::kBfloat16};
  }
#endif
  return {"baseline", baseline::kFloat, baseline::kBfloat16};
}

const Chosen& chosen() {
  static const Chosen once = choose();
  return once;
}

} // namespace

template <>
const Kernels<float>& kernels<float>() {
  return chosen().floats;
}

template <>
const Kernels<Bfloat16>& kernels<Bfloat16>() {
  return chosen().bfloat16s;
}

const char* instruction_set() {
  return chosen().name;
}

} // namespace norm
