// NCCL between the processes of one machine, through files. Collectives really move and sum data,
// in the order in which they were asked for, on a thread of the communicator.
#include "device.h"

#include <fcntl.h>
#include <nccl.h>
#include <sys/random.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using Bytes = std::vector<char>;
// Makes a rank's output of all ranks' inputs.
using Combine = std::function<void(const std::vector<Bytes>&)>;

struct Collective {
  const void* input;
  size_t size;
  Combine combine;
  std::shared_ptr<fake::Pending> pending;
};

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
    thread_ = std::thread([this] { run(); });
  }

  void add(const void* input, size_t size, cudaStream_t stream, Combine combine) {
    fake::trace("launch", "nccl");
    auto pending = std::make_shared<fake::Pending>();
    fake::enqueue(stream, pending);
    std::lock_guard<std::mutex> lock(lock_);
    queue_.push_back({input, size, std::move(combine), std::move(pending)});
    changed_.notify_one();
  }

  // Afterwards the device no longer waits, and no thread touches a tensor.
  void abort() {
    aborted_ = true;
    changed_.notify_one();
    std::lock_guard<std::mutex> lock(joining_);
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  // A test says when NCCL loses a peer: the real one notices some deaths at once, and some never.
  static bool lost_peer() {
    return fake::is_told("lost-a-peer");
  }

  const int ranks;
  const int rank;

 private:
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

  void run() {
    for (uint64_t number = 0; perform(number); ++number) {
    }
    std::lock_guard<std::mutex> lock(lock_);
    for (auto& collective : queue_) {
      collective.pending->done = true;
    }
    queue_.clear();
  }

  bool perform(uint64_t number) {
    Collective next;
    {
      std::unique_lock<std::mutex> lock(lock_);
      while (queue_.empty() && !aborted_) {
        changed_.wait_for(lock, std::chrono::milliseconds(100));
      }
      if (aborted_) {
        return false;
      }
      next = queue_.front();
    }
    write_file(path(std::to_string(number), rank), next.input, next.size);
    std::vector<Bytes> inputs(static_cast<size_t>(ranks));
    for (int peer = 0; peer < ranks; ++peer) {
      const std::string from = path(std::to_string(number), peer);
      while (!read_file(from, inputs[static_cast<size_t>(peer)])) {
        if (aborted_) {
          return false;
        }
        pause();
      }
    }
    next.combine(inputs);
    // Whoever has begun this one has done with the one before.
    if (number > 0) {
      ::unlink(path(std::to_string(number - 1), rank).c_str());
    }
    std::lock_guard<std::mutex> lock(lock_);
    queue_.pop_front();
    next.pending->done = true;
    return true;
  }

  const std::string prefix_;
  std::mutex joining_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<Collective> queue_;
  std::atomic<bool> aborted_{false};
  std::thread thread_;
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
Combine sum(void* output, size_t count) {
  return [=](const std::vector<Bytes>& inputs) {
    auto* to = static_cast<T*>(output);
    std::memset(output, 0, count * sizeof(T));
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
      combine = sum<float>(output, count);
      break;
    case ncclFloat64:
      combine = sum<double>(output, count);
      break;
    case ncclInt64:
      combine = sum<int64_t>(output, count);
      break;
    default:
      return ncclInvalidArgument;
  }
  if (operation != ncclSum) {
    return ncclInvalidArgument;
  }
  of(comm).add(input, count * width(type), stream, std::move(combine));
  return ncclSuccess;
}

ncclResult_t ncclBroadcast(
    const void* input, void* output, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
    cudaStream_t stream) {
  const size_t size = of(comm).rank == root ? count * width(type) : 0;
  of(comm).add(input, size, stream, [=](const std::vector<Bytes>& inputs) {
    const auto& from = inputs[static_cast<size_t>(root)];
    std::memcpy(output, from.data(), from.size());
  });
  return ncclSuccess;
}

ncclResult_t ncclBcast(
    void* buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
    cudaStream_t stream) {
  return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(
    const void* input, void* output, size_t count, ncclDataType_t type, ncclComm_t comm,
    cudaStream_t stream) {
  of(comm).add(input, count * width(type), stream, [=](const std::vector<Bytes>& inputs) {
    auto* to = static_cast<char*>(output);
    for (const auto& from : inputs) {
      std::memcpy(to, from.data(), from.size());
      to += from.size();
    }
  });
  return ncclSuccess;
}

} // extern "C"
