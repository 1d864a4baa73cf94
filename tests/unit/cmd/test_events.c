/* What GET /api/v1/events answers, as lines of `rserve status --events`. */
#include "cmd/status-events.h"

#include "core/base/json.h"
#include "core/base/text.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define NOW 1763692300.0

static const char busy[] =
    "{\"events\": ["
    "{\"kind\": \"deploy\", \"last_s\": 1763688600, \"count\": 1, \"status\": \"APPLY\","
    " \"who\": \"curl/8.5\"},"
    "{\"kind\": \"node\", \"last_s\": 1763692000, \"count\": 1, \"node\": \"w2\","
    " \"status\": \"JOINED\", \"text\": \"w2\"},"
    "{\"kind\": \"replica\", \"last_s\": 1763692290, \"count\": 12, \"app\": \"x\","
    " \"deployment\": \"A\", \"replica\": \"abcd1234\", \"node\": \"w2\", \"before\": \"RUNNING\","
    " \"status\": \"STOPPED\", \"text\": \"its process was killed by SIGKILL (9)\","
    " \"who\": \"node w2\"},"
    "{\"kind\": \"scale\", \"last_s\": 1763692298, \"count\": 1, \"app\": \"x\","
    " \"deployment\": \"A\", \"status\": \"UP\", \"before\": \"2\", \"after\": \"4\","
    " \"who\": \"autoscaler\"},"
    "{\"kind\": \"build\", \"last_s\": 1763692299, \"count\": 1, \"app\": \"y\","
    " \"status\": \"FAILED\", \"text\": \"Deploying app 'y' failed with exception:\\n"
    "Traceback (most recent call last):\\n  File x\\nValueError: no such model\"},"
    "{\"kind\": \"deployment\", \"last_s\": 1763692299, \"count\": 1, \"app\": \"y\","
    " \"deployment\": \"a-deployment-with-a-very-long-name\", \"before\": \"HEALTHY\","
    " \"status\": \"UNHEALTHY\", \"cause\": \"HEALTH_CHECK_FAILED\"}"
    "], \"last\": 6, \"more\": false, \"lost\": true}";

static const char expected[] =
    "(older ones are not kept any more)\n"
    "LAST SEEN KIND       OBJECT                         MESSAGE\n"
    "61m       deploy     -                              APPLY, by curl/8.5\n"
    "5m        node       node w2                        JOINED\n"
    "10s x12   replica    x#A#abcd1234                   RUNNING -> STOPPED: its\n"
    "                                                    process was killed by\n"
    "                                                    SIGKILL (9) (node w2)\n"
    "2s        scale      x#A                            UP 2 -> 4, by autoscaler\n"
    "1s        build      y                              FAILED: Deploying app 'y'\n"
    "                                                    failed with exception: ..\n"
    "                                                    ValueError: no such model\n"
    "1s        deployment y#a-deployment-with-a-very-... HEALTHY -> UNHEALTHY\n"
    "                                                    (HEALTH_CHECK_FAILED)\n";

static void lines(const char *answer, size_t width, double now, struct rs_buf *out)
{
    rs_auto(rs_json_decrefp) json_t *j = json_loads(answer, 0, NULL);
    const struct rs_events_style style = {.width = width, .now = now, .titles = true};

    ck_assert_ptr_nonnull(j);
    rs_events_lines(j, &style, out);
}

START_TEST(a_busy_cluster)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    lines(busy, 80, NOW, &out);
    ck_assert_str_eq(rs_buf_text(&out), expected);
}
END_TEST

/* While one follows, lines do not grow old: they have the time of day. */
START_TEST(followed)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    setenv("TZ", "UTC", 1);
    tzset();
    lines(busy, 80, -1, &out);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), "\n01:30:00  deploy     -"));
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&out), "\nTIME      KIND"));
}
END_TEST

START_TEST(any_width)
{
    for (size_t width = 60; width < 200; width += 7) {
        rs_auto(rs_buf_fini) struct rs_buf out = {0};

        lines(busy, width, NOW, &out);
        for (const char *at = rs_buf_text(&out); *at; at += strcspn(at, "\n") + 1)
            ck_assert_msg(rs_text_width(at, strcspn(at, "\n")) <= width, "%zu: %.*s", width,
                          (int)strcspn(at, "\n"), at);
    }
}
END_TEST

START_TEST(odd_answers)
{
    static const char *const odd[] = {
        "{}",
        "[]",
        "{\"events\": {}}",
        "{\"events\": [1, null, {}, [], {\"text\": 3, \"count\": \"x\", \"last_s\": -1e300}]}",
        "{\"events\": [{\"kind\": \"\\u001b[2J\", \"text\": \"\\n\\n\\n\", \"last_s\": 1e300}]}",
        "{\"events\": [{\"text\": \"a\\u0000b\\u001b[31m\", \"app\": \"\\u001b\"}]}",
    };

    for (size_t i = 0; i < RS_COUNT(odd); i++)
        for (int follows = 0; follows < 2; follows++) {
            rs_auto(rs_buf_fini) struct rs_buf out = {0};
            rs_auto(rs_json_decrefp) json_t *j = json_loads(odd[i], JSON_ALLOW_NUL, NULL);
            const struct rs_events_style style = {
                .width = 80, .now = follows ? -1 : NOW, .titles = true};

            ck_assert_ptr_nonnull(j);
            rs_events_lines(j, &style, &out);
            ck_assert_ptr_null(strchr(rs_buf_text(&out), '\x1b'));
        }
}
END_TEST

static const struct {
    const char *text, *app, *deployment, *replica;
} subjects[] = {
    {NULL, NULL, NULL, NULL},
    {"", NULL, NULL, NULL},
    {"x", "x", NULL, NULL},
    {"x#A", "x", "A", NULL},
    {"x#A#r", "x", "A", "r"},
    {"x##r", "x", NULL, "r"},
    {"x#A#r#more", "x", "A", "r#more"},
    {"#A", NULL, "A", NULL},
    {"x#", "x", NULL, NULL},
};

static void same(const char *got, const char *want)
{
    ck_assert_int_eq(got == NULL, want == NULL);
    if (want)
        ck_assert_str_eq(got, want);
}

START_TEST(subject)
{
    rs_auto(rs_status_subject_fini) struct rs_status_subject s;

    rs_status_subject_parse(&s, subjects[_i].text);
    same(s.app, subjects[_i].app);
    same(s.deployment, subjects[_i].deployment);
    same(s.replica, subjects[_i].replica);
}
END_TEST

RS_CHECK_MAIN("events", tcase_add_test(tc, a_busy_cluster); tcase_add_test(tc, followed);
              tcase_add_test(tc, any_width); tcase_add_test(tc, odd_answers);
              tcase_add_loop_test(tc, subject, 0, RS_COUNT(subjects));)
