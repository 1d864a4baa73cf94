/* Lines of the access log, and what cannot get into them. */
#include "net/http/access_line.h"
#include "tests/unit/check_main.h"

#include "core/base/error.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct rs_access sample(void)
{
    return (struct rs_access){
        .wall = INT64_C(1795286462123456789),
        .took = 12345678,
        .client = "10.0.0.9:4711",
        .client_len = 13,
        .path = "/shop/x?token=secret",
        .path_len = 7,
        .method = "GET",
        .request_id = "id-1",
        .request_id_len = 4,
        .replica = "r1",
        .cause = "",
        .status = 200,
        .bytes = 1234567890123,
    };
}

static const char *route = "/shop", *app = "shop", *deployment = "Front";

static const char *line(bool json, struct rs_access *a)
{
    static struct rs_buf out, where;
    struct rs_access_form form = {.json = json, .node = "10.0.0.1"};

    rs_buf_clear(&out);
    rs_buf_clear(&where);
    rs_access_where(&where, &form, route, app, deployment);
    a->where = &where;
    rs_access_line(&out, &form, a);
    return rs_buf_text(&out);
}

START_TEST(as_ray_writes_it)
{
    struct rs_access a = sample();

    ck_assert_str_eq(
        line(false, &a),
        "INFO 2026-11-21 18:41:02,123 proxy 10.0.0.1 id-1 -- 10.0.0.9:4711 GET /shop/x "
        "200 12.3ms bytes=1234567890123 application=shop deployment=Front "
        "replica=r1\n");
    app = deployment = a.replica = "";
    a.cause = "no_route";
    a.status = 404;
    a.took = -5;
    ck_assert_ptr_nonnull(
        strstr(line(false, &a), " 404 0.0ms bytes=1234567890123 cause=no_route\n"));
}
END_TEST

START_TEST(an_object_per_line)
{
    struct rs_access a = sample();
    rs_auto(rs_json_decrefp) json_t *j = json_loads(line(true, &a), JSON_REJECT_DUPLICATES, NULL);

    ck_assert_ptr_nonnull(j);
    ck_assert_str_eq(rs_json_str(j, "asctime", ""), "2026-11-21 18:41:02,123");
    ck_assert_str_eq(rs_json_str(j, "levelname", ""), "INFO");
    ck_assert_str_eq(rs_json_str(j, "message", ""), "GET /shop/x 200 12.3ms");
    ck_assert_int_eq(rs_json_int(j, "timestamp_ns", 0), a.wall);
    ck_assert_str_eq(rs_json_str(j, "component_name", ""), "proxy");
    ck_assert_str_eq(rs_json_str(j, "component_id", ""), "10.0.0.1");
    ck_assert_str_eq(rs_json_str(j, "request_id", ""), "id-1");
    ck_assert_str_eq(rs_json_str(j, "client", ""), "10.0.0.9:4711");
    ck_assert_str_eq(rs_json_str(j, "method", ""), "GET");
    ck_assert_str_eq(rs_json_str(j, "path", ""), "/shop/x");
    ck_assert_int_eq(rs_json_int(j, "status", 0), 200);
    ck_assert_double_eq_tol(rs_json_num(j, "latency_ms", 0), 12.346, 1e-9);
    ck_assert_int_eq(rs_json_int(j, "bytes", 0), a.bytes);
    ck_assert_str_eq(rs_json_str(j, "route", ""), "/shop");
    ck_assert_str_eq(rs_json_str(j, "application", ""), "shop");
    ck_assert_str_eq(rs_json_str(j, "deployment", ""), "Front");
    ck_assert_str_eq(rs_json_str(j, "replica", ""), "r1");
    ck_assert_str_eq(rs_json_str(j, "cause", "-"), "");
}
END_TEST

static const struct {
    const char *given, *text, *json;
} odd[] = {
    {"plain-1_~", "plain-1_~", "plain-1_~"},
    {"a b", "a\\x20b", "a b"},
    {"a\nb\r\t", "a\\x0ab\\x0d\\x09", "a\\u000ab\\u000d\\u0009"},
    {"\033[2J", "\\x1b[2J", "\\u001b[2J"},
    {"q\"s\\", "q\"s\\\\", "q\\\"s\\\\"},
    {"\x7f", "\\x7f", "\\u007f"},
    {"caf\xc3\xa9", "caf\xc3\xa9", "caf\xc3\xa9"},
    {"\xc2\x9b", "\\xc2\\x9b", "\\u00c2\\u009b"}, /* a control character of two bytes */
    {"\xff\xc3", "\\xff\\xc3", "\\u00ff\\u00c3"},
    {"\xe2\x82", "\\xe2\\x82", "\\u00e2\\u0082"},                 /* cut off */
    {"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\u00ed\\u00a0\\u0080"}, /* half of a pair */
};

/* Eight bytes are looked at together: each byte at each place among them. */
START_TEST(every_byte_at_every_place)
{
    for (int c = 1; c < 256; c++) {
        bool plain = c > ' ' && c < 0x7f && c != '\\';

        for (size_t at = 0; at < 17; at++) {
            char text[18] = "abcdefghijklmnopq", want[60];
            struct rs_access a = sample();
            bool as_it_is;

            text[at] = (char)c;
            a.request_id = text;
            a.request_id_len = 17;
            if (plain)
                snprintf(want, sizeof(want), " %s -- ", text);
            else if (c == '\\')
                snprintf(want, sizeof(want), " %.*s\\\\%s -- ", (int)at, text, text + at + 1);
            else
                snprintf(want, sizeof(want), " %.*s\\x%02x%s -- ", (int)at, text, c, text + at + 1);
            if (!strstr(line(false, &a), want))
                ck_abort_msg("%d at %zu: %s", c, at, line(false, &a));
            snprintf(want, sizeof(want), "_id\": \"%s\"", text);
            as_it_is = strstr(line(true, &a), want) != NULL;
            if (as_it_is != (c == ' ' || (plain && c != '"')))
                ck_abort_msg("%d at %zu: %s", c, at, line(true, &a));
        }
    }
}
END_TEST

START_TEST(odd_bytes)
{
    struct rs_access a = sample();
    char want[200];

    a.request_id = odd[_i].given;
    a.request_id_len = strlen(odd[_i].given);
    snprintf(want, sizeof(want), " proxy 10.0.0.1 %s -- ", odd[_i].text);
    ck_assert_msg(strstr(line(false, &a), want) != NULL, "%s", line(false, &a));
    snprintf(want, sizeof(want), "\"request_id\": \"%s\", ", odd[_i].json);
    ck_assert_msg(strstr(line(true, &a), want) != NULL, "%s", line(true, &a));
    a.client = a.path = odd[_i].given;
    a.client_len = a.path_len = strlen(odd[_i].given);
    a.method = a.replica = a.cause = odd[_i].given;
    route = app = deployment = odd[_i].given;
    ck_assert_ptr_eq(strchr(line(false, &a), '\n') + 1, line(false, &a) + strlen(line(false, &a)));
    rs_auto(rs_json_decrefp) json_t *j = json_loads(line(true, &a), 0, NULL);

    ck_assert_msg(json_is_object(j), "%s", line(true, &a));
}
END_TEST

/* Whatever the bytes: one line, printable, and JSON that can be read. */
START_TEST(random_bytes)
{
    unsigned seed = 17;

    for (int i = 0; i < 20000; i++) {
        char text[65] = {0};
        struct rs_access a = sample();
        const char *got;

        for (size_t k = 0; k < sizeof(text) - 1; k++) {
            seed = seed * 1664525u + 1013904223u;
            text[k] = (char)(1 + (seed >> 16) % 255);
        }
        a.path = a.request_id = a.method = text;
        a.path_len = a.request_id_len = sizeof(text) - 1;
        got = line(i % 2, &a);
        for (const char *p = got; *p; p++) {
            if ((unsigned char)*p < ' ' && !(*p == '\n' && !p[1]))
                ck_abort_msg("%s", got);
        }
        if (i % 2) {
            rs_auto(rs_json_decrefp) json_t *j = json_loads(got, 0, NULL);

            if (!json_is_object(j))
                ck_abort_msg("%s", got);
        }
    }
}
END_TEST

static void in_utc(void)
{
    setenv("TZ", "UTC", 1);
    tzset();
}

RS_CHECK_MAIN("access_line", tcase_add_checked_fixture(tc, in_utc, NULL);
              tcase_add_test(tc, as_ray_writes_it); tcase_add_test(tc, an_object_per_line);
              tcase_add_loop_test(tc, odd_bytes, 0, RS_COUNT(odd));
              tcase_add_test(tc, every_byte_at_every_place); tcase_add_test(tc, random_bytes);)
