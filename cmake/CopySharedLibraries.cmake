# Copies every shared library that BINARY needs, directly or through another, to DESTINATION, except
# those of the C and C++ runtime, which every machine has.
#
# Run as: cmake -DBINARY= -DDESTINATION= -DCOMPILER= -DOBJDUMP= -P CopySharedLibraries.cmake
# The compiler is asked where a library lies, as the binary's own RPATH would find the old copies.

cmake_minimum_required(VERSION 3.25)
set(runtime "^(ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv|libstdc\\+\\+|libgcc_s)\\.so")

set(queue "${BINARY}")
set(seen)
while(queue)
  list(POP_FRONT queue file)
  execute_process(COMMAND ${OBJDUMP} -p ${file} OUTPUT_VARIABLE headers COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "NEEDED +[^\n]+" needed "${headers}")
  foreach(line IN LISTS needed)
    string(REGEX REPLACE "^NEEDED +" "" name "${line}")
    if(name MATCHES "${runtime}" OR name IN_LIST seen)
      continue()
    endif()
    list(APPEND seen ${name})
    execute_process(COMMAND ${COMPILER} -print-file-name=${name} OUTPUT_VARIABLE path
                    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    if(NOT IS_ABSOLUTE "${path}")
      message(FATAL_ERROR "${file} needs ${name}, which ${COMPILER} does not find")
    endif()
    file(REAL_PATH "${path}" path)
    list(APPEND queue "${path}")
    # Several binaries link at once: a rename never shows a half-written library.
    file(MAKE_DIRECTORY "${DESTINATION}")
    string(RANDOM LENGTH 12 suffix)
    file(COPY_FILE "${path}" "${DESTINATION}/.${name}.${suffix}")
    file(RENAME "${DESTINATION}/.${name}.${suffix}" "${DESTINATION}/${name}")
  endforeach()
endwhile()
