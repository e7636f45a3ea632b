#include "server/process/thread_start.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/end_process.h"

extern "C" int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                     void* (*run)(void*), void* argument);

extern "C" int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                     void* (*run)(void*), void* argument) {
  const int error = __real_pthread_create(thread, attributes, run, argument);
  if (error != 0) {
    tessera::EndProcess(
        absl::StrCat("out of memory: a thread could not be started: ", std::strerror(error)));
  }
  return error;
}
