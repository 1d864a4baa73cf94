#include "core/base/cron.h"

#include "core/base/alloc.h"

#include <string.h>
#include <strings.h>

#define DAY INT64_C(86400)
enum { DAYS_MAX = 41 * 366, EVERY_HOUR = (1 << 24) - 1, TEXT_MAX = 200 };

/* --- reading ------------------------------------------------------------------------------------ */

struct field {
    const char *what;
    unsigned min, max;
    const char *names; /* three letters each, from `min` on; NULL: none */
};

static const struct field fields[] = {
    {"minute", 0, 59, NULL},
    {"hour", 0, 23, NULL},
    {"day of the month", 1, 31, NULL},
    {"month", 1, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"},
    {"weekday", 0, 7, "SUNMONTUEWEDTHUFRISAT"},
};

static const struct {
    const char *name, *text;
} nicknames[] = {
    {"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
    {"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
    {"@annually", "0 0 1 1 *"},
};

static bool read_value(const char **at, const struct field *f, unsigned *ret)
{
    unsigned n = 0, digits = 0;

    for (size_t i = 0; f->names && f->names[3 * i]; i++)
        if (strncasecmp(*at, f->names + 3 * i, 3) == 0) {
            *ret = f->min + (unsigned)i;
            *at += 3;
            return true;
        }
    for (; **at >= '0' && **at <= '9' && digits < 3; (*at)++, digits++)
        n = n * 10 + (unsigned)(**at - '0');
    *ret = n;
    return digits > 0;
}

/* "*", "N", "N-M", each with "/STEP" or not: up to a comma or the end. */
static bool read_item(const char **at, const struct field *f, uint64_t *bits)
{
    static const struct field number = {.what = "step", .max = 999};
    unsigned from = f->min, to = f->max, step = 1;
    bool one = false;

    if (**at == '*') {
        (*at)++;
    } else {
        if (!read_value(at, f, &from))
            return false;
        one = **at != '-';
        if (!one && ((*at)++, !read_value(at, f, &to)))
            return false;
    }
    if (**at == '/') {
        if ((*at)++, !read_value(at, &number, &step) || step == 0)
            return false;
    } else if (one) {
        to = from;
    }
    if (from < f->min || to > f->max || from > to)
        return false;
    for (unsigned v = from; v <= to; v += step)
        *bits |= UINT64_C(1) << v;
    return true;
}

static int read_field(const char *text, const struct field *f, uint64_t *bits, struct rs_error *err)
{
    const char *p = text;

    *bits = 0;
    while (read_item(&p, f, bits))
        if (*p == '\0')
            return 0;
        else if (*p++ != ',')
            break;
    return rs_error_set(err, RS_INVALID,
                        "expected a %s such as \"%u\", \"%u-%u\", \"*/2\" or a list of these%s, "
                        "found \"%.40s\"",
                        f->what, f->min, f->min, f->max, f->names ? " (names are known)" : "",
                        text);
}

/* 30 February never comes. */
static bool ever_comes(const struct rs_cron *c)
{
    static const unsigned length[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    for (unsigned m = 0; m < 12 && !c->either_day; m++)
        if (c->months & 1u << (m + 1) && c->days & ((UINT32_C(1) << length[m]) - 1) << 1)
            return true;
    return c->either_day;
}

int rs_cron_parse(struct rs_cron *ret, const char *text, struct rs_error *err)
{
    rs_auto(rs_freep) char *copy = NULL;
    char *words[RS_COUNT(fields) + 1] = {0}, *rest = NULL;
    uint64_t bits[RS_COUNT(fields)];
    size_t n = 0;

    for (size_t i = 0; i < RS_COUNT(nicknames); i++)
        if (strcmp(text, nicknames[i].name) == 0)
            text = nicknames[i].text;
    copy = rs_strndup(text, TEXT_MAX);
    for (char *w = strtok_r(copy, " \t", &rest); w && n < RS_COUNT(words);
         w = strtok_r(NULL, " \t", &rest))
        words[n++] = w;
    if (n != RS_COUNT(fields) || strlen(text) > TEXT_MAX)
        return rs_error_set(err, RS_INVALID,
                            "expected five fields (minute, hour, day of the month, month, "
                            "weekday) or @daily and the like, found \"%.60s\"",
                            text);
    for (size_t i = 0; i < n; i++)
        if (read_field(words[i], &fields[i], &bits[i], err) < 0)
            return -1;
    struct rs_cron c = {
        .minutes = bits[0],
        .hours = (uint32_t)bits[1],
        .days = (uint32_t)bits[2],
        .months = (uint32_t)bits[3],
        .weekdays = (uint32_t)((bits[4] | bits[4] >> 7) & 0x7f),
        .either_day = *words[2] != '*' && *words[4] != '*',
    };
    if (!ever_comes(&c))
        return rs_error_set(err, RS_INVALID, "expected a day that comes, found \"%.60s\"", text);
    *ret = c;
    return 0;
}

/* --- asking ------------------------------------------------------------------------------------- */

static bool is_day(const struct rs_cron *c, int64_t days)
{
    struct rs_civil d = rs_civil_date(days);
    bool of_month = c->days & 1u << d.day, of_week = c->weekdays & 1u << d.weekday;

    return c->months & 1u << d.month && (c->either_day ? of_month || of_week : of_month && of_week);
}

static int64_t floor_days(int64_t t)
{
    return t >= 0 ? t / DAY : -((-t + DAY - 1) / DAY);
}

struct search {
    const struct rs_cron *cron;
    const struct rs_zone *zone;
    int64_t t;
    int direction; /* -1: the last one at or before t; 1: the first one after it */
    bool found, sure;
    int64_t best;
};

static void offer(struct search *s, int64_t at)
{
    if (s->direction > 0 ? at <= s->t : at > s->t)
        return;
    if (!s->found || (s->direction > 0 ? at < s->best : at > s->best))
        s->best = at;
    s->found = true;
}

/* A time of the local clock. Where it comes once the search is over: all others are farther off. */
static void try_local(struct search *s, int64_t local, bool steady, int32_t offset)
{
    int64_t at[2] = {local - offset};
    unsigned n = steady ? 1 : rs_zone_instants(s->zone, local, at);
    bool every = (s->cron->hours & EVERY_HOUR) == EVERY_HOUR;

    if (n == 0 && every)
        return;
    offer(s, at[0]);
    if (n == 2 && every)
        offer(s, at[1]);
    s->sure |= n == 1 && s->found;
}

static void try_day(struct search *s, int64_t day)
{
    int32_t offset = 0;
    bool steady = rs_zone_steady(s->zone, day, &offset);

    for (int i = 0; i < 24 && !s->sure; i++) {
        int h = s->direction > 0 ? i : 23 - i;

        for (int k = 0; s->cron->hours & 1u << h && k < 60 && !s->sure; k++) {
            int m = s->direction > 0 ? k : 59 - k;

            if (s->cron->minutes & UINT64_C(1) << m)
                try_local(s, day * DAY + h * 3600 + m * 60, steady, offset);
        }
    }
}

/* What was found on a day whose clock changed may be beaten by the day beyond, not by another one. */
static bool search(struct search *s, int64_t *ret)
{
    int64_t day = floor_days(s->t + rs_zone_offset(s->zone, s->t)) - s->direction;

    for (int i = 0, more = 1; i < DAYS_MAX && !s->sure && more >= 0; i++, day += s->direction) {
        more -= s->found;
        if (is_day(s->cron, day))
            try_day(s, day);
    }
    if (s->found)
        *ret = s->best;
    return s->found;
}

bool rs_cron_last(const struct rs_cron *c, const struct rs_zone *z, int64_t t, int64_t *ret)
{
    return search(&(struct search){.cron = c, .zone = z, .t = t, .direction = -1}, ret);
}

bool rs_cron_next(const struct rs_cron *c, const struct rs_zone *z, int64_t t, int64_t *ret)
{
    return search(&(struct search){.cron = c, .zone = z, .t = t, .direction = 1}, ret);
}
