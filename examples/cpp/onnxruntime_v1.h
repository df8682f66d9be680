// The part of the C interface of ONNX Runtime that hepbridge.hpp uses, declared by hand.
//
// ONNX Runtime hands out a table of functions by version. The table of version 1 has had 102
// entries in a fixed order since 2019 and every later release still serves it; entries that are not
// used here are gaps. Names and arguments are those of onnxruntime_c_api.h, so that a program may
// include that header before hepbridge.hpp instead. For Linux and macOS (file names are char).
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtEnv;
struct OrtStatus;
struct OrtMemoryInfo;
struct OrtSession;
struct OrtValue;
struct OrtRunOptions;
struct OrtSessionOptions;

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_VERBOSE, ORT_LOGGING_LEVEL_INFO, ORT_LOGGING_LEVEL_WARNING, ORT_LOGGING_LEVEL_ERROR };
enum GraphOptimizationLevel { ORT_DISABLE_ALL = 0, ORT_ENABLE_BASIC = 1, ORT_ENABLE_EXTENDED = 2, ORT_ENABLE_ALL = 99 };
enum OrtAllocatorType { OrtDeviceAllocator = 0, OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL = 9 };

struct OrtApi {
  void* gap_0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);                                         // 2
  OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char* name, OrtEnv**);                     // 3
  void* gap_4[3];
  OrtStatus* (*CreateSession)(const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession**);  // 7
  void* gap_8[1];
  OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, const char* const* input_names,
                    const OrtValue* const* inputs, std::size_t inputs_length,
                    const char* const* output_names, std::size_t outputs_length, OrtValue** outputs);  // 9
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions**);                                  // 10
  void* gap_11[12];
  OrtStatus* (*SetSessionGraphOptimizationLevel)(OrtSessionOptions*, GraphOptimizationLevel);  // 23
  OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions*, int);                              // 24
  void* gap_25[5];
  OrtStatus* (*SessionGetInputCount)(const OrtSession*, std::size_t*);                      // 30
  void* gap_31[18];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, std::size_t bytes,
                                               const std::int64_t* shape, std::size_t axes,
                                               ONNXTensorElementDataType, OrtValue**);      // 49
  void* gap_50[19];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo**);         // 69
  void* gap_70[22];
  void (*ReleaseEnv)(OrtEnv*);                                                              // 92
  void (*ReleaseStatus)(OrtStatus*);                                                        // 93
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);                                                // 94
  void (*ReleaseSession)(OrtSession*);                                                      // 95
  void (*ReleaseValue)(OrtValue*);                                                          // 96
  void* gap_97[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);                                        // 100
  void* gap_101[1];
};

static_assert(offsetof(OrtApi, Run) == 9 * sizeof(void*), "order of the table");
static_assert(offsetof(OrtApi, CreateTensorWithDataAsOrtValue) == 49 * sizeof(void*), "order of the table");
static_assert(offsetof(OrtApi, ReleaseEnv) == 92 * sizeof(void*), "order of the table");
static_assert(offsetof(OrtApi, ReleaseSessionOptions) == 100 * sizeof(void*), "order of the table");
static_assert(sizeof(OrtApi) == 102 * sizeof(void*), "length of the table");

struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

extern "C" const OrtApiBase* OrtGetApiBase() noexcept;

#define ORT_API_VERSION 1
