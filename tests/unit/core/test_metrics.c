#include "core/metrics/metrics.h"

#include "tests/unit/check_main.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const double buckets[] = {1, 2.5, 1000};

static char *text_of(struct rs_metrics *m)
{
    struct rs_buf out = {0};

    rs_metrics_text(m, &out);
    return rs_buf_steal(&out);
}

START_TEST(whole_text)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    struct rs_family *requests = rs_metrics_family(
        m, &(struct rs_family_conf){.name = "ray_requests_total",
                                    .help = "Requests, by \\ kind\nand more \"so\".",
                                    .kind = RS_COUNTER,
                                    .labels = {"app", "route"}});
    struct rs_family *up = rs_metrics_family(
        m, &(struct rs_family_conf){.name = "ray_up", .help = "Up.", .kind = RS_GAUGE});
    struct rs_family *latency =
        rs_metrics_family(m, &(struct rs_family_conf){.name = "ray_latency_ms",
                                                      .help = "Latency.",
                                                      .kind = RS_HISTOGRAM,
                                                      .labels = {"app"},
                                                      .buckets = buckets,
                                                      .n_buckets = 3});
    rs_auto(rs_freep) char *text = NULL;
    struct rs_series *s;

    rs_metrics_family(m, &(struct rs_family_conf){.name = "ray_unused", .kind = RS_GAUGE});
    rs_series_add(rs_family_series(requests, (const char *[]){"a", "/x"}), 2);
    rs_series_add(rs_family_series(requests, (const char *[]){"q\"b\\s\nn\xff", NULL}), 1);
    rs_series_add(rs_family_series(requests, (const char *[]){"a", "/x"}), 1.5);
    rs_series_set(rs_family_series(up, NULL), 3);
    rs_series_add(rs_family_series(up, NULL), -4.25);
    s = rs_family_series(latency, (const char *[]){"a"});
    rs_series_observe(s, 0.5);
    rs_series_observe(s, 1); /* a bound belongs to its bucket */
    rs_series_observe(s, 2);
    rs_series_observe(s, 4000);
    text = text_of(m);
    ck_assert_str_eq(text,
                     "# HELP ray_requests_total Requests, by \\\\ kind\\nand more \"so\".\n"
                     "# TYPE ray_requests_total counter\n"
                     "ray_requests_total{app=\"a\",route=\"/x\"} 3.5\n"
                     "ray_requests_total{app=\"q\\\"b\\\\s\\nn\xef\xbf\xbd\",route=\"\"} 1.0\n"
                     "# HELP ray_up Up.\n"
                     "# TYPE ray_up gauge\n"
                     "ray_up -1.25\n"
                     "# HELP ray_latency_ms Latency.\n"
                     "# TYPE ray_latency_ms histogram\n"
                     "ray_latency_ms_bucket{app=\"a\",le=\"1.0\"} 2\n"
                     "ray_latency_ms_bucket{app=\"a\",le=\"2.5\"} 3\n"
                     "ray_latency_ms_bucket{app=\"a\",le=\"1000.0\"} 3\n"
                     "ray_latency_ms_bucket{app=\"a\",le=\"+Inf\"} 4\n"
                     "ray_latency_ms_count{app=\"a\"} 4\n"
                     "ray_latency_ms_sum{app=\"a\"} 4003.5\n");
}
END_TEST

static const struct {
    double value;
    const char *text;
} numbers[] = {
    {0, "0.0"},
    {-2, "-2.0"},
    {0.1, "0.1"},
    {1e21, "1e+21"},
    {1.0 / 3, "0.3333333333333333"},
    {NAN, "NaN"},
    {INFINITY, "+Inf"},
    {-INFINITY, "-Inf"},
    {123456789, "123456789.0"},
    {1e-7, "1e-07"},
    {1732000000.125, "1732000000.125"},
};

START_TEST(number_forms)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    struct rs_family *f =
        rs_metrics_family(m, &(struct rs_family_conf){.name = "g", .kind = RS_GAUGE});
    rs_auto(rs_freep) char *text = NULL;
    char want[64];

    rs_series_set(rs_family_series(f, NULL), numbers[_i].value);
    text = text_of(m);
    snprintf(want, sizeof(want), "\ng %s\n", numbers[_i].text);
    ck_assert_msg(strstr(text, want), "%s", text);
}
END_TEST

START_TEST(same_name_same_family)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    const struct rs_family_conf conf = {.name = "c_total", .kind = RS_COUNTER, .labels = {"l"}};
    struct rs_family *f = rs_metrics_family(m, &conf);

    ck_assert_ptr_eq(rs_metrics_family(m, &conf), f);
    ck_assert_ptr_eq(rs_family_series(f, (const char *[]){"x"}),
                     rs_family_series(f, (const char *[]){"x"}));
    ck_assert_ptr_ne(rs_family_series(f, (const char *[]){"x"}),
                     rs_family_series(f, (const char *[]){"y"}));
    ck_assert_ptr_eq(rs_family_series(f, (const char *[]){""}),
                     rs_family_series(f, (const char *[]){NULL}));
}
END_TEST

/* Two values that would run together if they were merely joined. */
START_TEST(values_do_not_run_together)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    struct rs_family *f = rs_metrics_family(
        m, &(struct rs_family_conf){.name = "g", .kind = RS_GAUGE, .labels = {"a", "b"}});

    ck_assert_ptr_ne(rs_family_series(f, (const char *[]){"x\",b=\"y", ""}),
                     rs_family_series(f, (const char *[]){"x", "y\",b=\""}));
}
END_TEST

START_TEST(drop_by_label)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    struct rs_family *f = rs_metrics_family(
        m, &(struct rs_family_conf){.name = "g", .kind = RS_GAUGE, .labels = {"app", "replica"}});
    rs_auto(rs_freep) char *text = NULL, *empty = NULL;

    for (int i = 0; i < 50; i++) {
        char replica[16];

        snprintf(replica, sizeof(replica), "r%d", i % 25);
        rs_series_set(rs_family_series(f, (const char *[]){i < 25 ? "a" : "b", replica}), i);
    }
    rs_family_drop(f, "replica", "r7");
    rs_family_drop(f, "replica", "unknown");
    rs_family_drop(f, "unknown", "r8");
    rs_family_drop(f, "app", "b");
    text = text_of(m);
    ck_assert_ptr_null(strstr(text, "\"r7\""));
    ck_assert_ptr_null(strstr(text, "\"b\""));
    ck_assert_ptr_nonnull(strstr(text, "g{app=\"a\",replica=\"r8\"} 8.0\n"));
    /* a series that comes back begins at zero */
    ck_assert_ptr_nonnull(rs_family_series(f, (const char *[]){"a", "r7"}));
    rs_family_clear(f);
    empty = text_of(m);
    ck_assert_str_eq(empty, "");
}
END_TEST

enum { THREADS = 4, ROUNDS = 5000 };

static void *hammer(void *arg)
{
    struct rs_metrics *m = arg;
    struct rs_family *c = rs_metrics_family(
        m, &(struct rs_family_conf){.name = "c_total", .kind = RS_COUNTER, .labels = {"l"}});
    struct rs_family *h = rs_metrics_family(
        m, &(struct rs_family_conf){
               .name = "h", .kind = RS_HISTOGRAM, .buckets = buckets, .n_buckets = 3});
    struct rs_series *mine = rs_family_series(h, NULL);

    for (int i = 0; i < ROUNDS; i++) {
        rs_series_add(rs_family_series(c, (const char *[]){i % 2 ? "odd" : "even"}), 1);
        rs_series_observe(mine, i % 3);
        if (i % 1000 == 0)
            free(text_of(m));
    }
    return NULL;
}

START_TEST(threads_lose_nothing)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    rs_auto(rs_freep) char *text = NULL;
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, m), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    text = text_of(m);
    ck_assert_ptr_nonnull(strstr(text, "c_total{l=\"even\"} 10000.0\n"));
    ck_assert_ptr_nonnull(strstr(text, "c_total{l=\"odd\"} 10000.0\n"));
    /* per thread 1667 zeros, 1667 ones, 1666 twos */
    ck_assert_ptr_nonnull(strstr(text, "h_bucket{le=\"1.0\"} 13336\n"));
    ck_assert_ptr_nonnull(strstr(text, "h_bucket{le=\"+Inf\"} 20000\n"));
    ck_assert_ptr_nonnull(strstr(text, "h_count 20000\n"));
    ck_assert_ptr_nonnull(strstr(text, "h_sum 19996.0\n"));
}
END_TEST

RS_CHECK_MAIN("metrics", tcase_add_test(tc, whole_text);
              tcase_add_loop_test(tc, number_forms, 0, sizeof(numbers) / sizeof(numbers[0]));
              tcase_add_test(tc, same_name_same_family);
              tcase_add_test(tc, values_do_not_run_together); tcase_add_test(tc, drop_by_label);
              tcase_add_test(tc, threads_lose_nothing);)
