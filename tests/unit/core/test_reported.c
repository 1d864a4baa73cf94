#include "core/metrics/metrics.h"
#include "core/metrics/reported.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static char *text_of(struct rs_metrics *m)
{
    struct rs_buf out = {0};

    rs_metrics_text(m, &out);
    return rs_buf_steal(&out);
}

static int report(struct rs_metrics *m, const char *source, const char *text, struct rs_error *why)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err;

    ck_assert_int_eq(rs_json_parse(&j, text, strlen(text), "test", &err), 0);
    return rs_metrics_report(m, source, j, why);
}

static const char one[] =
    "[{\"name\": \"calls\", \"kind\": \"counter\", \"help\": \"how\\nmany\", \"samples\": ["
    "  {\"labels\": {\"replica\": \"r1\", \"kind\": \"a \\\"b\\\"\"}, \"value\": 2.5}]},"
    " {\"name\": \"size\", \"kind\": \"histogram\", \"boundaries\": [1.0, 10.0], \"samples\": ["
    "  {\"labels\": {\"replica\": \"r1\"}, \"buckets\": [1, 2, 3], \"sum\": 61.5}]}]";

static const char two[] =
    "[{\"name\": \"calls\", \"kind\": \"counter\", \"help\": \"other\", \"samples\": ["
    "  {\"labels\": {\"replica\": \"r2\"}, \"value\": 1}]},"
    " {\"name\": \"level\", \"kind\": \"gauge\", \"samples\": ["
    "  {\"labels\": {\"9 odd-name\": \"x\", \"odd\": \"y\", \"9-odd-name\": \"z\"},"
    "   \"value\": \"NaN\"}]}]";

START_TEST(whole_text)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    rs_auto(rs_freep) char *text = NULL, *later = NULL, *empty = NULL;
    struct rs_error why = {0};

    ck_assert_int_eq(report(m, "r1", one, &why), 0);
    ck_assert_int_eq(report(m, "r2", two, &why), 0);
    text = text_of(m);
    ck_assert_str_eq(text, "# HELP ray_calls_total how\\nmany\n"
                           "# TYPE ray_calls_total counter\n"
                           "ray_calls_total{replica=\"r1\",kind=\"a \\\"b\\\"\"} 2.5\n"
                           "ray_calls_total{replica=\"r2\"} 1.0\n"
                           "# HELP ray_size \n"
                           "# TYPE ray_size histogram\n"
                           "ray_size_bucket{replica=\"r1\",le=\"1.0\"} 1\n"
                           "ray_size_bucket{replica=\"r1\",le=\"10.0\"} 3\n"
                           "ray_size_bucket{replica=\"r1\",le=\"+Inf\"} 6\n"
                           "ray_size_count{replica=\"r1\"} 6\n"
                           "ray_size_sum{replica=\"r1\"} 61.5\n"
                           "# HELP ray_level \n"
                           "# TYPE ray_level gauge\n"
                           "ray_level{_9_odd_name=\"x\",odd=\"y\",WorkerId=\"r2\"} NaN\n");
    /* what a source tells replaces what it told; what is gone is gone */
    ck_assert_int_eq(report(m, "r2", "[]", &why), 0);
    rs_metrics_unreport(m, "r1");
    rs_metrics_unreport(m, "r1");
    later = text_of(m);
    ck_assert_str_eq(later, "");
    ck_assert_int_eq(report(m, "r1", one, &why), 0);
    rs_metrics_unreport(m, "r2");
    rs_metrics_unreport(m, "r1");
    empty = text_of(m);
    ck_assert_str_eq(empty, "");
}
END_TEST

static const struct {
    const char *metric; /* beside a good one */
    const char *why;
} bad[] = {
    {"{\"name\": \"a b\", \"kind\": \"gauge\"}", "metric 0 has no name or kind"},
    {"{\"name\": \"a\", \"kind\": \"summary\"}", "metric 0 has no name or kind"},
    {"{\"kind\": \"gauge\"}", "metric 0 has no name or kind"},
    {"7", "metric 0 has no name or kind"},
    {"{\"name\": \"own\", \"kind\": \"gauge\"}", "ray_own is a figure of rserve's own"},
    {"{\"name\": \"a_total\", \"kind\": \"gauge\"}", "ray_a_total is a gauge here and a counter"},
    {"{\"name\": \"x\", \"kind\": \"gauge\", \"samples\": [{\"value\": \"much\"}]}",
     "a series of ray_x holds no number"},
    {"{\"name\": \"x\", \"kind\": \"gauge\", \"samples\": [7]}", "a series of ray_x holds no"},
    {"{\"name\": \"x\", \"kind\": \"histogram\", \"boundaries\": [1], \"samples\": [{\"sum\": 1, "
     "\"buckets\": [1]}]}",
     "a series of ray_x holds no number"},
    {"{\"name\": \"x\", \"kind\": \"histogram\", \"boundaries\": [\"y\"], \"samples\": [{\"sum\": "
     "1, \"buckets\": [1, 2]}]}",
     "a series of ray_x holds no number"},
};

START_TEST(what_is_bad_is_left_out_and_told_once)
{
    static const char good[] =
        "{\"name\": \"a\", \"kind\": \"counter\", \"samples\": [{\"value\": 1}]}";
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    rs_auto(rs_freep) char *text = NULL;
    rs_auto(rs_freep) char *both = rs_asprintf("[%s, %s]", bad[_i].metric, good);
    rs_auto(rs_freep) char *alone = rs_asprintf("[%s]", good);
    struct rs_error why = {0};

    rs_metrics_family(m, &(struct rs_family_conf){.name = "ray_own", .kind = RS_GAUGE});
    ck_assert_int_eq(report(m, "first", alone, &why), 0);
    ck_assert_int_eq(report(m, "s", both, &why), RS_REPORTED_LEFT_OUT);
    ck_assert_msg(strstr(why.msg, bad[_i].why) == why.msg, "%s", why.msg);
    ck_assert_int_eq(report(m, "s", both, &why), 0);
    text = text_of(m);
    ck_assert_str_eq(text, "# HELP ray_a_total \n"
                           "# TYPE ray_a_total counter\n"
                           "ray_a_total{WorkerId=\"first\"} 1.0\n"
                           "ray_a_total{WorkerId=\"s\"} 1.0\n");
}
END_TEST

START_TEST(there_is_a_limit)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    rs_auto(rs_json_decrefp) json_t *samples = json_array();
    rs_auto(rs_json_decrefp) json_t *metrics = NULL;
    rs_auto(rs_freep) char *text = NULL;
    struct rs_error why = {0};
    size_t lines = 0;

    for (int i = 0; i < RS_REPORTED_MAX / 2 + 1; i++)
        json_array_append_new(samples, json_pack("{s:{s:i}, s:i}", "labels", "n", i, "value", i));
    metrics = json_pack("[{s:s, s:s, s:O}]", "name", "n", "kind", "gauge", "samples", samples);
    ck_assert_int_eq(rs_metrics_report(m, "a", metrics, &why), 0);
    ck_assert_int_eq(rs_metrics_report(m, "b", metrics, &why), RS_REPORTED_LEFT_OUT);
    ck_assert_msg(strstr(why.msg, "2 of 25001 series of ray_n were left out"), "%s", why.msg);
    text = text_of(m);
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        lines++;
    ck_assert_uint_eq(lines, RS_REPORTED_MAX + 2);
    /* there is room again */
    rs_metrics_unreport(m, "a");
    ck_assert_int_eq(rs_metrics_report(m, "c", metrics, &why), 0);
}
END_TEST

/* A histogram says its labels in each of its lines. */
START_TEST(labels_have_a_limit)
{
    enum { LONG = 500000, LINES = 40000 };
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    rs_auto(rs_json_decrefp) json_t *boundaries = json_array(), *buckets = json_array();
    rs_auto(rs_json_decrefp) json_t *metrics = NULL;
    rs_auto(rs_freep) char *label = rs_alloc(LONG + 1), *text = NULL;
    struct rs_error why = {0};

    memset(label, 'x', LONG);
    for (int i = 0; i < LINES; i++) {
        json_array_append_new(boundaries, json_integer(i));
        json_array_append_new(buckets, json_integer(1));
    }
    json_array_append_new(buckets, json_integer(1));
    metrics = json_pack("[{s:s, s:s, s:O, s:[{s:{s:s}, s:O, s:i}]}]", "name", "h", "kind",
                        "histogram", "boundaries", boundaries, "samples", "labels", "l", label,
                        "buckets", buckets, "sum", 1);
    ck_assert_int_eq(rs_metrics_report(m, "a", metrics, &why), RS_REPORTED_LEFT_OUT);
    ck_assert_str_eq(why.msg, "a series of ray_h has labels that are too long");
    text = text_of(m);
    ck_assert_str_eq(text, "");
}
END_TEST

RS_CHECK_MAIN("reported", tcase_add_test(tc, whole_text);
              tcase_add_loop_test(tc, what_is_bad_is_left_out_and_told_once, 0,
                                  sizeof(bad) / sizeof(bad[0]));
              tcase_add_test(tc, there_is_a_limit); tcase_add_test(tc, labels_have_a_limit);)
