/* The rule for all years to come, as in POSIX's TZ: "CET-1CEST,M3.5.0,M10.5.0/3". Internal to zone.c.
 *
 * Units: seconds, as in zone.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When in a year. */
struct rs_zone_day {
    enum { RS_DAY_JULIAN, RS_DAY_ZERO, RS_DAY_MONTH } kind; /* Jn (no 29 February), n, Mm.w.d */
    unsigned month, week, day;
    int32_t time; /* of the clock that is to change */
};

struct rs_zone_rule {
    int32_t standard, summer; /* seconds east of UTC */
    bool has_summer;
    struct rs_zone_day start, end;
};

bool rs_zone_rule_parse(struct rs_zone_rule *ret, const char *text); /* false: it is none */
int32_t rs_zone_rule_offset(const struct rs_zone_rule *r, int64_t t);
/* Changes of the years around `t`; returns how many. */
enum { RS_ZONE_RULE_NEAR = 6 };
size_t rs_zone_rule_changes(const struct rs_zone_rule *r, int64_t t,
                            int64_t ret[RS_ZONE_RULE_NEAR]);
