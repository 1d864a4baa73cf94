/* Time zones beside libc, which knows one at a time; and files that are none. */
#include "core/base/zone.h"

#include "core/base/alloc.h"
#include "tests/unit/check_main.h"
#include "tests/unit/core/zone_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed;

static uint64_t draw(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seed >> 20;
}

static const char *const rules[] = {
    "UTC0",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "<+0330>-3:30",
    "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",      /* Nuuk */
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", /* Lord Howe: half an hour, summer over new year */
    "IST-1GMT0,M10.5.0,M3.5.0/1",           /* Dublin: "summer" is behind */
    "EET-2EEST,M3.4.4/50,M10.4.4/50",       /* Gaza of once: on Saturdays, at 50 o'clock */
    "AAA3BBB,J60,J300/4",
    "AAA3BBB2:59:59,59/1:02:03,300",
};

static void beside_libc(const struct rs_zone *z, const char *tz)
{
    setenv("TZ", tz, 1);
    tzset();
    for (int i = 0; i < 3000; i++) {
        /* from 1970 to 2300 */
        time_t t = (time_t)(draw() % (UINT64_C(330) * 366 * 86400));
        struct tm tm;

        ck_assert_ptr_nonnull(localtime_r(&t, &tm));
        ck_assert_msg(rs_zone_offset(z, t) == tm.tm_gmtoff, "%s at %lld: %d, not %ld", tz,
                      (long long)t, rs_zone_offset(z, t), tm.tm_gmtoff);
    }
}

START_TEST(rule)
{
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
    struct rs_error err = {0};
    int32_t offsets[] = {0};

    seed = (uint64_t)_i + 1;
    zone_file(&file, NULL, 0, offsets, 1, rules[_i]);
    ck_assert_msg(rs_zone_parse(&z, rs_buf_head(&file), rs_buf_len(&file), &err) == 0, "%s: %s",
                  rules[_i], err.msg);
    beside_libc(z, rules[_i]);
}
END_TEST

static const char *const no_rules[] = {
    "C",
    "CET",
    "CET-",
    "CET-25",
    "CET-1CEST",
    "CET-1CEST,",
    "CET-1CEST,M3.5.0",
    "CET-1CEST,M13.5.0,M10.5.0",
    "CET-1CEST,M3.6.0,M10.5.0",
    "CET-1CEST,M3.5.7,M10.5.0",
    "CET-1CEST,J0,J1",
    "CET-1CEST,366,1",
    "CET-1CEST,M3.5.0/168,M10.5.0",
    "CET-1CEST,M3.5.0,M10.5.0x",
    "<CET-1",
    "<+0 0>1",
    "CET-1:60",
    "CET-1CEST,M3.5.0/,M1.1.1",
    "99999999999999999999",
};

START_TEST(no_rule)
{
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    struct rs_zone *z = NULL;
    struct rs_error err = {0};
    int32_t offsets[] = {0};

    zone_file(&file, NULL, 0, offsets, 1, no_rules[_i]);
    ck_assert_msg(rs_zone_parse(&z, rs_buf_head(&file), rs_buf_len(&file), &err) < 0, "%s",
                  no_rules[_i]);
    ck_assert_ptr_null(z);
    ck_assert_ptr_nonnull(strstr(err.msg, "expected a rule as in TZ"));
}
END_TEST

/* A table with a rule behind it: 100 s east, from t=1000 on an hour, from t=100000 on as the rule says. */
static struct rs_zone *with_table(void)
{
    static const struct zone_change changes[] = {{1000, 1}, {5000, 1}, {100000, 2}};
    static const int32_t offsets[] = {100, 3600, 3600};
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    struct rs_zone *z = NULL;
    struct rs_error err = {0};

    zone_file(&file, changes, 3, offsets, 3, "CET-1CEST,M3.5.0,M10.5.0/3");
    ck_assert_int_eq(rs_zone_parse(&z, rs_buf_head(&file), rs_buf_len(&file), &err), 0);
    return z;
}

static const struct {
    int64_t local;
    unsigned n;
    int64_t at[2];
} locals[] = {
    {500, 1, {400}},
    {1099, 1, {999}},
    {1100, 0, {1000}}, /* 1100 to 4599 are passed over */
    {4599, 0, {1000}},
    {4600, 1, {1000}},
    {8600, 1, {5000}},
    {1774749600 - 1, 1, {1774749600 - 3601}}, /* 2026-03-29 01:59:59 */
    {1774749600, 0, {1774746000}},            /* 02:00: the clock shows 03:00 */
    {1774749600 + 3599, 0, {1774746000}},
    {1774749600 + 3600, 1, {1774746000}},
    {1792893600, 2, {1792886400, 1792890000}}, /* 2026-10-25 02:00, twice */
    {1792893600 + 3599, 2, {1792889999, 1792893599}},
    {1792893600 + 3600, 1, {1792893600}},
};

START_TEST(instants)
{
    rs_auto(rs_zone_freep) struct rs_zone *z = with_table();
    int64_t at[2] = {0, 0};

    ck_assert_uint_eq(rs_zone_instants(z, locals[_i].local, at), locals[_i].n);
    ck_assert_int_eq(at[0], locals[_i].at[0]);
    ck_assert_int_eq(at[1], locals[_i].at[1]);
}
END_TEST

/* Of any local time the instants are those at which clocks show it, and no others. */
START_TEST(instants_are_all)
{
    for (size_t k = 0; k < RS_COUNT(rules); k++) {
        rs_auto(rs_buf_fini) struct rs_buf file = {0};
        rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
        struct rs_error err = {0};
        int32_t offsets[] = {0};

        seed = k;
        zone_file(&file, NULL, 0, offsets, 1, rules[k]);
        ck_assert_int_eq(rs_zone_parse(&z, rs_buf_head(&file), rs_buf_len(&file), &err), 0);
        for (int i = 0; i < 20000; i++) {
            int64_t t = (int64_t)(draw() % (UINT64_C(60) * 366 * 86400)), at[2];
            int64_t local = t + rs_zone_offset(z, t);
            unsigned n = rs_zone_instants(z, local, at);

            ck_assert_uint_ge(n, 1);
            ck_assert(at[0] == t || (n == 2 && at[1] == t));
            for (unsigned m = 0; m < n; m++)
                ck_assert_int_eq(at[m] + rs_zone_offset(z, at[m]), local);
        }
    }
}
END_TEST

/* Every way to cut it off, and every byte turned around, is refused or harmless. */
START_TEST(damaged)
{
    static const struct zone_change changes[] = {{1000, 1}, {100000, 2}};
    static const int32_t offsets[] = {100, 3600, 7200};
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    size_t len;

    zone_file(&file, changes, 2, offsets, 3, "CET-1CEST,M3.5.0,M10.5.0/3");
    len = rs_buf_len(&file);
    for (size_t i = 0; i < len; i++) {
        rs_auto(rs_freep) char *part = rs_memdup(rs_buf_head(&file), i + 1);
        rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
        struct rs_error err = {0};

        ck_assert_int_eq(rs_zone_parse(&z, part, i, &err), -1);
        ck_assert(err.msg[0]);
    }
    for (size_t i = 0; i < 8 * len; i++) {
        rs_auto(rs_freep) char *other = rs_memdup(rs_buf_head(&file), len);
        rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
        struct rs_error err = {0};
        int64_t at[2];

        other[i / 8] = (char)(other[i / 8] ^ 1 << i % 8);
        if (rs_zone_parse(&z, other, len, &err) == 0)
            for (int64_t t = -1000000; t < 4000000000; t += 123456789)
                (void)rs_zone_instants(z, t, at);
    }
}
END_TEST

START_TEST(by_name)
{
    static const char *const bad[] = {
        "", "/etc/passwd", "../../etc/passwd", "Europe/", "a b", "Nowhere/City", "Europe"};
    char dir[] = "/tmp/rserve-zone-XXXXXX", path[100];
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    rs_auto(rs_zone_freep) struct rs_zone *utc = NULL, *mine = NULL;
    struct rs_error err = {0};
    int32_t offsets[] = {0};
    FILE *f;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("TZDIR", dir, 1);
    ck_assert_int_eq(rs_zone_load(&utc, "UTC", &err), 0);
    ck_assert_int_eq(rs_zone_offset(utc, 1774746000), 0);
    for (size_t i = 0; i < RS_COUNT(bad); i++) {
        struct rs_zone *z = NULL;

        ck_assert_msg(rs_zone_load(&z, bad[i], &err) == -1, "%s", bad[i]);
        ck_assert_ptr_nonnull(strstr(err.msg, "time zone"));
    }
    snprintf(path, sizeof(path), "%s/Mine", dir);
    zone_file(&file, NULL, 0, offsets, 1, "AAA-5");
    f = fopen(path, "w");
    ck_assert_uint_eq(fwrite(rs_buf_head(&file), 1, rs_buf_len(&file), f), rs_buf_len(&file));
    fclose(f);
    ck_assert_int_eq(rs_zone_load(&mine, "Mine", &err), 0);
    ck_assert_int_eq(rs_zone_offset(mine, 0), 5 * 3600);
    ck_assert_int_eq(truncate(path, 20), 0);
    ck_assert_int_eq(rs_zone_load(&utc, "Mine", &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "it is none"));
    unlink(path);
    rmdir(dir);
    unsetenv("TZDIR");
}
END_TEST

/* Those of this machine, where it has some. */
/* As RFC 8536 says it; libc errs in the last hours of a year. */
START_TEST(always_summer)
{
    rs_auto(rs_buf_fini) struct rs_buf file = {0};
    rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
    struct rs_error err = {0};
    int32_t offsets[] = {0};

    zone_file(&file, NULL, 0, offsets, 1, "AAA-12BBB-13,0/0,J365/25");
    ck_assert_int_eq(rs_zone_parse(&z, rs_buf_head(&file), rs_buf_len(&file), &err), 0);
    for (int64_t t = 0; t < INT64_C(10000000000); t += 997 * 60)
        ck_assert_int_eq(rs_zone_offset(z, t), 13 * 3600);
}
END_TEST

START_TEST(of_the_system)
{
    static const char *const names[] = {
        "Europe/Berlin",       "America/New_York", "Asia/Kolkata",
        "Australia/Lord_Howe", "Pacific/Apia",     "Africa/Casablanca",
        "America/Sao_Paulo",   "Asia/Tokyo",       "Antarctica/Troll"};
    struct rs_error err = {0};

    for (size_t i = 0; i < RS_COUNT(names); i++) {
        rs_auto(rs_zone_freep) struct rs_zone *z = NULL;

        seed = i;
        if (rs_zone_load(&z, names[i], &err) == 0)
            beside_libc(z, names[i]);
        else
            ck_assert_int_eq(err.code, RS_NOT_FOUND);
    }
}
END_TEST

START_TEST(dates)
{
    for (int64_t day = -1000000; day < 1000000; day += 997) {
        struct rs_civil d = rs_civil_date(day);

        ck_assert_int_eq(rs_civil_days(d.year, d.month, d.day), day);
        ck_assert_uint_eq((d.weekday + 1) % 7, rs_civil_date(day + 1).weekday);
    }
    ck_assert_int_eq(rs_civil_days(1970, 1, 1), 0);
    ck_assert_int_eq(rs_civil_days(2026, 3, 29), 20541);
    ck_assert_uint_eq(rs_civil_date(20541).weekday, 0);
}
END_TEST

RS_CHECK_MAIN("zone", tcase_add_loop_test(tc, rule, 0, RS_COUNT(rules));
              tcase_add_loop_test(tc, no_rule, 0, RS_COUNT(no_rules));
              tcase_add_loop_test(tc, instants, 0, RS_COUNT(locals));
              tcase_add_test(tc, instants_are_all); tcase_add_test(tc, damaged);
              tcase_add_test(tc, by_name); tcase_add_test(tc, always_summer);
              tcase_add_test(tc, of_the_system); tcase_add_test(tc, dates);)
