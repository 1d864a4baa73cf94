/* Labels of nodes, and what selects them. */
#include "core/resource/labels.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <string.h>

static const struct {
    const char *text, *want; /* want NULL: refused */
} texts[] = {
    {"", "{}"},
    {"region=eu", "{\"region\":\"eu\"}"},
    {"a=1,ray.io/b-c=x_y,empty=", "{\"a\":\"1\",\"empty\":\"\",\"ray.io/b-c\":\"x_y\"}"},
    {"a=1,a=2", "{\"a\":\"2\"}"},
    {"region", NULL},
    {"=eu", NULL},
    {"a=b c", NULL},
    {"-a=b", NULL},
    {"a=b-", NULL},
    {"a=b,,c=d", NULL},
};

START_TEST(parsing)
{
    rs_auto(rs_json_decrefp) json_t *labels = NULL;
    struct rs_error err = {0};
    int r = rs_labels_parse(&labels, texts[_i].text, &err);

    ck_assert_int_eq(r == 0, texts[_i].want != NULL);
    ck_assert_int_eq(r == 0, err.msg[0] == '\0');
    if (r == 0) {
        rs_auto(rs_freep) char *got = json_dumps(labels, JSON_COMPACT | JSON_SORT_KEYS);

        ck_assert_str_eq(got, texts[_i].want);
    }
}
END_TEST

static const struct {
    const char *selector;
    bool match; /* with {"region": "eu", "disk": "ssd"} */
} selectors[] = {
    {"{}", true},
    {"{\"region\": \"eu\"}", true},
    {"{\"region\": \"us\"}", false},
    {"{\"region\": \"!us\"}", true},
    {"{\"region\": \"!eu\"}", false},
    {"{\"zone\": \"a\"}", false},
    {"{\"zone\": \"!a\"}", true},
    {"{\"region\": \"in(us, eu)\"}", true},
    {"{\"region\": \"in(us,e)\"}", false},
    {"{\"region\": \"in()\"}", false},
    {"{\"region\": \"in(eu\"}", true},
    {"{\"region\": \"!in(us,eu)\"}", false},
    {"{\"zone\": \"!in(a)\"}", true},
    {"{\"region\": \"eu\", \"disk\": \"hdd\"}", false},
    {"{\"region\": 3}", false},
};

START_TEST(matching)
{
    rs_auto(rs_json_decrefp) json_t *labels =
        json_pack("{s:s, s:s}", "region", "eu", "disk", "ssd");
    rs_auto(rs_json_decrefp) json_t *selector = json_loads(selectors[_i].selector, 0, NULL);

    ck_assert_msg(rs_labels_match(labels, selector) == selectors[_i].match, "%s",
                  selectors[_i].selector);
    ck_assert(rs_labels_match(labels, NULL));
}
END_TEST

RS_CHECK_MAIN("labels", tcase_add_loop_test(tc, parsing, 0, RS_COUNT(texts));
              tcase_add_loop_test(tc, matching, 0, RS_COUNT(selectors));)
