/* What cron's five fields mean; and a search beside going through every minute. */
#include "core/base/cron.h"

#include "core/base/alloc.h"
#include "tests/unit/check_main.h"
#include "tests/unit/core/zone_file.h"

#include <stdio.h>

static const struct {
    const char *text;
    bool ok;
} texts[] = {
    {"* * * * *", true},
    {"*/15 8-18/2 1,15 JAN-MAR mon-fri", true},
    {"0 0 29 2 *", true},
    {"5/20 3 * * 7", true},
    {"\t0   8 * *\t1 ", true},
    {"@daily", true},
    {"@hourly", true},
    {"@weekly", true},
    {"@monthly", true},
    {"@yearly", true},
    {"0 0 30 2 MON", true}, /* a Monday is enough */
    {"@reboot", false},
    {"", false},
    {"* * * *", false},
    {"* * * * * *", false},
    {"60 * * * *", false},
    {"* 24 * * *", false},
    {"* * 0 * *", false},
    {"* * 32 * *", false},
    {"* * * 13 *", false},
    {"* * * * 8", false},
    {"* * * FOO *", false},
    {"*/0 * * * *", false},
    {"5-3 * * * *", false},
    {"1,,2 * * * *", false},
    {"1, * * * *", false},
    {"-1 * * * *", false},
    {"1- * * * *", false},
    {"1/ * * * *", false},
    {"9999999999 * * * *", false},
    {"0 0 30 2 *", false},
    {"0 0 31 4,6,9,11 *", false},
    {"0 0 * * MONDAY", false},
};

START_TEST(parse)
{
    struct rs_cron c;
    struct rs_error err = {0};

    ck_assert_msg((rs_cron_parse(&c, texts[_i].text, &err) == 0) == texts[_i].ok, "\"%s\": %s",
                  texts[_i].text, err.msg);
    ck_assert_int_eq(texts[_i].ok, err.msg[0] == '\0');
}
END_TEST

/* Central Europe, from its rule. */
static struct rs_zone *zone(const char *rule)
{
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    struct rs_zone *z = NULL;
    struct rs_error err = {0};
    int32_t offsets[] = {0};

    zone_file(&file, NULL, 0, offsets, 1, rule);
    ck_assert_int_eq(rs_zone_parse(&z, rs_buf_head(&file), rs_buf_len(&file), &err), 0);
    return z;
}
#define CET "CET-1CEST,M3.5.0,M10.5.0/3"

/* 2026-03-29 02:00 is not, 2026-10-25 02:00 to 03:00 comes twice. */
static const struct {
    const char *text;
    int64_t t, last, next;
} times[] = {
    {"0 0 1 1 *", 1774746000, 1767222000, 1798758000},
    {"0 0 29 2 *", 1774746000, 1709161200, 1835391600}, /* 2024 and 2028 */
    /* passed over: at the change */
    {"30 2 * * *", 1774746000 - 1, 1774661400, 1774746000},
    {"30 2 * * *", 1774746000, 1774746000, 1774830600},
    {"30 * * * *", 1774746000, 1774744200, 1774747800}, /* left out: 01:30, then 03:30 */
    /* twice: the first of the two */
    {"30 2 * * *", 1792888200, 1792888200, 1792978200},
    {"30 2 * * *", 1792888199, 1792801800, 1792888200},
    {"30 2 * * *", 1792892000, 1792888200, 1792978200},
    {"30 * * * *", 1792888200, 1792888200, 1792891800}, /* both */
    {"@hourly", 1792890000, 1792890000, 1792893600},
};

START_TEST(changes_of_the_clock)
{
    rs_auto(rs_zone_freep) struct rs_zone *z = zone(CET);
    struct rs_cron c;
    struct rs_error err = {0};
    int64_t last = 0, next = 0;

    ck_assert_int_eq(rs_cron_parse(&c, times[_i].text, &err), 0);
    ck_assert(rs_cron_last(&c, z, times[_i].t, &last) && rs_cron_next(&c, z, times[_i].t, &next));
    ck_assert_msg(last == times[_i].last && next == times[_i].next, "%s at %lld: %lld, %lld",
                  times[_i].text, (long long)times[_i].t, (long long)last, (long long)next);
}
END_TEST

/* --- beside going through every minute ----------------------------------------------------------- */

static uint64_t seed;

static unsigned draw(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((seed >> 33) % n);
}

static bool fits(const struct rs_cron *c, int64_t local)
{
    int64_t minute = local / 60, day = minute / 1440;
    struct rs_civil d = rs_civil_date(day);
    bool month_day = c->days >> d.day & 1, week_day = c->weekdays >> d.weekday & 1;

    return c->minutes >> minute % 60 & 1 && c->hours >> minute % 1440 / 60 & 1 &&
           c->months >> d.month & 1 &&
           (c->either_day ? month_day || week_day : month_day && week_day);
}

/* By the words of cron.h, minute by minute: is `t` one of its times? */
static bool is_time(const struct rs_cron *c, const struct rs_zone *z, int64_t t)
{
    bool every = c->hours == (1 << 24) - 1;
    int64_t before = t - 60 + rs_zone_offset(z, t - 60), local = t + rs_zone_offset(z, t);

    if (fits(c, local)) {
        bool again = false;

        /* only where the clock changed meanwhile */
        every |= rs_zone_offset(z, t - 86400) == rs_zone_offset(z, t);
        for (int64_t u = t - 86400; u < t && !every; u += 60)
            again |= u + rs_zone_offset(z, u) == local;
        if (!again)
            return true;
        every = c->hours == (1 << 24) - 1;
    }
    for (int64_t skipped = before + 60; skipped < local && !every; skipped += 60)
        if (fits(c, skipped))
            return true;
    return false;
}

static const char *const zones[] = {
    "UTC0",
    CET,
    "EST5EDT,M3.2.0,M11.1.0",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "AAA3BBB,M3.5.0/0:00,M10.5.0/0:30", /* back over midnight */
    "AAA-12BBB12,M3.5.0/0,M10.5.0/0",   /* a whole day is passed over, and comes twice */
};

static void random_cron(char *text, size_t size)
{
    static const char *const minutes[] = {"0", "*/20", "30", "15,45", "59", "*"};
    static const char *const hours[] = {"*", "2", "0-3", "*/6", "23", "1,2,3", "0"};
    static const char *const days[] = {"*", "*", "25-31", "29", "*/2"};
    static const char *const weekdays[] = {"*", "*", "SUN", "SAT-7", "*/3"};

    snprintf(text, size, "%s %s %s * %s", minutes[draw(RS_COUNT(minutes))],
             hours[draw(RS_COUNT(hours))], days[draw(RS_COUNT(days))],
             weekdays[draw(RS_COUNT(weekdays))]);
}

START_TEST(beside_every_minute)
{
    rs_auto(rs_zone_freep) struct rs_zone *z = zone(zones[_i]);

    seed = (uint64_t)_i;
    for (int i = 0; i < 30; i++) {
        /* Around the days on which clocks change. */
        int64_t from = (i % 2 ? 1774569600 : 1792713600) + draw(6) * 86400;
        int64_t to = from + 3 * 86400, last = -1;
        struct rs_cron c;
        struct rs_error err = {0};
        char text[60];

        random_cron(text, sizeof(text));
        ck_assert_int_eq(rs_cron_parse(&c, text, &err), 0);
        for (int64_t t = from; t < to; t += 60) {
            int64_t got = 0;

            if (!is_time(&c, z, t))
                continue;
            ck_assert(rs_cron_last(&c, z, t + 59, &got));
            ck_assert_msg(got == t, "%s in %s: the last before %lld is %lld", text, zones[_i],
                          (long long)t + 59, (long long)got);
            if (last >= 0) {
                ck_assert(rs_cron_next(&c, z, last, &got));
                ck_assert_msg(got == t, "%s in %s: after %lld comes %lld, not %lld", text,
                              zones[_i], (long long)last, (long long)got, (long long)t);
                ck_assert(rs_cron_last(&c, z, t - 1, &got));
                ck_assert_int_eq(got, last);
            }
            last = t;
        }
    }
}
END_TEST

RS_CHECK_MAIN("cron", tcase_add_loop_test(tc, parse, 0, RS_COUNT(texts));
              tcase_add_loop_test(tc, changes_of_the_clock, 0, RS_COUNT(times));
              tcase_add_loop_test(tc, beside_every_minute, 0, RS_COUNT(zones));)
