# The imported target gds_rs::gds_rs: libgds_rs.so in ${CMAKE_BINARY_DIR}/lib with its links, made
# by cargo or copied from GDS_RS_LIBRARY.

# While the major version is 0 every minor version may break the ABI: build.rs has the same rule.
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(gds_rs_abi "0.${PROJECT_VERSION_MINOR}")
else()
    set(gds_rs_abi "${PROJECT_VERSION_MAJOR}")
endif()
set(gds_rs_soname "libgds_rs.so.${gds_rs_abi}")
set(gds_rs_file "libgds_rs.so.${PROJECT_VERSION}")
set(gds_rs_library_dir "${PROJECT_BINARY_DIR}/lib")
set(gds_rs_include_dir "${PROJECT_SOURCE_DIR}/include")

# The real file and the two links that the loader (soname) and the linker (.so) look for.
set(gds_rs_link_commands
    COMMAND "${CMAKE_COMMAND}" -E create_symlink
        "${gds_rs_file}" "${gds_rs_library_dir}/${gds_rs_soname}"
    COMMAND "${CMAKE_COMMAND}" -E create_symlink
        "${gds_rs_soname}" "${gds_rs_library_dir}/libgds_rs.so")
set(gds_rs_products
    "${gds_rs_library_dir}/${gds_rs_file}"
    "${gds_rs_library_dir}/${gds_rs_soname}"
    "${gds_rs_library_dir}/libgds_rs.so")

if(GDS_RS_LIBRARY)
    get_filename_component(gds_rs_built "${GDS_RS_LIBRARY}" ABSOLUTE
        BASE_DIR "${PROJECT_BINARY_DIR}")
    if(NOT EXISTS "${gds_rs_built}")
        message(FATAL_ERROR "GDS_RS_LIBRARY=${GDS_RS_LIBRARY}: there is no such file. "
            "Give the path of a libgds_rs.so, or leave it empty to build one with cargo.")
    endif()
    set(gds_rs_cargo_command)
else()
    find_program(GDS_RS_CARGO cargo HINTS "$ENV{CARGO_HOME}/bin" "$ENV{HOME}/.cargo/bin"
        DOC "The cargo that builds libgds_rs.so")
    if(NOT GDS_RS_CARGO)
        message(FATAL_ERROR "There is no cargo on the PATH. Install Rust (https://rustup.rs), "
            "or set GDS_RS_LIBRARY to a libgds_rs.so that was built elsewhere.")
    endif()
    set(gds_rs_cargo_dir "${PROJECT_BINARY_DIR}/cargo")
    if(CMAKE_BUILD_TYPE STREQUAL "Debug")
        set(gds_rs_cargo_profile dev)
        set(gds_rs_built "${gds_rs_cargo_dir}/debug/libgds_rs.so")
    else()
        set(gds_rs_cargo_profile release)
        set(gds_rs_built "${gds_rs_cargo_dir}/release/libgds_rs.so")
    endif()
    # Without them the calls are there, and answer GDS_STATUS_NOT_SUPPORTED.
    if(GDS_RS_COLUMNS)
        set(gds_rs_features --features parquet)
    endif()
    # Only the shared library: the crate's staticlib and rlib would be linked for nothing.
    set(gds_rs_cargo_command
        COMMAND "${GDS_RS_CARGO}" rustc --lib --crate-type cdylib --locked --no-default-features
            ${gds_rs_features}
            --profile "${gds_rs_cargo_profile}" --target-dir "${gds_rs_cargo_dir}")
endif()

# Runs on every build: cargo knows what changed, and the copy keeps its time when nothing did.
add_custom_target(gds_rs_build ALL
    ${gds_rs_cargo_command}
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${gds_rs_library_dir}"
    COMMAND "${CMAKE_COMMAND}" -E copy_if_different
        "${gds_rs_built}" "${gds_rs_library_dir}/${gds_rs_file}"
    ${gds_rs_link_commands}
    BYPRODUCTS ${gds_rs_products}
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
    COMMENT "libgds_rs.so"
    USES_TERMINAL
    VERBATIM)

# Without IMPORTED_SONAME CMake would record this build's path in every program.
add_library(gds_rs::gds_rs SHARED IMPORTED GLOBAL)
set_target_properties(gds_rs::gds_rs PROPERTIES
    IMPORTED_LOCATION "${gds_rs_library_dir}/${gds_rs_file}"
    IMPORTED_SONAME "${gds_rs_soname}"
    INTERFACE_INCLUDE_DIRECTORIES "${gds_rs_include_dir}")
add_dependencies(gds_rs::gds_rs gds_rs_build)
