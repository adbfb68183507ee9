# The programs of c_examples/, cuda_tests/ and, of benches/, those for nvcc. Each but the last is a
# ctest case: 0 passed, 77 skipped.

set(gds_rs_c_warnings -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion)
set(gds_rs_sanitizers
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)

find_package(Threads REQUIRED)

# A test that runs one program with the given arguments.
function(gds_rs_add_case name target)
    add_test(NAME "${name}" COMMAND "${target}" ${ARGN})
    set_tests_properties("${name}" PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300
        ENVIRONMENT "GDS_RS_LIBRARY=$<TARGET_FILE:gds_rs::gds_rs>")
endfunction()

# A program named dlopen* finds the library itself at run time and takes only the header.
function(gds_rs_add_program target source standard)
    add_executable("${target}" "${source}")
    if(target MATCHES "^dlopen")
        target_include_directories("${target}" PRIVATE "${gds_rs_include_dir}")
        target_link_libraries("${target}" PRIVATE ${CMAKE_DL_LIBS})
    else()
        target_link_libraries("${target}" PRIVATE gds_rs::gds_rs Threads::Threads)
    endif()
    # The header is held to the same warnings as the programs.
    set_property(TARGET "${target}" PROPERTY NO_SYSTEM_FROM_IMPORTED ON)
    target_compile_features("${target}" PRIVATE "${standard}")
    if(GDS_RS_TEST_LAUNCHER)
        set_property(TARGET "${target}" PROPERTY CROSSCOMPILING_EMULATOR ${GDS_RS_TEST_LAUNCHER})
    endif()
endfunction()

if(GDS_RS_BUILD_EXAMPLES)
    file(GLOB gds_rs_examples CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/c_examples/*.c")
    if(CMAKE_CXX_COMPILER)
        file(GLOB gds_rs_cpp_examples CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/c_examples/*.cpp")
        list(APPEND gds_rs_examples ${gds_rs_cpp_examples})
    endif()
    foreach(source IN LISTS gds_rs_examples)
        get_filename_component(name "${source}" NAME_WE)
        if(source MATCHES "\\.cpp$")
            gds_rs_add_program("${name}" "${source}" cxx_std_17)
        else()
            gds_rs_add_program("${name}" "${source}" c_std_11)
        endif()
        target_compile_options("${name}" PRIVATE ${gds_rs_c_warnings})
        if(GDS_RS_SANITIZE)
            target_compile_options("${name}" PRIVATE ${gds_rs_sanitizers} -g -O1)
            target_link_options("${name}" PRIVATE ${gds_rs_sanitizers})
        endif()
        set_target_properties("${name}" PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/c_examples")
        # They move the library itself: a real file that is always there. Those that want a table
        # write one.
        set(file "$<TARGET_FILE:gds_rs::gds_rs>")
        if(name MATCHES "_columns$")
            set(file)
        endif()
        gds_rs_add_case("c_examples/${name}" "${name}" ${file})
        # Where there is a GPU the plain case takes it; the host device is then a second case.
        if(EXISTS /dev/nvidiactl)
            gds_rs_add_case("c_examples/${name}_host" "${name}" ${file})
            set_property(TEST "c_examples/${name}_host" APPEND PROPERTY ENVIRONMENT GDS_DEVICE=host)
        endif()
    endforeach()
endif()

if(GDS_RS_BUILD_CUDA_TESTS)
    # PTX for every GPU since Turing, machine code for Hopper; a user's own choice goes before.
    if(NOT CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES 75-virtual 90-real)
    endif()
    enable_language(CUDA)
    file(GLOB gds_rs_cuda_tests CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda_tests/*.cu")
    foreach(source IN LISTS gds_rs_cuda_tests)
        get_filename_component(name "${source}" NAME_WE)
        gds_rs_add_program("${name}" "${source}" cuda_std_17)
        target_compile_options("${name}" PRIVATE "SHELL:-Xcompiler -Wall,-Wextra,-Werror")
        set_target_properties("${name}" PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/cuda_tests")
        gds_rs_add_case("cuda_tests/${name}" "${name}")
    endforeach()
    file(GLOB gds_rs_cuda_benches CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/benches/*.cu")
    foreach(source IN LISTS gds_rs_cuda_benches)
        get_filename_component(name "${source}" NAME_WE)
        gds_rs_add_program("${name}" "${source}" cuda_std_17)
        target_compile_options("${name}" PRIVATE "SHELL:-Xcompiler -Wall,-Wextra,-Werror")
        set_target_properties("${name}" PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/benches")
    endforeach()
endif()
