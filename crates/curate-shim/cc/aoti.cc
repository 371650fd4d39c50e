// Functions that TorchInductor has compiled ahead of time: packages (.pt2) that hold a shared object.
#include "shim.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <string>
#include <vector>

using Loader = torch::inductor::AOTIModelPackageLoader;

// What aoti_compile_and_package calls a package's only function.
static const char *const NAME = "model";

// The text under `key` in a package's metadata, to be given back to curate_free_message; null if there is none.
extern "C" char *curate_aoti_metadata(const char *path, const char *key, char **out) {
  return curate::guard([&] {
    const auto metadata = Loader::load_metadata_from_package(path, NAME);
    const auto found = metadata.find(key);
    *out = found == metadata.end() ? nullptr : curate::message(found->second.c_str());
  });
}

// Unpacks a package and opens its shared object.
extern "C" char *curate_aoti_open(const char *path, Loader **out) {
  return curate::guard([&] { *out = new Loader(path, NAME); });
}

// Calls the function. `outputs` has room for `expected` tensors, which the caller then owns; none is written if the function
// returns another number of them.
extern "C" char *curate_aoti_run(Loader *loader, const at::Tensor *const *inputs, size_t count, at::Tensor **outputs,
                                 size_t expected) {
  return curate::guard([&] {
    std::vector<at::Tensor> arguments;
    arguments.reserve(count);
    for (size_t i = 0; i < count; i++) arguments.push_back(*inputs[i]);
    std::vector<at::Tensor> results = loader->boxed_run(std::move(arguments));
    if (results.size() != expected)
      throw std::runtime_error("returned " + std::to_string(results.size()) + " tensors, expected " +
                               std::to_string(expected));
    for (size_t i = 0; i < expected; i++) outputs[i] = new at::Tensor(std::move(results[i]));
  });
}

// Closes the shared object and removes what was unpacked.
extern "C" void curate_aoti_close(Loader *loader) { delete loader; }
