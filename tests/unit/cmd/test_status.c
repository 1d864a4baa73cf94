/* Details of applications, as the REST API gives them, against what `rserve status` makes of them:
 * testdata/status/NAME.json -> NAME.txt (the table), NAME.yaml.
 */
#include "cmd/status.h"

#include "core/base/json.h"
#include "core/base/text.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

#define NOW 1763692300.0

static const char *const names[] = {"empty", "ill", "plain", "rag"};

static char *path_of(const char *name, const char *ext)
{
    const char *root = getenv("RSERVE_SOURCE");
    char *path = malloc(1000);

    snprintf(path, 1000, "%s/testdata/status/%s.%s", root ? root : ".", name, ext);
    return path;
}

static json_t *details_of(const char *name)
{
    rs_auto(rs_freep) char *path = path_of(name, "json");
    json_error_t why;
    json_t *details = json_load_file(path, 0, &why);

    ck_assert_msg(details, "%s: %s", path, why.text);
    return details;
}

static void compare(const char *name, const char *ext, const struct rs_buf *got)
{
    rs_auto(rs_freep) char *path = path_of(name, ext);
    rs_auto(rs_buf_fini) struct rs_buf want = {0};
    FILE *f = fopen(path, "r");
    size_t n;

    ck_assert_msg(f, "%s is missing; it would hold:\n%s", path, rs_buf_text(got));
    while ((n = fread(rs_buf_reserve(&want, 4096), 1, 4096, f)) > 0)
        rs_buf_commit(&want, n);
    fclose(f);
    ck_assert_msg(strcmp(rs_buf_text(&want), rs_buf_text(got)) == 0, "%s differs from:\n%s", path,
                  rs_buf_text(got));
}

static void table(const json_t *details, size_t width, bool color, struct rs_buf *out)
{
    struct rs_status_style style = {
        .address = "http://127.0.0.1:8265", .width = width, .color = color, .now = NOW};
    struct rs_error err = {0};

    ck_assert_msg(rs_status_table(details, &style, out, &err) == 0, "%s", err.msg);
}

START_TEST(tables)
{
    rs_auto(rs_json_decrefp) json_t *details = details_of(names[_i]);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    table(details, 80, false, &out);
    compare(names[_i], "txt", &out);
}
END_TEST

START_TEST(yaml)
{
    rs_auto(rs_json_decrefp) json_t *details = details_of(names[_i]);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_status_yaml(details, NULL, &out, &err), 0);
    compare(names[_i], "yaml", &out);
}
END_TEST

START_TEST(no_line_is_wider_than_the_terminal)
{
    static const size_t widths[] = {80, 100, 150};

    for (size_t i = 0; i < RS_COUNT(widths); i++) {
        rs_auto(rs_json_decrefp) json_t *details = details_of(names[_i]);
        rs_auto(rs_buf_fini) struct rs_buf out = {0};

        table(details, widths[i], false, &out);
        for (const char *at = rs_buf_text(&out); *at;) {
            size_t n = strcspn(at, "\n");

            ck_assert_msg(rs_text_width(at, n) <= widths[i], "%.*s", (int)n, at);
            ck_assert_ptr_null(memchr(at, '\x1b', n));
            at += n + 1;
        }
    }
}
END_TEST

START_TEST(colors)
{
    rs_auto(rs_json_decrefp) json_t *details = details_of("ill");
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    table(details, 80, true, &out);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), " \x1b[31mDEPLOY_FAILED\x1b[0m "));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), " \x1b[32mRUNNING      \x1b[0m "));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), " \x1b[33mUPDATING     \x1b[0m "));
}
END_TEST

START_TEST(one_application)
{
    rs_auto(rs_json_decrefp) json_t *details = details_of("plain");
    rs_auto(rs_buf_fini) struct rs_buf out = {0}, document = {0};
    struct rs_status_style style = {.address = "x", .app = "b", .width = 80, .now = NOW};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_status_table(details, &style, &out, &err), 0);
    ck_assert_ptr_null(strstr(rs_buf_text(&out), "/a"));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), "\nb "));
    ck_assert_int_eq(rs_status_yaml(details, "b", &document, &err), 0);
    ck_assert_str_eq(rs_buf_text(&document), "status: RUNNING\n"
                                             "message: ''\n"
                                             "last_deployed_time_s: 1763692000.1\n"
                                             "deployments: {}\n");
}
END_TEST

START_TEST(unknown_application)
{
    rs_auto(rs_json_decrefp) json_t *details = details_of("rag");
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    struct rs_status_style style = {.address = "x", .app = "absent", .width = 80, .now = NOW};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_status_table(details, &style, &out, &err), -1);
    ck_assert_str_eq(err.msg, "application \"absent\" does not exist");
    ck_assert_int_eq(rs_status_yaml(details, "rga", &out, &err), -1);
    ck_assert_str_eq(err.msg, "application \"rga\" does not exist; did you mean \"rag\"?");
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
    ck_assert_str_eq(rs_buf_text(&out), "");
}
END_TEST

/* Whatever answers: nothing of it makes this crash. */
static const char *const odd[] = {
    "{}",
    "[]",
    "{\"applications\": []}",
    "{\"applications\": {\"a\": null}}",
    ("{\"applications\": {\"a\": {\"status\": 1, \"deployments\": {\"d\": [], \"e\": "
     "{\"replicas\": "
     "{}}, \"f\": {\"replicas\": [null, {}, {\"pid\": -1, \"start_time_s\": 1e300}]}}}}}"),
};

START_TEST(odd_details)
{
    rs_auto(rs_json_decrefp) json_t *details = json_loads(odd[_i], 0, NULL);
    rs_auto(rs_buf_fini) struct rs_buf out = {0}, document = {0};

    ck_assert_ptr_nonnull(details);
    table(details, 80, true, &out);
    ck_assert_uint_gt(rs_buf_len(&out), 0);
    ck_assert_int_eq(rs_status_yaml(details, NULL, &document, NULL), 0);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&document), "target_capacity: null\n"));
}
END_TEST

RS_CHECK_MAIN("status", tcase_add_loop_test(tc, tables, 0, RS_COUNT(names));
              tcase_add_loop_test(tc, yaml, 0, RS_COUNT(names));
              tcase_add_loop_test(tc, no_line_is_wider_than_the_terminal, 0, RS_COUNT(names));
              tcase_add_test(tc, colors); tcase_add_test(tc, one_application);
              tcase_add_test(tc, unknown_application);
              tcase_add_loop_test(tc, odd_details, 0, RS_COUNT(odd));)
