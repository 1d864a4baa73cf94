/* core/base/file.h and core/base/machine.h. */
#include "core/base/file.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/machine.h"
#include "tests/unit/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 100000 }; /* several pieces of a copy, and a rest */

static char *pattern(void)
{
    char *data = rs_alloc(SIZE);

    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 31 + i / 257);
    return data;
}

START_TEST(all_of_it)
{
    rs_auto(rs_freep) char *data = pattern(), *got = rs_alloc(SIZE);
    rs_auto(rs_closep) int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC);

    ck_assert_int_eq(rs_file_write(a, data, SIZE, 7), 0);
    ck_assert_int_eq(rs_file_read(a, got, SIZE, 7), 0);
    ck_assert_mem_eq(got, data, SIZE);
    ck_assert_int_eq(rs_file_copy(a, 8, b, 3, SIZE - 1), 0);
    memset(got, 0, SIZE);
    ck_assert_int_eq(rs_file_read(b, got, SIZE - 1, 3), 0);
    ck_assert_mem_eq(got, data + 1, SIZE - 1);
    ck_assert_int_eq(rs_file_read(a, got, 0, SIZE * 9), 0); /* nothing is always there */
}
END_TEST

START_TEST(what_is_missing_is_an_error)
{
    rs_auto(rs_freep) char *data = pattern();
    rs_auto(rs_closep) int a = memfd_create("a", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                           b = memfd_create("b", MFD_CLOEXEC);

    ck_assert_int_eq(rs_file_write(a, data, 100, 0), 0);
    ck_assert_int_eq(rs_file_read(a, data, 101, 0), -1);
    ck_assert_int_eq(errno, ENODATA);
    ck_assert_int_eq(rs_file_copy(a, 50, b, 0, 51), -1);
    ck_assert_int_eq(errno, ENODATA);
    ck_assert_int_eq(fcntl(a, F_ADD_SEALS, F_SEAL_WRITE), 0);
    ck_assert_int_eq(rs_file_write(a, data, 1, 0), -1);
    ck_assert_int_eq(errno, EPERM);
    ck_assert_int_eq(rs_file_read(-1, data, 1, 0), -1);
    ck_assert_int_eq(errno, EBADF);
}
END_TEST

START_TEST(of_this_machine)
{
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    ck_assert_uint_ge(rs_machine_cores(), 1);
    ck_assert_uint_le(rs_machine_cores(), (unsigned)sysconf(_SC_NPROCESSORS_CONF));
    ck_assert_uint_gt(rs_machine_memory(), 0);
    ck_assert_uint_le(rs_machine_memory(), all);
}
END_TEST

RS_CHECK_MAIN("file", tcase_add_test(tc, all_of_it);
              tcase_add_test(tc, what_is_missing_is_an_error); tcase_add_test(tc, of_this_machine);)
