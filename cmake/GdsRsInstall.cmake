# What an installation holds. The prefix may be moved as a whole afterwards.
#
#   include/gds_rs.h (and gds_rs*.hpp, gds_rs*.cuh)
#   lib/libgds_rs.so -> libgds_rs.so.ABI -> libgds_rs.so.VERSION
#   lib/pkgconfig/gds_rs.pc
#   lib/cmake/gds_rs/gds_rs-config.cmake, gds_rs-config-version.cmake
#   share/licenses/gds_rs/LICENSE-*

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

file(GLOB gds_rs_headers CONFIGURE_DEPENDS
    "${gds_rs_include_dir}/gds_rs*.h"
    "${gds_rs_include_dir}/gds_rs*.hpp"
    "${gds_rs_include_dir}/gds_rs*.cuh")
install(FILES ${gds_rs_headers} DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")

list(GET gds_rs_products 0 gds_rs_real_file)
list(SUBLIST gds_rs_products 1 -1 gds_rs_links)
install(PROGRAMS "${gds_rs_real_file}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES ${gds_rs_links} DESTINATION "${CMAKE_INSTALL_LIBDIR}")

install(FILES "${PROJECT_SOURCE_DIR}/LICENSE-MIT" "${PROJECT_SOURCE_DIR}/LICENSE-APACHE"
    DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/gds_rs")

# pkg-config: from where the .pc file lies to the prefix, so that nothing absolute is written.
set(gds_rs_pc_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(gds_rs_pc_prefix "${CMAKE_INSTALL_PREFIX}")
    set(gds_rs_pc_libdir "${CMAKE_INSTALL_FULL_LIBDIR}")
    set(gds_rs_pc_includedir "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
    file(RELATIVE_PATH gds_rs_pc_up "/${gds_rs_pc_dir}" "/")
    string(REGEX REPLACE "/$" "" gds_rs_pc_up "${gds_rs_pc_up}")
    set(gds_rs_pc_prefix "\${pcfiledir}/${gds_rs_pc_up}")
    set(gds_rs_pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
    set(gds_rs_pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/gds_rs.pc.in" "${PROJECT_BINARY_DIR}/gds_rs.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/gds_rs.pc" DESTINATION "${gds_rs_pc_dir}")

# find_package(gds_rs). install(EXPORT) cannot export an imported target, so the file is ours.
set(gds_rs_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/gds_rs")
configure_package_config_file(
    "${PROJECT_SOURCE_DIR}/cmake/gds_rs-config.cmake.in"
    "${PROJECT_BINARY_DIR}/gds_rs-config.cmake"
    INSTALL_DESTINATION "${gds_rs_config_dir}"
    PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(gds_rs_compatibility SameMinorVersion)
else()
    set(gds_rs_compatibility SameMajorVersion)
endif()
write_basic_package_version_file("${PROJECT_BINARY_DIR}/gds_rs-config-version.cmake"
    VERSION "${PROJECT_VERSION}" COMPATIBILITY "${gds_rs_compatibility}")
install(FILES
    "${PROJECT_BINARY_DIR}/gds_rs-config.cmake"
    "${PROJECT_BINARY_DIR}/gds_rs-config-version.cmake"
    DESTINATION "${gds_rs_config_dir}")
