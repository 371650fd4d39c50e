// Stands in for a header of gloo that the torch wheel does not ship. See c10d.cc.
#pragma once
#include <chrono>

namespace gloo {
class Context {
public:
    void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
