# A mostly static link: third-party code comes from archives, so that a binary can be copied to
# another machine together with the few libraries that have no archive (bin/lib).
#
# The distributions' CMake packages name .so files even where the archive lies beside them. This
# file points those imported targets at the archives; where there is none the shared library stays,
# a message says so, and cmake/CopySharedLibraries.cmake ships it. libc, libm, libstdc++ and
# libgcc_s always come from the machine that runs the binary: a static libstdc++ beside shared
# C++ libraries would put two copies into one process.

set(static_default ON)
if(TESSERA_SANITIZE)
  set(static_default OFF)
endif()
option(TESSERA_STATIC "Link third-party archives where they exist, ship the rest in bin/lib"
       ${static_default})

# The archive beside a shared library, or the path itself.
function(tessera_archive_of path out)
  string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive "${path}")
  if(NOT archive STREQUAL path AND EXISTS "${archive}")
    set(${out} "${archive}" PARENT_SCOPE)
  else()
    set(${out} "${path}" PARENT_SCOPE)
  endif()
endfunction()

# Points one imported library at its archive in every configuration it has.
function(tessera_prefer_archive target)
  get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
  set(properties IMPORTED_LOCATION)
  foreach(configuration IN LISTS configurations)
    list(APPEND properties IMPORTED_LOCATION_${configuration})
  endforeach()
  foreach(property IN LISTS properties)
    get_target_property(location ${target} ${property})
    if(location)
      tessera_archive_of("${location}" archive)
      set_target_properties(${target} PROPERTIES ${property} "${archive}")
      if(archive MATCHES "\\.so[.0-9]*$")
        set_property(GLOBAL APPEND PROPERTY TESSERA_SHARED "${target}")
      endif()
    endif()
  endforeach()
endfunction()

# pkg-config describes a library by flags: takes the module's static closure (lib.pc's private
# libraries included) as archives where they exist. Must run before the target has a user.
function(tessera_prefer_pkgconfig_archive target prefix)
  set(libraries)
  foreach(name IN LISTS ${prefix}_STATIC_LIBRARIES)
    find_library(TESSERA_ARCHIVE_${name} NAMES lib${name}.a HINTS ${${prefix}_STATIC_LIBRARY_DIRS})
    mark_as_advanced(TESSERA_ARCHIVE_${name})
    # libm and libpthread stay shared: they belong to the C library.
    if(TESSERA_ARCHIVE_${name} AND NOT name MATCHES "^(m|pthread|dl|rt)$")
      list(APPEND libraries ${TESSERA_ARCHIVE_${name}})
    else()
      list(APPEND libraries ${name})
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${libraries}")
endfunction()

# An archive does not say what it needs; these are the edges that the .so files carried inside.
function(tessera_archive_needs target)
  if(TARGET ${target})
    set_property(TARGET ${target} APPEND PROPERTY INTERFACE_LINK_LIBRARIES ${ARGN})
  endif()
endfunction()

# Call once, after every find_package of the directory.
function(tessera_prefer_archives)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(type MATCHES "^(SHARED|UNKNOWN)_LIBRARY$")
      tessera_prefer_archive(${target})
    endif()
  endforeach()

  tessera_prefer_pkgconfig_archive(PkgConfig::WEBP WEBP)
  tessera_archive_needs(PNG::PNG ZLIB::ZLIB m)
  tessera_archive_needs(protobuf::libprotobuf ZLIB::ZLIB Threads::Threads)
  tessera_archive_needs(OpenSSL::Crypto Threads::Threads ${CMAKE_DL_LIBS})
  # Where re2 has no CMake package, gRPC's find module makes a bare "-lre2" of it.
  if(TARGET re2::re2)
    get_target_property(type re2::re2 TYPE)
    if(type STREQUAL "INTERFACE_LIBRARY")
      pkg_check_modules(TESSERA_RE2 QUIET re2)
      tessera_prefer_pkgconfig_archive(re2::re2 TESSERA_RE2)
      tessera_archive_needs(re2::re2 Threads::Threads)
    endif()
  endif()

  get_property(shared GLOBAL PROPERTY TESSERA_SHARED)
  # Only what we link is worth a word; the packages define many more targets.
  list(FILTER shared INCLUDE REGEX
       "^(gRPC|protobuf|absl|re2|c-ares|OpenSSL|ZLIB|JPEG|PNG|prometheus-cpp|civetweb)::")
  list(FILTER shared EXCLUDE REGEX "_plugin_support$|prometheus-cpp::push$")
  list(REMOVE_DUPLICATES shared)
  list(JOIN shared " " shared)
  message(STATUS "Static link: shared where there is no archive: ${shared}")
endfunction()

# Makes an executable of ours fit to be copied (a no-op when TESSERA_STATIC is OFF).
function(tessera_make_portable target)
  # Reflection registers itself from a static initialiser, which an archive's linker drops. The
  # override also covers plain mentions of the library among the dependencies.
  if(TARGET gRPC::grpc++_reflection)
    set_property(TARGET ${target} PROPERTY
                 LINK_LIBRARY_OVERRIDE "WHOLE_ARCHIVE,gRPC::grpc++_reflection")
  endif()
  if(NOT TESSERA_STATIC)
    return()
  endif()
  set_target_properties(${target} PROPERTIES
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/lib:$ORIGIN/../lib")
  # RPATH, not RUNPATH: the latter is not searched for what a shipped library itself needs.
  # --exclude-libs: the shipped libraries must not bind to our private copies (zlib).
  target_link_options(${target} PRIVATE
    LINKER:--disable-new-dtags LINKER:--exclude-libs,ALL LINKER:--as-needed)
  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND ${CMAKE_COMMAND} -DBINARY=$<TARGET_FILE:${target}>
            -DDESTINATION=$<TARGET_FILE_DIR:${target}>/lib
            -DCOMPILER=${CMAKE_CXX_COMPILER} -DOBJDUMP=${CMAKE_OBJDUMP}
            -P ${PROJECT_SOURCE_DIR}/cmake/CopySharedLibraries.cmake
    COMMENT "" VERBATIM)
endfunction()
