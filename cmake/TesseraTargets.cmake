# One library per folder, executables that can be copied, and one test binary fed by the test
# folders.

# tessera_library(name SOURCES ... DEPS ... PRIVATE_DEPS ...): static library tessera_<name>,
# included as "<folder>/file.h" from the repository's root.
function(tessera_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(tessera_${name} STATIC ${ARG_SOURCES})
  target_include_directories(tessera_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(tessera_${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${TESSERA_WARNINGS}>)
  target_link_libraries(tessera_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# tessera_executable(name SOURCES ... DEPS ...): build/<preset>/bin/<name>, linked as
# TesseraStatic.cmake says.
function(tessera_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${TESSERA_WARNINGS}>)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  tessera_make_portable(${name})
endfunction()

# tessera_test(folder SOURCES ... DEPS ...): adds tests/<folder> to the binary tessera_tests.
function(tessera_test folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(tests_${folder} OBJECT ${ARG_SOURCES})
  # -O1: gtest's expansions are most of a test's code, and optimising them most of its build time.
  target_compile_options(tests_${folder} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${TESSERA_WARNINGS}>
                         $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
  target_include_directories(tests_${folder} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(tests_${folder} PUBLIC ${ARG_DEPS} GTest::gtest GTest::gmock)
  set_property(GLOBAL APPEND PROPERTY TESSERA_TEST_FOLDERS tests_${folder})
endfunction()

# tessera_python_test(name file): a test program in Python against the built binaries, of the tier
# "clients". The first python3 in PATH runs it; it exits with 77 if something that it needs is not
# installed.
function(tessera_python_test name file)
  add_test(NAME ${name} COMMAND python3 -B ${file})
  set_tests_properties(${name} PROPERTIES LABELS clients SKIP_RETURN_CODE 77 TIMEOUT 300
                       ENVIRONMENT TESSERA_BINARY_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
endfunction()

# tessera_fuzz(name SOURCES ... DEPS ...): libFuzzer target fuzz_<name>, built by the fuzz preset
# only. Seeds, where there are any, lie in tests/fuzz/corpus/<name>/.
function(tessera_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(fuzz_${name} ${ARG_SOURCES})
  target_compile_options(fuzz_${name} PRIVATE ${TESSERA_WARNINGS})
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_DEPS})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
endfunction()
