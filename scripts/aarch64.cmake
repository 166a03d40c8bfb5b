# CMake toolchain: compiles for aarch64 Linux with Debian's cross compiler, against the libraries in the folder that
# BACKPROPD_SYSROOT names; tests run under QEMU. scripts/aarch64.sh makes the folder, and calls CMake with this.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(BACKPROPD_SYSROOT "" CACHE PATH "root of an aarch64 system with the headers and libraries")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES BACKPROPD_SYSROOT)
set(CMAKE_SYSROOT ${BACKPROPD_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${BACKPROPD_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${BACKPROPD_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${BACKPROPD_SYSROOT}/usr/share/pkgconfig)

set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L ${BACKPROPD_SYSROOT})
