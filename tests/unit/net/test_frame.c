#include "net/wire/frame.h"

#include "tests/unit/check_main.h"

#include <string.h>

START_TEST(a_header_on_the_wire)
{
    static const uint8_t bytes[RS_FRAME_HEADER] = {
        1, 2, 3, 0, RS_MSG_RESPONSE, 3, 1, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0x10, 0x32, 0x54, 0,
        0, 0, 0, 0};
    struct rs_header h;
    struct rs_error err = {0};
    uint8_t out[RS_FRAME_HEADER];

    ck_assert_msg(rs_header_decode(bytes, &h, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(h.meta_len, 0x030201);
    ck_assert_uint_eq(h.type, RS_MSG_RESPONSE);
    ck_assert_uint_eq(h.flags, RS_FRAME_END | RS_FRAME_MEMFD);
    ck_assert_uint_eq(h.fds, 1);
    ck_assert_uint_eq(h.stream, UINT64_C(0x0102030405060708));
    ck_assert_uint_eq(h.body_len, 0x543210);
    rs_header_encode(&h, out);
    ck_assert_int_eq(memcmp(out, bytes, sizeof(out)), 0);
}
END_TEST

static const struct {
    struct rs_header h;
    const char *why; /* NULL: fine */
} headers[] = {
    {{.type = RS_MSG_PING}, NULL},
    {{.type = RS_MSG_HELLO, .meta_len = RS_FRAME_META_MAX}, NULL},
    {{.type = RS_MSG_HELLO, .meta_len = RS_FRAME_META_MAX + 1},
     "HELLO frame with 1048577 bytes of metadata, limit 1048576"},
    {{.type = RS_MSG_BODY, .body_len = RS_FRAME_BODY_MAX}, NULL},
    {{.type = RS_MSG_BODY, .body_len = RS_FRAME_BODY_MAX + 1},
     "BODY frame with 16777217 bytes of body, limit 16777216"},
    {{.type = RS_MSG_BODY, .flags = RS_FRAME_MEMFD, .fds = 1, .body_len = UINT64_C(1) << 40}, NULL},
    {{.type = RS_MSG_BODY, .flags = RS_FRAME_MEMFD, .fds = 1, .body_len = UINT64_MAX},
     "BODY frame with an impossible body length"},
    {{.type = RS_MSG_BODY, .flags = RS_FRAME_MEMFD}, "BODY frame with 0 descriptors"},
    {{.type = RS_MSG_FORK, .fds = RS_FRAME_FDS_MAX}, NULL},
    {{.type = RS_MSG_FORK, .fds = RS_FRAME_FDS_MAX + 1}, "FORK frame with 5 descriptors"},
    {{.type = 0}, "frame of unknown type 0"},
    {{.type = 255}, "frame of unknown type 255"},
    {{.type = RS_MSG_BODY, .flags = 4}, "BODY frame with unknown flags 0x4"},
};

START_TEST(limits_of_a_header)
{
    uint8_t bytes[RS_FRAME_HEADER];
    struct rs_error err = {0};
    struct rs_header h;
    int r;

    rs_header_encode(&headers[_i].h, bytes);
    r = rs_header_decode(bytes, &h, &err);
    ck_assert_int_eq(r, headers[_i].why ? -1 : 0);
    if (headers[_i].why)
        ck_assert_str_eq(err.msg, headers[_i].why);
}
END_TEST

START_TEST(fields_of_each_type)
{
    static const struct {
        enum rs_tag tag;
        uint64_t value;
        size_t width;
    } numbers[] = {{RS_TAG_KIND, 0xfe, 1},
                   {RS_TAG_STATUS, 0xfedc, 2},
                   {RS_TAG_CREDIT, 0xfedcba98, 4},
                   {RS_TAG_PARENT, UINT64_C(0xfedcba9876543210), 8}};
    struct rs_buf b = {0};
    struct rs_error err = {0};
    struct rs_fields f;
    char *text;

    for (size_t i = 0; i < RS_COUNT(numbers); i++)
        rs_field_put_uint(&b, numbers[i].tag, numbers[i].value);
    rs_field_put_str(&b, RS_TAG_APP, "application");
    rs_field_put_str(&b, RS_TAG_ROUTE, NULL); /* nothing */
    rs_field_put_str(&b, RS_TAG_METHOD, "");
    rs_field_put(&b, RS_TAG_HEADERS, "a\0b\0", 4);
    ck_assert_int_eq(rs_fields_parse(rs_buf_head(&b), rs_buf_len(&b), &f, &err), 0);
    for (size_t i = 0; i < RS_COUNT(numbers); i++) {
        ck_assert_uint_eq(f.at[numbers[i].tag].len, numbers[i].width);
        ck_assert_uint_eq(rs_fields_uint(&f, numbers[i].tag, 1), numbers[i].value);
    }
    ck_assert_uint_eq(rs_fields_uint(&f, RS_TAG_QUEUED, 42), 42);
    ck_assert(!rs_fields_has(&f, RS_TAG_ROUTE));
    ck_assert(rs_fields_has(&f, RS_TAG_METHOD));
    ck_assert_uint_eq(f.at[RS_TAG_HEADERS].len, 4);
    text = rs_fields_dup(&f, RS_TAG_APP);
    ck_assert_str_eq(text, "application");
    free(text);
    ck_assert_ptr_null(rs_fields_dup(&f, RS_TAG_ROUTE));
    rs_buf_fini(&b);
}
END_TEST

static const struct {
    const char *bytes;
    size_t len;
    const char *why; /* NULL: fine */
} metas[] = {
    {"", 0, NULL},
    {"\2\1\0\0\0x", 6, NULL},
    {"\377\1\0\0\0x", 6, NULL}, /* a tag of later versions */
    {"\377\1\0\0\0x\377\1\0\0\0x", 12, NULL},
    {"\2\1\0\0", 4, "metadata ends inside a field"},
    {"\2\1\0\0\0", 5, "field 2 of 1 bytes in 0 bytes of metadata"},
    {"\2\377\377\377\377x", 6, "field 2 of 4294967295 bytes in 1 bytes of metadata"},
    {"\2\0\0\0\0\2\0\0\0\0", 10, "field 2 twice"},
    {"\5\2\0\0\0xx", 7, "field 5 of 2 bytes, wanted 1"},
    {"\5\0\0\0\0", 5, "field 5 of 0 bytes, wanted 1"},
};

START_TEST(limits_of_fields)
{
    struct rs_error err = {0};
    struct rs_fields f;
    int r = rs_fields_parse(metas[_i].bytes, metas[_i].len, &f, &err);

    ck_assert_int_eq(r, metas[_i].why ? -1 : 0);
    if (metas[_i].why)
        ck_assert_str_eq(err.msg, metas[_i].why);
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(rs_msg_name(RS_MSG_REQUEST), "REQUEST");
    ck_assert_str_eq(rs_msg_name(RS_MSG_REPORT), "REPORT");
    ck_assert_str_eq(rs_msg_name(0), "?");
}
END_TEST

RS_CHECK_MAIN("frame", tcase_add_test(tc, a_header_on_the_wire);
              tcase_add_loop_test(tc, limits_of_a_header, 0, RS_COUNT(headers));
              tcase_add_test(tc, fields_of_each_type);
              tcase_add_loop_test(tc, limits_of_fields, 0, RS_COUNT(metas));
              tcase_add_test(tc, names);)
