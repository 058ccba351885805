// Opaque stand-ins for the types of cuBLAS, cuSPARSE and cuSOLVER that ATen's CUDA
// headers name in declarations. Their packages are large, and the NCCL library
// calls none of them; handles are pointers and statuses are plain enums, so that
// the declarations mean the same as with the real headers.
#pragma once

typedef struct cublasContext* cublasHandle_t;
typedef struct cublasLtContext* cublasLtHandle_t;
typedef struct cusparseContext* cusparseHandle_t;
typedef struct cusolverDnContext* cusolverDnHandle_t;

typedef enum { CUBLAS_STATUS_SUCCESS = 0 } cublasStatus_t;
typedef enum { CUSPARSE_STATUS_SUCCESS = 0 } cusparseStatus_t;
typedef enum { CUSOLVER_STATUS_SUCCESS = 0 } cusolverStatus_t;
