# `ninja package`: tesserad-<version>-<arch>.tar.gz with bin/, lib/ and models/demo, stripped, to be
# unpacked and run anywhere with a C++ runtime as new as the build machine's.

install(DIRECTORY models/demo DESTINATION models)
install(FILES LICENSE README.md DESTINATION .)
foreach(target tesserad tessera)
  if(NOT TARGET ${target})
    continue()
  endif()
  install(TARGETS ${target} RUNTIME DESTINATION bin)
  if(TESSERA_STATIC)
    install(CODE "execute_process(
      COMMAND ${CMAKE_COMMAND} -DBINARY=$<TARGET_FILE:${target}>
              -DDESTINATION=\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/lib
              -DCOMPILER=${CMAKE_CXX_COMPILER} -DOBJDUMP=${CMAKE_OBJDUMP}
              -P ${PROJECT_SOURCE_DIR}/cmake/CopySharedLibraries.cmake
      COMMAND_ERROR_IS_FATAL ANY)")
  endif()
endforeach()

set(CPACK_GENERATOR TGZ)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME tesserad-${PROJECT_VERSION}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_SOURCE_GENERATOR "")
include(CPack)
