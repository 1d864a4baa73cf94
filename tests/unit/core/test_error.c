#include "core/base/error.h"

#include "tests/unit/check_main.h"

#include <errno.h>
#include <string.h>

START_TEST(set_and_wrap)
{
    struct rs_error err = {0};

    ck_assert_int_eq(rs_error_set(&err, RS_NOT_FOUND, "no file \"%s\"", "a.yaml"), -1);
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
    ck_assert_int_eq(rs_error_wrap(&err, "application %d", 3), -1);
    ck_assert_str_eq(err.msg, "application 3: no file \"a.yaml\"");
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
}
END_TEST

START_TEST(errno_is_told)
{
    struct rs_error err = {0};

    rs_error_errno(&err, ENOENT, "cannot open %s", "x");
    ck_assert_str_eq(err.msg, "cannot open x: No such file or directory");
    ck_assert_int_eq(err.sys_errno, ENOENT);
}
END_TEST

START_TEST(one_line_whatever_comes)
{
    struct rs_error err = {0};
    char big[2000];

    memset(big, 'y', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    rs_error_set(&err, RS_INVALID, "a\nb\tc\r%s", big);
    ck_assert_ptr_null(strpbrk(err.msg, "\n\t\r"));
    ck_assert_uint_eq(strlen(err.msg), sizeof(err.msg) - 1);
    rs_error_wrap(&err, "%s", big);
    ck_assert_uint_eq(strlen(err.msg), sizeof(err.msg) - 1);
    ck_assert_int_eq(rs_error_set(NULL, RS_INVALID, "nobody listens"), -1);
}
END_TEST

RS_CHECK_MAIN("error", tcase_add_test(tc, set_and_wrap); tcase_add_test(tc, errno_is_told);
              tcase_add_test(tc, one_line_whatever_comes);)
