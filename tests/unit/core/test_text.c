#include "core/base/text.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <string.h>

/* One character each, or the first of what is not UTF-8. */
static const struct {
    const char *text;
    int32_t c;
    size_t bytes, width;
} chars[] = {
    {"a", 'a', 1, 1},
    {"\xc3\xa9", 0xe9, 2, 1},
    {"\xe2\x82\xac", 0x20ac, 3, 1},
    {"\xe6\xbc\xa2", 0x6f22, 3, 2},
    {"\xf0\x9f\x98\x80", 0x1f600, 4, 2},
    {"\xcc\x81", 0x301, 2, 0},
    {"\x80", -1, 1, 1},
    {"\xc3", -1, 1, 1},
    {"\xc0\xaf", -1, 1, 2},
    {"\xe0\x80\xaf", -1, 1, 3},
    {"\xed\xa0\x80", -1, 1, 3},
    {"\xf4\x90\x80\x80", -1, 1, 4},
    {"\xf8\x88\x80\x80", -1, 1, 4},
    {"\xff", -1, 1, 1},
};

START_TEST(decodes)
{
    const char *at = chars[_i].text;
    size_t n = strlen(at);

    ck_assert_int_eq(rs_utf8_next(&at, at + n), chars[_i].c);
    ck_assert_uint_eq((size_t)(at - chars[_i].text), chars[_i].bytes);
    ck_assert_uint_eq(rs_text_width(chars[_i].text, n), chars[_i].width);
}
END_TEST

static const struct {
    const char *text;
    size_t width;
    const char *fit, *pad;
} fits[] = {
    {"", 3, "", "   "},
    {"abc", 3, "abc", "abc"},
    {"abcd", 3, "...", "..."},
    {"abcde", 4, "a...", "a..."},
    {"abcde", 2, "..", ".."},
    {"abcde", 0, "", ""},
    {"abcde", 7, "abcde", "abcde  "},
    {"\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2", 5, "\xe6\xbc\xa2...", "\xe6\xbc\xa2..."},
    {"\xe6\xbc\xa2\xe6\xbc\xa2", 4, "\xe6\xbc\xa2\xe6\xbc\xa2", "\xe6\xbc\xa2\xe6\xbc\xa2"},
    {"x\x1b[31mred", 10, "x [31mred", "x [31mred "},
    {"a\tb\xc2\x9bz", 9, "a b z", "a b z    "},
    {"\xe2\x80\xaex", 9, " x", " x       "},
    {"bad\xff!", 9, "bad\xef\xbf\xbd!", "bad\xef\xbf\xbd!    "},
};

START_TEST(fits_into_columns)
{
    struct rs_buf out = {0};

    rs_text_fit(&out, fits[_i].text, fits[_i].width);
    ck_assert_str_eq(rs_buf_text(&out), fits[_i].fit);
    rs_buf_clear(&out);
    rs_text_pad(&out, fits[_i].text, fits[_i].width);
    ck_assert_str_eq(rs_buf_text(&out), fits[_i].pad);
    rs_buf_fini(&out);
}
END_TEST

static const struct {
    const char *text;
    size_t indent, width;
    const char *want;
} wraps[] = {
    {"", 2, 20, ""},
    {"one two three", 0, 80, "one two three\n"},
    {"one two three", 2, 12, "  one two\n  three\n"},
    {"one two\n  three\n\nfour\n", 1, 40, " one two\n   three\n\n four\n"},
    {"abcdefghijklmnop", 0, 10, "abcdefghij\nklmnop\n"},
    {"ab abcdefghijklmnop", 0, 10, "ab\nabcdefghij\nklmnop\n"},
    {"  deep abcdefghijkl", 0, 12, "  deep\nabcdefghijkl\n"},
    {"a   \n   \nb ", 2, 20, "  a\n\n  b\n"},
    {"never less than eight", 40, 20,
     "                                        never\n"
     "                                        less\n"
     "                                        than\n"
     "                                        eight\n"},
};

START_TEST(wraps_words)
{
    struct rs_buf out = {0};

    rs_text_wrap(&out, wraps[_i].text, wraps[_i].indent, wraps[_i].width);
    ck_assert_str_eq(rs_buf_text(&out), wraps[_i].want);
    rs_buf_fini(&out);
}
END_TEST

RS_CHECK_MAIN("text", tcase_add_loop_test(tc, decodes, 0, RS_COUNT(chars));
              tcase_add_loop_test(tc, fits_into_columns, 0, RS_COUNT(fits));
              tcase_add_loop_test(tc, wraps_words, 0, RS_COUNT(wraps));)
