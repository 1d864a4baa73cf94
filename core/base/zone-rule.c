#include "core/base/zone-rule.h"

#include "core/base/zone.h"

#define DAY INT64_C(86400)

/* --- reading ------------------------------------------------------------------------------------ */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* "CET" or "<+03>". */
static bool skip_name(const char **at)
{
    const char *p = *at;

    if (*p == '<') {
        for (p++; is_letter(*p) || is_digit(*p) || *p == '+' || *p == '-';)
            p++;
        if (*p++ != '>')
            return false;
    } else {
        while (is_letter(*p))
            p++;
        if (p - *at < 3)
            return false;
    }
    *at = p;
    return true;
}

static bool read_number(const char **at, unsigned max, unsigned *ret)
{
    unsigned n = 0;

    if (!is_digit(**at))
        return false;
    for (; is_digit(**at); (*at)++) {
        n = n * 10 + (unsigned)(**at - '0');
        if (n > max)
            return false;
    }
    *ret = n;
    return true;
}

/* "2", "-1:30", "24:00:00"; up to `hours`. */
static bool read_time(const char **at, unsigned hours, int32_t *ret)
{
    bool negative = **at == '-';
    unsigned h, m = 0, s = 0;
    int32_t seconds;

    if (**at == '-' || **at == '+')
        (*at)++;
    if (!read_number(at, hours, &h))
        return false;
    if (**at == ':' && ((*at)++, !read_number(at, 59, &m)))
        return false;
    if (**at == ':' && ((*at)++, !read_number(at, 59, &s)))
        return false;
    seconds = (int32_t)(h * 3600 + m * 60 + s);
    *ret = negative ? -seconds : seconds;
    return true;
}

static bool read_month_day(const char **at, struct rs_zone_day *d)
{
    d->kind = RS_DAY_MONTH;
    return read_number(at, 12, &d->month) && d->month >= 1 && *(*at)++ == '.' &&
           read_number(at, 5, &d->week) && d->week >= 1 && *(*at)++ == '.' &&
           read_number(at, 6, &d->day);
}

static bool read_day(const char **at, struct rs_zone_day *d)
{
    bool ok;

    if (*(*at)++ != ',')
        return false;
    d->time = 2 * 3600;
    if (**at == 'M') {
        (*at)++;
        ok = read_month_day(at, d);
    } else {
        d->kind = **at == 'J' ? RS_DAY_JULIAN : RS_DAY_ZERO;
        *at += **at == 'J';
        ok = read_number(at, 365, &d->day) && (d->kind == RS_DAY_ZERO || d->day >= 1);
    }
    if (ok && **at == '/')
        return (*at)++, read_time(at, 167, &d->time);
    return ok;
}

bool rs_zone_rule_parse(struct rs_zone_rule *ret, const char *text)
{
    struct rs_zone_rule r = {0};
    const char *p = text;

    if (!skip_name(&p) || !read_time(&p, 24, &r.standard))
        return false;
    r.standard = -r.standard; /* there, west is above 0 */
    if (*p) {
        r.has_summer = true;
        r.summer = -(r.standard + 3600);
        if (!skip_name(&p) || (*p != ',' && !read_time(&p, 24, &r.summer)) ||
            !read_day(&p, &r.start) || !read_day(&p, &r.end) || *p)
            return false;
        r.summer = -r.summer;
    }
    *ret = r;
    return true;
}

/* --- asking ------------------------------------------------------------------------------------- */

static bool is_leap(int64_t y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Days since the epoch. */
static int64_t day_of(const struct rs_zone_day *d, int64_t year)
{
    int64_t first = rs_civil_days(year, 1, 1), day, next;

    if (d->kind == RS_DAY_ZERO)
        return first + d->day;
    if (d->kind == RS_DAY_JULIAN)
        return first + d->day - 1 + (is_leap(year) && d->day >= 60);
    first = rs_civil_days(year, d->month, 1);
    next = d->month == 12 ? rs_civil_days(year + 1, 1, 1) : rs_civil_days(year, d->month + 1, 1);
    day = first + (d->day + 7 - rs_civil_date(first).weekday) % 7 + 7 * (int64_t)(d->week - 1);
    return day >= next ? day - 7 : day; /* week 5 is the last one */
}

/* As a local time. */
static int64_t when(const struct rs_zone_day *d, int64_t year)
{
    return day_of(d, year) * DAY + d->time;
}

static int64_t year_of(const struct rs_zone_rule *r, int64_t t)
{
    int64_t local = t + r->standard;

    return rs_civil_date(local >= 0 ? local / DAY : -((-local + DAY - 1) / DAY)).year;
}

int32_t rs_zone_rule_offset(const struct rs_zone_rule *r, int64_t t)
{
    int64_t year, start, end;
    bool summer;

    if (!r->has_summer)
        return r->standard;
    year = year_of(r, t);
    start = when(&r->start, year) - r->standard;
    end = when(&r->end, year) - r->summer;
    summer = start < end ? start <= t && t < end : !(end <= t && t < start);
    return summer ? r->summer : r->standard;
}

size_t rs_zone_rule_changes(const struct rs_zone_rule *r, int64_t t, int64_t ret[RS_ZONE_RULE_NEAR])
{
    int64_t year = year_of(r, t);
    size_t n = 0;

    for (int64_t y = year - 1; r->has_summer && y <= year + 1; y++) {
        ret[n++] = when(&r->start, y) - r->standard;
        ret[n++] = when(&r->end, y) - r->summer;
    }
    return n;
}
