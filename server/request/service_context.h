// The parts of the daemon that its front ends work with.
//
// Ownership: the daemon owns all of them, and they outlive the front ends. Threads: set before the
// first call, then read only; `runtime` and `rules` are set before SERVING.
#pragma once

#include "server/access/access.h"
#include "server/api/parsed_request.h"
#include "server/request/runtime.h"

namespace tessera {

class ImageFetcher;
class Lifecycle;
class Logger;
class Metrics;
class WorkerPool;
struct ServerConfig;

struct ServiceContext {
  const ServerConfig* config = nullptr;
  const Runtime* runtime = nullptr;
  RequestRules rules;
  Lifecycle* lifecycle = nullptr;
  AccessControl* access = nullptr;
  Metrics* metrics = nullptr;
  Logger* log = nullptr;
  WorkerPool* workers = nullptr;   // bounded: decodes images, tokenizes
  WorkerPool* senders = nullptr;   // starts writes, off the engine's thread
  ImageFetcher* images = nullptr;  // null: no image is fetched
};

}  // namespace tessera
