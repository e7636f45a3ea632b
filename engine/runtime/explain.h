// Builds the explanation that a request asked for from its sequence's cache.
//
// Threads: the engine's thread.
#pragma once

#include "cache/pages/arena.h"
#include "engine/request/explanation.h"
#include "engine/runtime/sequence.h"

namespace tessera {

Explanation Explain(const Sequence& sequence, const Arena& arena);

}  // namespace tessera
