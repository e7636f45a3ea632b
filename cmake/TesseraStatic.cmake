# A mostly static link: third-party code comes from archives, so that a binary can be copied to
# another machine together with the few libraries that have no archive (bin/lib).
#
# The distributions' CMake packages name .so files even where the archive lies next to them. This
# file points those imported targets at the archives; where there is none the shared library stays,
# a message says so, and cmake/CopySharedLibraries.cmake ships it. libc, libm, libstdc++ and
# libgcc_s always come from the machine that runs the binary: a static libstdc++ next to shared
# C++ libraries would put two copies into one process.

set(static_default ON)
if(TESSERA_SANITIZE)
  set(static_default OFF)
endif()
option(TESSERA_STATIC "Link third-party archives where they exist, ship the rest in bin/lib"
       ${static_default})

# The archive next to a shared library, or the path itself.
function(tessera_archive_of path out)
  string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive "${path}")
  if(NOT archive STREQUAL path AND EXISTS "${archive}")
    set(${out} "${archive}" PARENT_SCOPE)
  else()
    set(${out} "${path}" PARENT_SCOPE)
  endif()
endfunction()

# The IMPORTED_LOCATION properties of one imported library.
function(tessera_location_properties target out)
  get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
  set(properties)
  foreach(suffix IN LISTS configurations ITEMS "")
    string(REGEX REPLACE "^(.+)$" "_\\1" suffix "${suffix}")
    get_target_property(location ${target} IMPORTED_LOCATION${suffix})
    if(location)
      list(APPEND properties IMPORTED_LOCATION${suffix})
    endif()
  endforeach()
  set(${out} "${properties}" PARENT_SCOPE)
endfunction()

# Points imported libraries at their archives in every configuration they have, and appends those
# without one to the list `shared`.
function(tessera_use_archives)
  foreach(target IN LISTS ARGN)
    tessera_location_properties(${target} properties)
    foreach(property IN LISTS properties)
      get_target_property(location ${target} ${property})
      tessera_archive_of("${location}" archive)
      set_target_properties(${target} PROPERTIES ${property} "${archive}")
      if(archive STREQUAL location AND NOT location MATCHES "\\.a$")
        list(APPEND shared ${target})
      endif()
    endforeach()
  endforeach()
  set(shared "${shared}" PARENT_SCOPE)
endfunction()

# TRUE if each of the imported libraries lies next to its archive.
function(tessera_have_archives out)
  set(${out} TRUE PARENT_SCOPE)
  foreach(target IN LISTS ARGN)
    tessera_location_properties(${target} properties)
    foreach(property IN LISTS properties)
      get_target_property(location ${target} ${property})
      tessera_archive_of("${location}" archive)
      if(archive STREQUAL location AND NOT location MATCHES "\\.a$")
        message(STATUS "Static link: no archive of ${target}")
        set(${out} FALSE PARENT_SCOPE)
      endif()
    endforeach()
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
    if(name MATCHES "^(m|pthread|dl|rt)$")
      list(APPEND libraries ${name})
    elseif(TESSERA_ARCHIVE_${name})
      list(APPEND libraries ${TESSERA_ARCHIVE_${name}})
    else()
      list(APPEND libraries ${name})
      list(APPEND shared ${name})
    endif()
  endforeach()
  set(shared "${shared}" PARENT_SCOPE)
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
  set(libraries)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(type MATCHES "^(SHARED|UNKNOWN)_LIBRARY$")
      list(APPEND libraries ${target})
    endif()
  endforeach()
  set(shared)

  # gRPC, protobuf and Abseil hold state of the process and call each other: all are archives or
  # all are shared, so that a shared one does not bring a second copy of another.
  set(family ${libraries})
  list(FILTER family INCLUDE REGEX
       "^(gRPC::(grpc|grpc\\+\\+|grpc\\+\\+_reflection|gpr|upb|address_sorting)|protobuf::libprotobuf|absl::.*)$")
  tessera_have_archives(whole_family ${family})
  if(whole_family)
    tessera_use_archives(${family})
  else()
    list(APPEND shared gRPC protobuf absl)
  endif()

  set(others ${libraries})
  list(FILTER others INCLUDE REGEX
       "^(c-ares|re2|OpenSSL|ZLIB|JPEG|PNG)::|^prometheus-cpp::(core|pull)$|^civetweb::civetweb")
  tessera_use_archives(${others})
  tessera_prefer_pkgconfig_archive(PkgConfig::WEBP WEBP)
  # Without a CMake package of re2, gRPC's find module makes a bare "-lre2" of it.
  if(TARGET re2::re2 AND NOT re2::re2 IN_LIST libraries)
    pkg_check_modules(TESSERA_RE2 QUIET re2)
    tessera_prefer_pkgconfig_archive(re2::re2 TESSERA_RE2)
    tessera_archive_needs(re2::re2 Threads::Threads)
  endif()
  tessera_archive_needs(PNG::PNG ZLIB::ZLIB m)
  tessera_archive_needs(protobuf::libprotobuf ZLIB::ZLIB Threads::Threads)
  tessera_archive_needs(OpenSSL::Crypto Threads::Threads ${CMAKE_DL_LIBS})

  list(REMOVE_DUPLICATES shared)
  list(JOIN shared " " shared)
  message(STATUS "Static link: shared, shipped in bin/lib: ${shared}")
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
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/lib:$ORIGIN/../lib/tessera")
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
