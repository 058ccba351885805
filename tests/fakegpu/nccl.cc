// NCCL between the processes of one machine, through files. Collectives really move and sum data, in
// the order of their stream. It asks nothing but the CUDA runtime for that, the fake one or a real one.
#include "device.h"

#include <fcntl.h>
#include <nccl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using Bytes = std::vector<char>;
// Makes a rank's output of all ranks' inputs.
using Combine = std::function<void(const std::vector<Bytes>& inputs, char* output)>;

void pause() {
  ::usleep(500);
}

bool read_file(const std::string& path, Bytes& out) {
  FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return false;
  }
  std::fseek(file, 0, SEEK_END);
  out.resize(static_cast<size_t>(std::ftell(file)));
  std::rewind(file);
  const bool whole = std::fread(out.data(), 1, out.size(), file) == out.size();
  std::fclose(file);
  return whole;
}

// A reader finds all of it or nothing.
void write_file(const std::string& path, const void* data, size_t size) {
  const std::string partial = path + ".partial";
  const int file = ::open(partial.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  const auto* from = static_cast<const char*>(data);
  for (size_t done = 0; done < size;) {
    const ssize_t more = ::write(file, from + done, size - done);
    if (more <= 0) {
      std::perror(partial.c_str());
      std::abort();
    }
    done += static_cast<size_t>(more);
  }
  ::close(file);
  std::rename(partial.c_str(), path.c_str());
}

// Host memory of a collective, which the device copies from and to.
struct Buffer {
  char* memory;
  size_t size;
  // Reached by the stream when the device has done with the memory.
  cudaEvent_t free;
  // The communicator that used it last.
  const void* user;
};

bool is_free(const Buffer& buffer) {
  return cudaEventQuery(buffer.free) != cudaErrorNotReady;
}

// All buffers of the process: the next group takes those of the one before. Never destroyed:
// libtorch's threads outlive static destructors.
struct Buffers {
  std::mutex lock;
  std::list<Buffer> all;
};

Buffers& buffers() {
  static Buffers* const the = new Buffers;
  return *the;
}

class Communicator;

struct Collective {
  Communicator* communicator;
  uint64_t number;
  char* memory;
  size_t size;
  Combine combine;
};

class Communicator {
 public:
  // Returns when all ranks have come, however long that takes; nothing interrupts it.
  Communicator(const char* name, int ranks, int rank)
      : ranks(ranks), rank(rank), prefix_(fake::folder() + "/" + name) {
    hold();
    write_file(path("join", rank), "", 0);
    for (int peer = 0; peer < ranks; ++peer) {
      while (::access(path("join", peer).c_str(), F_OK) != 0) {
        pause();
      }
    }
  }

  // The stream copies the input to the host, waits there for the other ranks, and copies the output
  // back.
  ncclResult_t add(
      const void* input, size_t input_size, void* output, size_t output_size, cudaStream_t stream,
      Combine combine) {
    fake::trace("launch", "nccl");
    fake::Untraced untraced;
    const Start start(*this);
    std::lock_guard<std::mutex> lock(buffers().lock);
    Buffer* const buffer = take(std::max(input_size, output_size));
    if (buffer == nullptr) {
      return ncclUnhandledCudaError;
    }
    buffer->user = this;
    auto* collective =
        new Collective{this, next_++, buffer->memory, input_size, std::move(combine)};
    const auto copied = [&](void* to, const void* from, size_t size, cudaMemcpyKind kind) {
      return size == 0 || cudaMemcpyAsync(to, from, size, kind, stream) == cudaSuccess;
    };
    const bool queued = copied(buffer->memory, input, input_size, cudaMemcpyDeviceToHost) &&
        cudaLaunchHostFunc(stream, perform, collective) == cudaSuccess &&
        copied(output, buffer->memory, output_size, cudaMemcpyHostToDevice) &&
        cudaEventRecord(buffer->free, stream) == cudaSuccess;
    return queued ? ncclSuccess : ncclUnhandledCudaError;
  }

  // Afterwards the device no longer waits, and touches no tensor; a device that is lost has no end.
  void abort() {
    if (starting_ > 0) {
      std::fprintf(stderr, "ncclCommAbort frees what a collective that starts still uses\n");
      std::abort();
    }
    aborted_ = true;
    const auto busy = [this] {
      std::lock_guard<std::mutex> lock(buffers().lock);
      const auto& all = buffers().all;
      return std::any_of(all.begin(), all.end(), [this](const Buffer& buffer) {
        return buffer.user == this && !is_free(buffer);
      });
    };
    for (int tries = 0; tries < 4000 && busy(); ++tries) {
      pause();
    }
  }

  // A test says when NCCL loses a peer: the real one notices some deaths at once, and some never.
  static bool lost_peer() {
    return fake::is_told("lost-a-peer");
  }

  const int ranks;
  const int rank;

 private:
  // A collective that starts, which takes a while where a test says so and is told of it.
  class Start {
   public:
    explicit Start(Communicator& of) : of_(of) {
      ++of_.starting_;
      if (!fake::is_told("slow-starts")) {
        return;
      }
      const auto started = fake::folder() + "/starts." + std::to_string(::getpid());
      write_file(started, "", 0);
      ::usleep(450'000);
      ::unlink(started.c_str());
    }

    ~Start() {
      --of_.starting_;
    }

   private:
    Communicator& of_;
  };

  // A test holds all ranks but the first while they set up, and is told of each.
  void hold() const {
    const auto held = fake::folder() + "/held." + std::to_string(::getpid());
    while (rank != 0 && fake::is_told("hold-set-up")) {
      write_file(held, "", 0);
      pause();
    }
  }

  std::string path(const std::string& what, int of) const {
    return prefix_ + "." + what + "." + std::to_string(of);
  }

  // Of exactly this size: the sizes of a step are those of the step before. The caller has locked.
  static Buffer* take(size_t size) {
    auto& all = buffers().all;
    const auto found = std::find_if(all.begin(), all.end(), [&](const Buffer& buffer) {
      return buffer.size == size && is_free(buffer);
    });
    if (found != all.end()) {
      // The others come first next time.
      all.splice(all.end(), all, found);
      return &all.back();
    }
    void* memory = nullptr;
    cudaEvent_t free = nullptr;
    if (cudaHostAlloc(&memory, size, cudaHostAllocDefault) != cudaSuccess ||
        cudaEventCreateWithFlags(&free, cudaEventDisableTiming) != cudaSuccess) {
      return nullptr;
    }
    all.push_back({static_cast<char*>(memory), size, free, nullptr});
    return &all.back();
  }

  // Called by the device, in the order of the stream. It must not call CUDA.
  static void perform(void* argument) {
    const std::unique_ptr<Collective> collective(static_cast<Collective*>(argument));
    collective->communicator->exchange(*collective);
  }

  void exchange(const Collective& collective) const {
    if (aborted_) {
      return;
    }
    const auto number = collective.number;
    write_file(path(std::to_string(number), rank), collective.memory, collective.size);
    std::vector<Bytes> inputs(static_cast<size_t>(ranks));
    for (int peer = 0; peer < ranks; ++peer) {
      const std::string from = path(std::to_string(number), peer);
      while (!read_file(from, inputs[static_cast<size_t>(peer)])) {
        if (aborted_) {
          return;
        }
        pause();
      }
    }
    collective.combine(inputs, collective.memory);
    // A rank that has begun this one has done with the one before.
    if (number > 0) {
      ::unlink(path(std::to_string(number - 1), rank).c_str());
    }
  }

  const std::string prefix_;
  uint64_t next_ = 0;
  std::atomic<int> starting_{0};
  std::atomic<bool> aborted_{false};
};

Communicator& of(ncclComm_t handle) {
  return *reinterpret_cast<Communicator*>(handle);
}

size_t width(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

template <typename T>
Combine sum(size_t count) {
  return [=](const std::vector<Bytes>& inputs, char* output) {
    auto* to = reinterpret_cast<T*>(output);
    std::fill(to, to + count, T{});
    for (const auto& input : inputs) {
      const auto* from = reinterpret_cast<const T*>(input.data());
      for (size_t i = 0; i < count; ++i) {
        to[i] += from[i];
      }
    }
  };
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* out) {
  *out = 22809;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess   ? "no error"
      : result == ncclRemoteError ? "remote process exited or there was a network error"
                                  : "an error of the fake NCCL";
}

const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* out) {
  uint64_t drawn = 0;
  if (::getrandom(&drawn, sizeof drawn, 0) != sizeof drawn) {
    return ncclSystemError;
  }
  *out = {};
  std::snprintf(out->internal, sizeof out->internal, "nccl-%016llx",
                static_cast<unsigned long long>(drawn));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(
    ncclComm_t* out, int ranks, ncclUniqueId id, int rank, ncclConfig_t*) {
  // Where GPUs are linked by switches, those that reduce stay with the first communicator.
  static std::atomic<int> communicators{0};
  const char* switches = std::getenv("NCCL_NVLS_ENABLE");
  if (communicators++ > 0 && (switches == nullptr || std::string(switches) != "0")) {
    return ncclUnhandledCudaError;
  }
  *out = reinterpret_cast<ncclComm_t>(new Communicator(id.internal, ranks, rank));
  return ncclSuccess;
}

// A communicator is never freed: other threads of libtorch may still use it. None at all is fine.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (comm != nullptr) {
    of(comm).abort();
  }
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return ncclCommAbort(comm);
}

ncclResult_t ncclCommFinalize(ncclComm_t) {
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* out) {
  *out = Communicator::lost_peer() ? ncclRemoteError : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(ncclComm_t comm, int* out) {
  *out = of(comm).ranks;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(ncclComm_t comm, int* out) {
  *out = of(comm).rank;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(
    const void* input, void* output, size_t count, ncclDataType_t type, ncclRedOp_t operation,
    ncclComm_t comm, cudaStream_t stream) {
  Combine combine;
  switch (type) {
    case ncclFloat32:
      combine = sum<float>(count);
      break;
    case ncclFloat64:
      combine = sum<double>(count);
      break;
    case ncclInt64:
      combine = sum<int64_t>(count);
      break;
    default:
      return ncclInvalidArgument;
  }
  if (operation != ncclSum) {
    return ncclInvalidArgument;
  }
  const size_t size = count * width(type);
  return of(comm).add(input, size, output, size, stream, std::move(combine));
}

ncclResult_t ncclBroadcast(
    const void* input, void* output, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
    cudaStream_t stream) {
  const size_t size = count * width(type);
  const auto copy = [=](const std::vector<Bytes>& inputs, char* to) {
    const auto& from = inputs[static_cast<size_t>(root)];
    std::memcpy(to, from.data(), from.size());
  };
  return of(comm).add(input, of(comm).rank == root ? size : 0, output, size, stream, copy);
}

ncclResult_t ncclBcast(
    void* buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
    cudaStream_t stream) {
  return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(
    const void* input, void* output, size_t count, ncclDataType_t type, ncclComm_t comm,
    cudaStream_t stream) {
  const size_t size = count * width(type);
  const size_t all = size * static_cast<size_t>(of(comm).ranks);
  return of(comm).add(input, size, output, all, stream, [](const auto& inputs, char* to) {
    for (const auto& from : inputs) {
      std::memcpy(to, from.data(), from.size());
      to += from.size();
    }
  });
}

} // extern "C"
