#include "core/base/buf.h"

#include "tests/unit/check_main.h"

#include <string.h>

START_TEST(append_and_consume)
{
    struct rs_buf b = {0};

    ck_assert_str_eq(rs_buf_text(&b), "");
    rs_buf_puts(&b, "hello ");
    rs_buf_printf(&b, "%s %d", "world", 42);
    ck_assert_str_eq(rs_buf_text(&b), "hello world 42");
    rs_buf_consume(&b, 6);
    ck_assert_str_eq(rs_buf_text(&b), "world 42");
    ck_assert_uint_eq(rs_buf_len(&b), 8);
    rs_buf_consume(&b, 8);
    ck_assert_str_eq(rs_buf_text(&b), "");
    rs_buf_fini(&b);
}
END_TEST

START_TEST(long_printf)
{
    struct rs_buf b = {0};
    char text[1000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    rs_buf_printf(&b, "<%s>", text);
    ck_assert_uint_eq(rs_buf_len(&b), sizeof(text) + 1);
    ck_assert_int_eq(rs_buf_text(&b)[sizeof(text)], '>');
    rs_buf_fini(&b);
}
END_TEST

/* A buffer used as a queue moves its bytes to the front and does not grow for ever. */
START_TEST(queue_does_not_grow)
{
    struct rs_buf b = {0};

    for (int i = 0; i < 10000; i++) {
        rs_buf_append(&b, "0123456789", 10);
        if (i)
            rs_buf_consume(&b, 10);
    }
    ck_assert_uint_eq(rs_buf_len(&b), 10);
    ck_assert_uint_le(b.cap, 64);
    rs_buf_fini(&b);
}
END_TEST

START_TEST(steal_gives_text)
{
    struct rs_buf b = {0};
    char *text;

    rs_buf_puts(&b, "abcdef");
    rs_buf_consume(&b, 2);
    text = rs_buf_steal(&b);
    ck_assert_str_eq(text, "cdef");
    ck_assert_uint_eq(rs_buf_len(&b), 0);
    free(text);
    text = rs_buf_steal(&b);
    ck_assert_str_eq(text, "");
    free(text);
}
END_TEST

RS_CHECK_MAIN("buf", tcase_add_test(tc, append_and_consume); tcase_add_test(tc, long_printf);
              tcase_add_test(tc, queue_does_not_grow); tcase_add_test(tc, steal_gives_text);)
