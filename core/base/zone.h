/* Time zones: when a clock on the wall there shows what.
 *
 * Read from the TZif files of the system (RFC 8536) by a parser of its own, because libc knows one zone
 * per process and setenv("TZ") is not safe beside other threads. Beyond the table of a file its footer
 * counts, a rule as in POSIX's TZ.
 *
 * Units:     seconds since the epoch for instants; a local time is the same number as if it were UTC
 *            ("2026-03-29 02:30" is 1774751400, wherever).
 * Ownership: rs_zone_free; a zone does not change, so any thread may read it.
 * Errors:    a file that is missing, too long or not well-formed is RS_NOT_FOUND or RS_INVALID.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rs_zone;

/* "Europe/Berlin". "UTC" needs no file. Looked for in $TZDIR and where systems have them. */
RS_MUST_CHECK int rs_zone_load(struct rs_zone **ret, const char *name, struct rs_error *err);
/* The bytes of a TZif file. */
RS_MUST_CHECK int rs_zone_parse(struct rs_zone **ret, const void *bytes, size_t n,
                                struct rs_error *err);
void rs_zone_free(struct rs_zone *z);
RS_DEFINE_AUTO(struct rs_zone *, rs_zone_free);

/* Seconds east of UTC at `t`. NULL is UTC, here and below. */
int32_t rs_zone_offset(const struct rs_zone *z, int64_t t);
/* The instants at which clocks show `local`, in order: mostly one, two where they are put back. 0: they
 * are put forward over it; ret[0] is when. */
unsigned rs_zone_instants(const struct rs_zone *z, int64_t local, int64_t ret[2]);

/* The offset is one and the same on that local day; *ret is it. */
bool rs_zone_steady(const struct rs_zone *z, int64_t day, int32_t *ret);

/* Days since the epoch of a date of the Gregorian calendar, and back. Months and days from 1. */
int64_t rs_civil_days(int64_t year, unsigned month, unsigned day);
struct rs_civil {
    int64_t year;
    unsigned month, day, weekday; /* weekday: 0 is Sunday */
};
struct rs_civil rs_civil_date(int64_t days);
