/* Pickles as CPython writes them (pickle.dumps((args, kwargs), 5)), and what is none. */
#include "net/wire/pickle.h"

#include "tests/unit/check_main.h"

#include <string.h>

struct pickle_case {
    const char *pickle;
    size_t len;
    int n;
    const char *args[3];
};

#define P(text, ...)                                                                               \
    {                                                                                              \
        text, sizeof(text) - 1, __VA_ARGS__                                                        \
    }

static const struct pickle_case cases[] = {
    P("\x80\x05\x95\x05\0\0\0\0\0\0\0)}\x94\x86\x94.", 0),
    P("\x80\x05\x95\x0e\0\0\0\0\0\0\0C\3abc\x94\x85\x94}\x94\x86\x94.", 1, {"abc"}),
    P("\x80\x05\x95\x16\0\0\0\0\0\0\0\x8c\2/x\x94"
      "B\2\0\0\0yz\x94\x86\x94}\x94\x86\x94.",
      2, {"/x", "yz"}),
    P("\x80\x05\x8c\1a\x94N\x86\x94}\x94\x86\x94.", 2, {"a", NULL}),
    P("\x80\x05\x8c\1aX\1\0\0\0b\x96\1\0\0\0\0\0\0\0c\x87}\x86.", 3, {"a", "b", "c"}),
    P("\x80\x05\x8c\1a\x8c\1b\x8c\1c\x8c\1d\x87}\x86.", -1),
    P("\x80\x05\x8c\1a\x86}\x86.", -1),
    P("\x80\x05\x8c\1a\x8c\1b\x85}\x86.", -1),
    P("\x80\x05\x8c\1a\x85}\x86", -1),
    P("\x80\x05\x8c\1a\x85}\x86.x", -1),
    P("\x80\x05K\1\x85}\x86.", -1),
    P("\x80\x05\x8c\1a\x94h\0\x86}\x86.", -1),
    P("\x80\x05\x8c\1a\x85}(\x8c\1kK\1u\x86.", -1),
    P("\x80\x05"
      "B\xff\xff\xff\xff"
      "a\x85}\x86.",
      -1),
    P("\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\xff\x85}\x86.", -1),
    P("\x8c", -1),
    P("\x95\1\2", -1),
    P("\x80", -1),
    P("\x85}\x86.", -1),
    P("", -1),
};

START_TEST(finds_arguments)
{
    const struct pickle_case *c = &cases[_i];
    char *exact = malloc(c->len + 1);
    struct rs_pickle_arg args[3];

    memcpy(exact, c->pickle, c->len);
    ck_assert_int_eq(rs_pickle_args(exact, c->len, args, 3), c->n);
    for (int i = 0; i < c->n; i++) {
        ck_assert_uint_eq(args[i].len, c->args[i] ? strlen(c->args[i]) : 0);
        ck_assert_int_eq(args[i].data != NULL, c->args[i] != NULL);
        if (c->args[i])
            ck_assert_mem_eq(args[i].data, c->args[i], args[i].len);
    }
    if (c->n > 0)
        ck_assert_int_eq(rs_pickle_args(exact, c->len, args, (size_t)c->n - 1), -1);
    free(exact);
}
END_TEST

static const struct pickle_case texts[] = {
    P("\x80\x05\x95\x07\0\0\0\0\0\0\0\x8c\3abc\x94.", 1, {"abc"}),
    P("\x80\x05\x95\x07\0\0\0\0\0\0\0C\3abc\x94.", 1, {"abc"}),
    P("\x80\x05\x8c\0\x94.", 1, {""}),
    P("\x80\x05X\4\0\0\0\xc3\xa4\xc3\xb6\x94.", 1, {"\xc3\xa4\xc3\xb6"}),
    P("\x80\x05\x8c\x0b"
      "eight bytes\x94.",
      1, {"eight bytes"}),
    P("\x80\x05"
      "B\2\0\0\0\xff\xfe\x94.",
      1, {"\xff\xfe"}),
    P("\x80\x05\x8c\3\xed\xa0\x80\x94.", -1), /* half of a surrogate pair */
    P("\x80\x05\x8c\x0b"
      "eight byte\xff\x94.",
      -1),
    P("\x80\x05\x8c\2\xc3\xa4", -1), /* no STOP */
    P("\x80\x05\x8c\1a\x94.x", -1),
    P("\x80\x05\x8c\1a\x85.", -1),
    P("\x80\x05\x8c\5abc\x94.", -1),
    P("\x80\x05N.", -1),
    P("\x80\x05K\1.", -1),
    P("\x80\x05\x96\1\0\0\0\0\0\0\0c\x94.", -1), /* a bytearray */
    P("", -1),
};

START_TEST(finds_text)
{
    const struct pickle_case *c = &texts[_i];
    char *exact = malloc(c->len + 1);
    struct rs_pickle_arg text = {0};

    memcpy(exact, c->pickle, c->len);
    ck_assert_int_eq(rs_pickle_text(exact, c->len, &text), c->n == 1 ? 0 : -1);
    if (c->n == 1) {
        ck_assert_uint_eq(text.len, strlen(c->args[0]));
        ck_assert_mem_eq(text.data, c->args[0], text.len);
    } else {
        ck_assert_ptr_null(text.data);
    }
    free(exact);
}
END_TEST

START_TEST(writes_bytes)
{
    struct rs_buf b = {0};

    rs_pickle_put_bytes(&b, "ab", 2);
    ck_assert_uint_eq(rs_buf_len(&b), 14);
    ck_assert_mem_eq(rs_buf_head(&b), "\x80\5\x8e\2\0\0\0\0\0\0\0ab.", 14);
    rs_buf_fini(&b);
}
END_TEST

RS_CHECK_MAIN("pickle", tcase_add_loop_test(tc, finds_arguments, 0, RS_COUNT(cases));
              tcase_add_loop_test(tc, finds_text, 0, RS_COUNT(texts));
              tcase_add_test(tc, writes_bytes);)
