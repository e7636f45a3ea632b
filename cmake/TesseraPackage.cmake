# `ninja package`: tesserad-<version>-<arch>.tar.gz, stripped, to be unpacked and run anywhere with a
# C++ runtime as new as the build machine's. The demo model lies where tesserad looks for it, the
# shipped libraries where nothing but our binaries does: the same tree installs below /usr/local.

install(DIRECTORY models/demo DESTINATION share/tessera/models)
install(FILES CHANGELOG.md LICENSE README.md DESTINATION share/doc/tessera)
foreach(target tesserad tessera)
  if(NOT TARGET ${target})
    continue()
  endif()
  install(TARGETS ${target} RUNTIME DESTINATION bin)
  if(TESSERA_STATIC)
    install(CODE "execute_process(
      COMMAND ${CMAKE_COMMAND} -DBINARY=$<TARGET_FILE:${target}>
              -DDESTINATION=\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/lib/tessera
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
