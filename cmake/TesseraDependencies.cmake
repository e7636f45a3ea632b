# System packages. Names that work on Debian 12 and Ubuntu 24.04.

find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto SSL)
find_package(JPEG REQUIRED)
find_package(PNG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp)
if(TESSERA_TESTS)
  find_package(GTest)
  if(NOT GTest_FOUND)
    # The demo and the images do without; test.sh installs it, and fails on a build without tests.
    message(STATUS "No GTest: tests and benchmarks are left out")
    set(TESSERA_TESTS OFF)
  endif()
endif()
if(TESSERA_SERVER)
  find_package(Protobuf REQUIRED)
  find_package(gRPC CONFIG REQUIRED)
  find_package(spdlog CONFIG REQUIRED)
  find_package(fmt CONFIG REQUIRED)
  find_package(prometheus-cpp CONFIG REQUIRED)
endif()

if(TESSERA_SERVER)
  # fmt has no archive: spdlog's header-only target takes fmt's header-only one too.
  set_target_properties(spdlog::spdlog_header_only PROPERTIES
    INTERFACE_LINK_LIBRARIES "Threads::Threads;fmt::fmt-header-only")
endif()
if(TESSERA_STATIC)
  tessera_prefer_archives()
endif()
