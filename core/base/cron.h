/* Points in time as cron says them: "30 8 * * MON-FRI" in a time zone.
 *
 * Five fields: minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or JAN-DEC), weekday
 * (0-7 or SUN-SAT; 0 and 7 are Sunday). Each is a list of *, N, N-M, with a step behind a slash: "*" "/15",
 * "8-18/2", "10/20" (from 10 on). Or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly,
 * @annually. Where both days are said, neither with *, one of them is enough, as in cron.
 *
 * Clocks that change: a time that is passed over is at the change (and is left out where the hour is *);
 * one that comes twice is the first of the two (and both where the hour is *).
 *
 * Units: seconds since the epoch.
 */
#pragma once

#include "core/base/error.h"
#include "core/base/zone.h"

#include <stdbool.h>
#include <stdint.h>

struct rs_cron {
    uint64_t minutes; /* bit n: minute n; so for the others */
    uint32_t hours, days, months, weekdays;
    bool either_day; /* day of the month or weekday; else both */
};

RS_MUST_CHECK int rs_cron_parse(struct rs_cron *ret, const char *text, struct rs_error *err);
/* The last one at or before `t`, the first one after it. false: there is none within 41 years. */
bool rs_cron_last(const struct rs_cron *c, const struct rs_zone *z, int64_t t, int64_t *ret);
bool rs_cron_next(const struct rs_cron *c, const struct rs_zone *z, int64_t t, int64_t *ret);
