// See cuda_math_types.h.
#pragma once

#include "cuda_math_types.h"
