// What all files of this folder share.
//
// The ABI: every function is `extern "C"`, takes tensors as the pointers that tch holds (`at::Tensor *`), and returns
// nullptr or a message that the caller gives back to `curate_free_message`. No exception leaves a function.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstring>
#include <exception>

namespace curate {

// What is said when there is no memory for a message; `curate_free_message` knows it.
inline char out_of_memory[] = "out of memory";

// A copy of `text` that `curate_free_message` takes.
inline char *message(const char *text) {
  char *copy = strdup(text);
  return copy ? copy : out_of_memory;
}

// Runs `f` and returns what went wrong, or nullptr.
template <class F>
char *guard(F &&f) noexcept {
  try {
    f();
    return nullptr;
  } catch (const std::exception &error) {
    return message(error.what());
  } catch (...) {
    return message("an exception that is no std::exception");
  }
}

}  // namespace curate
