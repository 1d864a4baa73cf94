#include "core/base/json.h"

#include "tests/unit/check_main.h"

#include <string.h>

START_TEST(members_and_defaults)
{
    struct rs_error err = {0};
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    static const char text[] = "{\"s\": \"x\", \"i\": 3, \"f\": 1.5, \"b\": true, \"n\": null}";

    ck_assert_int_eq(rs_json_parse(&j, text, strlen(text), "test", &err), 0);
    ck_assert_str_eq(rs_json_str(j, "s", "d"), "x");
    ck_assert_str_eq(rs_json_str(j, "i", "d"), "d"); /* another type is as good as absent */
    ck_assert_int_eq(rs_json_int(j, "i", 0), 3);
    ck_assert_int_eq(rs_json_int(j, "f", 7), 7);
    ck_assert(rs_json_num(j, "i", 0) == 3.0);
    ck_assert(rs_json_num(j, "f", 0) == 1.5);
    ck_assert(rs_json_bool(j, "b", false));
    ck_assert(rs_json_bool(j, "n", true));
    ck_assert_str_eq(rs_json_str(NULL, "s", "d"), "d");
}
END_TEST

START_TEST(errors_tell_the_place)
{
    struct rs_error err = {0};
    json_t *j = NULL;
    static const char text[] = "{\n  \"a\": oops}";

    ck_assert_int_eq(rs_json_parse(&j, text, strlen(text), "body", &err), -1);
    ck_assert_ptr_null(j);
    ck_assert_int_eq(strncmp(err.msg, "body:2:", 7), 0);
}
END_TEST

START_TEST(dump_keeps_the_order)
{
    rs_auto(rs_json_decrefp) json_t *j = json_pack("{s:i, s:[i,i], s:n}", "z", 1, "a", 2, 3, "m");
    rs_auto(rs_freep) char *text = rs_json_dump(j);

    ck_assert_str_eq(text, "{\"z\":1,\"a\":[2,3],\"m\":null}");
}
END_TEST

static const struct {
    const char *in, *out; /* NULL: the same */
} documents[] = {
    {"{}", NULL},
    {"[]", NULL},
    {"[0.2,1.0,1e+300,-0.5,0.30000000000000004]", NULL},
    {"{\"a\":{\"b\":[[],{}]},\"t\":true,\"f\":false,\"n\":null}", NULL},
    {"\"\\u00e9 \\\"quoted\\\" \\n\"", "\"\\u00E9 \\\"quoted\\\" \\n\""},
    {"-9223372036854775808", NULL},
};

START_TEST(dump_reads_back)
{
    json_t *j = json_loads(documents[_i].in, JSON_DECODE_ANY, NULL), *again;
    rs_auto(rs_freep) char *text = rs_json_dump(j);

    ck_assert_str_eq(text, documents[_i].out ? documents[_i].out : documents[_i].in);
    again = json_loads(text, JSON_DECODE_ANY, NULL);
    ck_assert(json_equal(j, again));
    json_decref(j);
    json_decref(again);
}
END_TEST

RS_CHECK_MAIN("json", tcase_add_test(tc, members_and_defaults);
              tcase_add_test(tc, errors_tell_the_place); tcase_add_test(tc, dump_keeps_the_order);
              tcase_add_loop_test(tc, dump_reads_back, 0, RS_COUNT(documents));)
