// Ends the process when a thread of gRPC cannot be started.
//
// gRPC ignores that failure: work for the missing thread is never done, and calls and the drain
// wait for ever. The linker sends static libraries' pthread_create here (--wrap,
// server/CMakeLists.txt). Threads of the C++ library take another way: they throw, and only their
// request ends.
#pragma once

#include <pthread.h>

extern "C" int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                     void* (*run)(void*), void* argument);
