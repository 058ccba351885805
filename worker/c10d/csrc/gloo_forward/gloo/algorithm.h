// libtorch ships ProcessGroupGloo.hpp but not gloo's own headers. Only pointers to gloo's types
// are held on this side, so declarations suffice; their definitions are inside libtorch_cpu.
#pragma once
namespace gloo {
class Algorithm;
}
