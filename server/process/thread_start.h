// gRPC takes no notice of a thread that could not be started: what it hands to that thread is never
// done, and calls and the drain wait for ever. So such a failure ends the process.
//
// The linker sends static libraries' pthread_create here (--wrap, server/CMakeLists.txt). Threads
// of the C++ library are not among them: they throw, and only their request ends.
#pragma once

#include <pthread.h>

extern "C" int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                     void* (*run)(void*), void* argument);
